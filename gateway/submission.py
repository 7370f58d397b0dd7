"""What may be asked, in which form, under which id: bodies, limits, idempotency keys."""

import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from gateway.problems import Problem
from gateway.validation import Body, problem_of_validation
from holdfast.configuration import Agent
from holdfast.contracts import Conversation, Limits
from holdfast.errors import InvalidInput
from holdfast.limit_choices import ChosenLimits, chosen
from holdfast.settings import parse_duration

SessionName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""What a client calls a conversation."""

_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def _read_deadline(value: Any) -> Any:
    try:
        span = parse_duration(value)
    except OverflowError:
        raise ValueError("the duration is too long") from None
    if not isinstance(span, timedelta):
        raise ValueError('write a duration like "30m", "2h" or "1d12h"')
    return span


def _read_money(value: Any) -> Any:
    if isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return Decimal(value)
        except InvalidOperation:
            raise ValueError('write an amount like "0.50"') from None
    return value


def _read_moment(value: Any) -> Any:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError('write a moment like "2026-12-01T22:00:00Z"') from None
    if moment.tzinfo is None:
        raise ValueError("the moment needs its offset from UTC, such as Z or +01:00")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the moment is out of range") from None


class LimitsBody(ChosenLimits, Body):
    """Ceilings that the caller sets below the agent's; what is left out stays as the agent has it."""

    cost_usd: Annotated[Decimal | None, BeforeValidator(_read_money)] = chosen(
        "cost_usd", max_digits=18, decimal_places=9
    )
    deadline: Annotated[timedelta | None, BeforeValidator(_read_deadline)] = chosen("deadline")


class Submission(Body):
    """The body of `POST /v1/requests`."""

    agent: str
    """Name of an agent."""
    input: str
    """The question."""
    session: SessionName | None = None
    """Groups requests of one conversation."""
    limits: LimitsBody = LimitsBody()
    batch: bool = False
    """Whether the answer may take hours and should cost less: the request goes behind all others."""
    not_before: Annotated[datetime | None, BeforeValidator(_read_moment)] = None
    """No model is called before this moment, e.g. `2026-12-01T22:00:00Z`."""


@dataclass(frozen=True)
class Question:
    """What a client asks, whichever API it speaks."""

    agent: str
    input: str
    limits: LimitsBody = field(default_factory=LimitsBody)
    session: str | None = None
    batch: bool = False
    not_before: datetime | None = None
    conversation: Conversation | None = None
    """What surrounds the input, as the client sent it."""
    chat: bool = False

    @classmethod
    def of(cls, submission: Submission) -> "Question":
        """The question of a native submission."""
        return cls(
            agent=submission.agent,
            input=submission.input,
            limits=submission.limits,
            session=submission.session,
            batch=submission.batch,
            not_before=submission.not_before,
        )


def merge_limits(agent: Agent, asked: LimitsBody) -> Limits:
    """The agent's limits with those of the request, which may only be tighter.

    Raises:
        InvalidInput: A limit is above the agent's.
        Problem: A limit is out of its range.
    """
    given = asked.model_dump(exclude_none=True)
    ceilings = agent.limits.model_dump()
    try:
        merged = Limits(**(ceilings | given))
    except ValidationError as error:
        raise problem_of_validation(error, Limits, prefix="limits.") from None
    for name, value in given.items():
        if ceilings[name] is not None and value > ceilings[name]:
            raise InvalidInput(
                f"`limits.{name}` is above the {ceilings[name]} that agent {agent.name!r} allows; ask for that or "
                f"less, or raise `{name}` under `[limits]` in the agent's file.",
                field=f"limits.{name}",
            )
    return merged


def read_key(headers: Mapping[str, str]) -> str | None:
    """The idempotency key of a request, if it has one.

    Raises:
        Problem: 400 when the key is not 1 to 255 printable ASCII characters.
    """
    key = headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Problem(
            400,
            "invalid-header",
            "Invalid header",
            "Idempotency-Key must be 1 to 255 printable ASCII characters.",
            remedy="Send a UUID or another name that is unique to this request.",
            field="Idempotency-Key",
        )
    return key


def digest(body: object) -> str:
    """SHA-256 of a parsed JSON value, the same for every spelling of it (order of keys, spaces, escapes)."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def keyed_id(prefix: str, tenant: str, key: str) -> str:
    """The id that a tenant's idempotency key stands for: 130 bits of a SHA-256 in base 32 (RFC 4648)."""
    name = hashlib.sha256(f"{tenant}\0{key}".encode()).digest()
    return prefix + base64.b32encode(name).decode().lower()[:26]


def new_id(prefix: str) -> str:
    """A new id that sorts by time: 48 bits of milliseconds and 80 random bits, as in a ULID."""
    number = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    return prefix + "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
