"""Every error Holdfast raises on purpose.

```
HoldfastError
├── ConfigurationError        a file or variable is wrong; named with file and key, found at start
├── InvalidInput              the caller's input is wrong; named with field and remedy
│   ├── UnknownAgent
│   ├── UnreadableDocument    a document cannot be ingested; the others still are
│   └── TargetRefused         an address that may not be reached from here
├── ContentMissing            a reference names a text that the content store does not hold
├── RelayGap                  a stream's text is no longer all there; the final answer is
├── IdempotencyConflict       the same key came with another body
├── DecisionRefused           an approval decision that may not be taken
├── ToolProblem               a tool call that cannot be made, or failed; told to the model
│   └── OutcomeUnknown        a call that may have been made and may not be repeated
├── LimitExceeded             a ceiling of the request would be passed
│   └── BudgetExceeded        a budget or the credit of a tenant, user or session would be passed
├── ProviderError             a model call failed; carries its classified outcome
├── Throttled                 a deployment has no room now; nothing was sent
└── Unavailable               something Holdfast depends on does not answer
```

A message says what happened to which object and what to do about it. It never contains the text of a request.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal


class HoldfastError(Exception):
    """Root of the tree."""


class ConfigurationError(HoldfastError):
    """Configuration is wrong. The message names the file, the key and the remedy."""


class InvalidInput(HoldfastError):
    """The caller sent something that cannot be accepted.

    Args:
        message: What is wrong and how to mend it.
        field: Path of the offending field, dotted, e.g. `limits.tokens`; `None` when the whole body is wrong.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnknownAgent(InvalidInput):
    """The request names an agent that no file defines."""


class UnreadableDocument(InvalidInput):
    """A document that cannot be read as text. The message names its path."""


class TargetRefused(InvalidInput):
    """A URL that may not be asked: malformed, not on a list, or somewhere private. The message does not repeat it."""


class ContentMissing(HoldfastError):
    """A content reference without content: the store was pruned or belongs to another installation."""


class RelayGap(HoldfastError):
    """A follower of a stream cannot be given the next character: it was dropped or lost. The final answer has it."""


class IdempotencyConflict(HoldfastError):
    """An idempotency key was used before with a different body."""


