"""Turns a body into a request: what may be asked, under which id, and what is stored before the run starts."""

import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from gateway.execution import Execution, RequestEngine
from gateway.identity import Caller
from gateway.problems import Problem
from gateway.validation import Body, problem_of_validation
from holdfast.configuration import Agent, Configuration, reference
from holdfast.contracts import Limits, Request
from holdfast.errors import InvalidInput
from holdfast.ledger import Ledger
from holdfast.settings import parse_duration

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


class LimitsBody(Body):
    """Ceilings that the caller sets below the agent's; what is left out stays as the agent has it."""

    tokens: int | None = None
    cost_usd: Annotated[Decimal | None, BeforeValidator(_read_money)] = Field(
        default=None, max_digits=18, decimal_places=9
    )
    output_tokens: int | None = None
    attempts: int | None = None
    repairs: int | None = None
    deadline: Annotated[timedelta | None, BeforeValidator(_read_deadline)] = None


class Submission(Body):
    """The body of `POST /v1/requests`."""

    agent: str
    """Name of an agent."""
    input: str
    """The question."""
    session: str | None = Field(default=None, min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")
    """Groups requests of one conversation."""
    limits: LimitsBody = LimitsBody()


class Intake:
    """Accepts submissions.

    Args:
        configuration: The agents.
        ledger: Where texts and idempotency keys are kept.
        engine: What runs the requests.
    """

    def __init__(self, configuration: Configuration, ledger: Ledger, engine: RequestEngine) -> None:
        self._configuration = configuration
        self._ledger = ledger
        self._engine = engine

    async def accept(
        self, caller: Caller, submission: Submission, body: Mapping[str, Any], key: str | None
    ) -> Execution:
        """Store what the request needs and start it, once for each idempotency key.

        The texts are committed before the run starts, so a run never lacks them. If the process dies in between, the
        same key starts the run when it comes again.

        Args:
            caller: Who asks.
            submission: The validated body.
            body: The body as it was parsed; a repetition of the key must have an equal one.
            key: Idempotency key, if any.

        Raises:
            InvalidInput: The agent is unknown, the input is empty, or a limit is not acceptable.
            Problem: A limit is out of its range.
            IdempotencyConflict: The key came with another body before.
            Unavailable: Ledger or engine do not answer.
        """
        agent = self._configuration.agent(submission.agent)
        if not submission.input.strip():
            raise InvalidInput("`input` is empty; send the question as text.", field="input")
        limits = merge_limits(agent, submission.limits)
        texts = (submission.input, *agent.texts)
        request_id = new_id("req_") if key is None else keyed_id("req_", caller.tenant, key)
        if key is None:
            await self._ledger.contents.put_many(caller.tenant, texts)
        else:
            claim = await self._ledger.submissions.claim(
                caller.tenant, key, body_sha256=digest(body), request_id=request_id, texts=texts
            )
            request_id = claim.request_id
            if not claim.created:
                if existing := await find(self._engine, self._ledger, request_id, caller.tenant):
                    return existing
                # The first submission died before its run started, perhaps under an older version of the agent.
                await self._ledger.contents.put_many(caller.tenant, texts)
        return await self._engine.submit(
            Request(
                id=request_id,
                tenant=caller.tenant,
                user=caller.user,
                plan=agent.plan,
                input=reference(submission.input),
                limits=limits,
                submitted_at=datetime.now(UTC),
                session=submission.session,
                tier=caller.tier,
            )
        )


async def find(engine: RequestEngine, ledger: Ledger, request_id: str, tenant: str) -> Execution | None:
    """A request of the tenant, from the engine or, once its run has passed the engine's retention, from the ledger."""
    if (execution := await engine.find(request_id, tenant)) is not None:
        return execution
    finished = await ledger.requests.get(tenant, request_id)
    if finished is None:
        return None
    return Execution(
        request_id=request_id,
        tenant=tenant,
        user=finished.user,
        agent=finished.agent,
        status=finished.answer.status,
        submitted_at=finished.submitted_at,
        session=finished.session,
        answer=finished.answer,
        tokens=finished.answer.usage.total_tokens,
        cost_usd=finished.answer.usage.cost_usd,
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