class DecisionRefused(HoldfastError):
    """A decision on an approval that is not allowed; nothing has changed.

    Args:
        message: Why, in words for the person who decided.
        code: `not_open`, `already_decided`, `not_named`, `own_request`, `other_content`, `no_payload`,
            `no_edit`, `invalid_edit`, `invalid_decision`, `no_escalation`, `already_voted` or `too_late`.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class ToolProblem(HoldfastError):
    """A tool cannot be called, or failed in a way that the model should hear of.

    A tool raises it to tell the model what went wrong; the message becomes the call's result.
    """


class OutcomeUnknown(ToolProblem):
    """A call was begun by a worker that died, and the tool does not admit a repetition."""


class LimitExceeded(HoldfastError):
    """A limit of the request would be passed by what was about to happen.

    Args:
        limit: Which: `tokens`, `cost_usd`, `attempts`, `repairs`, `iterations`, `tool_calls`, `repetitions` or
            `deadline`.
        bound: Its value.
        needed: What the next call would bring the total to.
    """

    def __init__(self, message: str, *, limit: str, bound: str, needed: str) -> None:
        super().__init__(message)
        self.limit = limit
        self.bound = bound
        self.needed = needed


class BudgetExceeded(LimitExceeded):
    """A budget or the prepaid credit of a scope would be passed; nothing was recorded and nothing may be sent.

    Args:
        limit: What is used up: `tokens` or `cost_usd`.
        bound: The ceiling.
        needed: What the next call would bring the total to, `unpriced` when nobody knows.
        scope: Whose: `tenant acme`, `user ada`, `session chat-7` or `credit acme`.
        action: What the budget does at its limit, a value of `holdfast.contracts.AtLimit`.
        resets_at: When its next period begins; `None` when it has none.
    """

    def __init__(
        self,
        message: str,
        *,
        limit: str,
        bound: str,
        needed: str,
        scope: str,
        action: str,
        resets_at: datetime | None,
    ) -> None:
        super().__init__(message, limit=limit, bound=bound, needed=needed)
        self.scope = scope
        self.action = action
        self.resets_at = resets_at


class Outcome(StrEnum):
    """How a model call ended, by what it means for retry, breaker and bill (architecture, "Paid calls")."""

    OK = "ok"
    NOT_SENT = "not_sent"
    """Connect, DNS, TLS or pool failure: the provider never saw the call."""
    RATE_LIMITED = "rate_limited"
    BILLING = "billing"
    """Quota or credit is exhausted; waiting does not help."""
    OVERLOADED = "overloaded"
    """503 or 529."""
    UNKNOWN = "unknown"
    """500, 502, 504 or a timeout after sending: it may have been billed."""
    BROKEN_STREAM = "broken_stream"
    """The stream ended before its terminator; partly billed."""
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    INVALID_REQUEST = "invalid_request"
    """Any other 4xx: a repetition would fail the same way."""
    AUTHENTICATION = "authentication"
    """401 or 403: the key is wrong."""
    CANCELLED = "cancelled"
    """The caller went away in the middle of the call."""

    @property
    def billed(self) -> bool | None:
        """`True` surely, `False` surely not, `None` unknown (so the hold stays at its worst case)."""
        match self:
            case Outcome.OK | Outcome.BROKEN_STREAM | Outcome.CONTENT_FILTER | Outcome.CANCELLED:
                return True
            case Outcome.UNKNOWN:
                return None
            case _:
                return False

    @property
    def retryable(self) -> bool:
        """Whether the same deployment may be tried again for the same call."""
        return self in (
            Outcome.NOT_SENT,
            Outcome.RATE_LIMITED,
            Outcome.OVERLOADED,
            Outcome.UNKNOWN,
            Outcome.BROKEN_STREAM,
        )

    @property
    def counts_against_health(self) -> bool:
        """Whether the failure says something about the deployment's health."""
        return self in (Outcome.NOT_SENT, Outcome.OVERLOADED, Outcome.UNKNOWN, Outcome.BROKEN_STREAM)


class ProviderError(HoldfastError):
    """A model call failed.

    Args:
        message: What happened, with status and provider code, without any request or response text.
        outcome: The row of the outcome table.
        status: HTTP status, if an answer came.
        retry_after: How long the provider asks to wait, if it said so.
        should_retry: What the provider said about a repetition (`x-should-retry`), if anything.
        timed_out: Whether we gave up waiting, rather than the provider failing.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome,
        status: int | None = None,
        retry_after: timedelta | None = None,
        should_retry: bool | None = None,
        timed_out: bool = False,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.status = status
        self.retry_after = retry_after
        self.should_retry = should_retry
        self.timed_out = timed_out

    @property
    def retryable(self) -> bool:
        """Whether the same deployment may be tried again: the outcome's answer, unless the provider said no.

        A provider that says yes makes a call of unknown outcome repeatable, and no other outcome.
        """
        if self.should_retry is False:
            return False
        return self.outcome.retryable or (self.should_retry is True and self.outcome is Outcome.UNKNOWN)


class Throttled(HoldfastError):
    """A deployment's own limits or its breaker hold the call back; nothing was sent or recorded.

    Args:
        message: Which deployment and which limit.
        wait: When it is worth trying again.
        by: What holds it back: `requests`, `tokens`, `concurrency` or `breaker`.
    """

    def __init__(
        self, message: str, *, wait: timedelta, by: Literal["requests", "tokens", "concurrency", "breaker"]
    ) -> None:
        super().__init__(message)
        self.wait = wait
        self.by = by


class Unavailable(HoldfastError):
    """A dependency does not answer. The message names it and says how to look."""
