"""Paid calls, recorded before they are made: the worst case is held when an attempt opens, and settled when it ends.

No provider offers idempotency, so a call whose worker died may or may not have been billed. The ledger therefore never
forgets an opened attempt: until it is known better, its worst case counts against the request's ceilings.

```
held ──settle, billed──────────▶ settled   counts its actual usage, even if above the hold
  ├────settle, not billed──────▶ released  counts nothing
  ├────settle, billing unknown─▶ unknown   counts the worst case, for good
  └────the turn is opened again▶ unknown   its worker is taken for dead; if that worker settles after all with an
                                           actual usage, the attempt becomes settled, otherwise the worst case stays
```
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from holdfast import budget
from holdfast.contracts import FinishReason, Limits, SpendScopes, Usage
from holdfast.errors import IdempotencyConflict, InvalidInput, LimitExceeded, Outcome, Unavailable
from holdfast.ledger.attempt import (
    NOTHING,
    Attempt,
    AttemptKey,
    AttemptState,
    Opened,
    Recorded,
    Settled,
    Totals,
    attempt_id_of,
    attempt_of,
    recorded_of,
    settled_of,
    totals_of,
    tries_of,
    waiting_of,
)
from holdfast.ledger.batch_lines import BatchLines
from holdfast.ledger.budgets import lock_of
from holdfast.ledger.contents import Contents, digest_of
from holdfast.ledger.counters import Counters, Hold, Raced
from holdfast.ledger.database import Database
from holdfast.ledger.schema import attempts, reference_values, requests, usage_of, usage_values
from holdfast.spending import Amount, amount_of

_SETTLEMENT_COLUMNS = (
    "state",
    "outcome",
    "answered_by",
    "finish_reason",
    "output_sha256",
    "output_size",
    "response_id",
    "error_code",
    "settled_at",
    "settlement_sha256",
    "measured",
)
_MOST_RACES = 20
"""How often an opening is tried whose budgets other processes move at the same moment; with locks one is enough."""
_REMEMBERED = 10_000
"""Open calls whose tenant this process remembers."""


class Attempts:
    """The record of paid calls."""

    def __init__(self, database: Database, contents: Contents, counters: Counters, lines: BatchLines) -> None:
        self._database = database
        self._lines = lines
        self._contents = contents
        self._counters = counters
        self._tenants_with_budgets: set[str] = set()
        self._tenant_of: OrderedDict[str, str] = OrderedDict()
        this_request = attempts.c.request_id == bindparam("of_request")
        self._of_request = select(attempts).where(this_request).order_by(attempts.c.ordinal)
        ended = select(requests.c.request_id).where(
            requests.c.tenant == attempts.c.tenant, requests.c.request_id == attempts.c.request_id
        )
        self._of_request_and_end = self._of_request.add_columns(ended.scalar_subquery().label("ended"))
        self._insert = insert(attempts)
        self._lose = (
            update(attempts)
            .where(this_request, attempts.c.turn == bindparam("of_turn"), attempts.c.state == AttemptState.HELD.value)
            .values(state=AttemptState.UNKNOWN.value)
        )
        self._settle = (
            update(attempts)
            .where(this_request, attempts.c.ordinal == bindparam("of_ordinal"))
            .values({name: bindparam(name) for name in (*_SETTLEMENT_COLUMNS, *usage_values(NOTHING))})
        )
        self._correct_end = (
            update(requests)
            .where(requests.c.tenant == bindparam("of_tenant"), requests.c.request_id == bindparam("of_request"))
            .values({name: bindparam(name) for name in ("attempts", *usage_values(NOTHING))})
        )

    async def open(
        self,
        key: AttemptKey,
        *,
        deployment: str,
        model: str,
        hold: Usage,
        limits: Limits,
        scopes: SpendScopes | None = None,
        agent: str | None = None,
        now: datetime | None = None,
        batched: str | None = None,
    ) -> Opened | Recorded:
        """Ask to make one call; on return it is recorded and its worst case held.

        Args:
            key: The reply that the call is for.
            deployment: Where the call goes.
            model: The model asked for.
            hold: The most the call can consume (`holdfast.budget.worst_case`).
            limits: The request's ceilings.
            scopes: Whose budgets the call counts against as well; without, none.
            agent: Whose call it is, for reports.
            now: The present, UTC; the clock's by default. It decides on the budgets' periods.
            batched: The call as JSON, if it is not made now but put in line for the deployment's next batch. One that
                is in line already, or in a batch, is returned instead of opening another.

        Returns:
            `Recorded` when the turn already has a good reply, else `Opened`. Earlier attempts of the turn that are
            still held are taken for dead and keep counting at their worst case.

        Raises:
            LimitExceeded: A ceiling of the request would be passed; the call is not recorded and must not be made.
            BudgetExceeded: A budget or credit of the scopes would be passed; likewise.
            InvalidInput: The scopes are another tenant's.
            Unavailable: The ledger does not answer, so nothing could be checked and nothing may be sent.
        """
        if scopes is not None and scopes.tenant != key.tenant:
            raise InvalidInput(f"Request {key.request_id} cannot spend for another tenant.", field="scopes.tenant")
        moment = now or datetime.now(UTC)

        def unit(connection: Connection) -> Opened | Recorded | LimitExceeded:
            rows = self._rows(connection, key.request_id)
            for row in rows:
                if row.turn == key.turn and row.outcome == Outcome.OK.value and row.state == AttemptState.SETTLED.value:
                    return recorded_of(row, rows)
            if batched is not None:
                in_line = self._lines.waiting_in(connection, key, deployment)
                if (waiting := waiting_of(in_line, key, deployment, rows)) is not None:
                    return waiting
            if any(row.turn == key.turn and row.state == AttemptState.HELD.value for row in rows):
                connection.execute(self._lose, {"of_request": key.request_id, "of_turn": key.turn})
            totals = totals_of(rows)
            denied = _denial(limits, totals, hold)
            if denied is not None:
                return denied
            # Not the count: rows are never deleted, but an ordinal must not be given out twice even if they were.
            ordinal = 1 + (rows[-1].ordinal if rows else 0)
            attempt_id = attempt_id_of(key.request_id, ordinal)
            in_budgets = Hold(None)
            if scopes is not None and (standings := self._counters.standings(connection, scopes, moment)):
                self._tenants_with_budgets.add(key.tenant)
                held = self._counters.hold(
                    connection,
                    standings,
                    amount_of(hold),
                    request_id=key.request_id,
                    attempt_id=attempt_id,
                    used=_extensions_used(rows),
                    now=moment,
                )
                if isinstance(held, LimitExceeded):
                    return held
                in_budgets = held
            row_of_attempt = _held_row(key, ordinal, deployment, model, hold)
            row_of_attempt |= _spender(scopes, agent, moment) | _budget_values(in_budgets)
            connection.execute(self._insert, row_of_attempt)
            if batched is not None:
                self._lines.add_in(connection, attempt_id, key, deployment, batched, moment)
            return Opened(attempt_id, ordinal, totals.usage + hold, tries_of(rows, key, deployment) + 1)

        for _ in range(_MOST_RACES):
            try:
                opened = await self._database.write(unit, self._locks(key.request_id, key.tenant))
                break
            except Raced:
                continue
        else:
            raise Unavailable(f"The budgets of tenant {key.tenant!r} move too fast to hold a call in; try again.")
        if isinstance(opened, LimitExceeded):
            raise opened
        if isinstance(opened, Opened):
            self._remember_tenant(opened.attempt_id, key.tenant)
        return opened

    async def settle(
        self,
        attempt_id: str,
        outcome: Outcome,
        *,
        usage: Usage | None = None,
        output: str | None = None,
        finish_reason: FinishReason | None = None,
        model: str | None = None,
        response_id: str | None = None,
        error_code: str | None = None,
    ) -> Settled:
        """Close an attempt's books, correct its budgets and store its output, in one transaction.

        Repeating a settlement changes nothing. What counts afterwards follows `outcome.billed`: the actual usage (the
        worst case if none is given), nothing, or the worst case. An attempt already taken for dead never counts less
        than an actual usage says. If the request has ended meanwhile, its final row is corrected too.

        Args:
            attempt_id: From `Opened`.
            outcome: How the call ended.
            usage: What was consumed, priced; recorded as it is, even above the hold.
            output: The reply's text, partial if the stream broke. A lone surrogate in it becomes U+FFFD: a bill must
                be booked even if the reply is damaged.
            finish_reason: Why the model stopped; needed for `ok`.
            model: The model as the provider reported it; needed for `ok`.
            response_id: The provider's name for the response.
            error_code: The provider's code of the failure, never its message.

        Raises:
            IdempotencyConflict: The attempt was settled before, differently; nothing changes.
            InvalidInput: There is no such attempt, or a good outcome comes without its output.
        """
        if outcome is Outcome.OK and (output is None or finish_reason is None or model is None):
            raise InvalidInput(
                f"Attempt {attempt_id} is settled as 'ok' without `output`, `finish_reason` or `model`, without which "
                "its reply could not be given again.",
                field="output",
            )
        request_id, _, number = attempt_id.rpartition(".")
        output, model = _valid(output), _valid(model, 256)
        response_id, error_code = _valid(response_id, 256), _valid(error_code, 128)
        said = [outcome, usage and usage.model_dump_json(), output, finish_reason, model, response_id, error_code]
        settlement = hashlib.sha256(json.dumps(said).encode()).hexdigest()
        digested = None if output is None else digest_of(output)
        now = datetime.now(UTC)

        def unit(connection: Connection) -> Settled:
            rows = self._rows(connection, request_id, with_end=True)
            row = next((row for row in rows if str(row.ordinal) == number), None)
            if row is None:
                raise InvalidInput(f"Attempt {attempt_id[:100]!r} is not in the ledger.", field="attempt_id")
            if row.settlement_sha256 == settlement:
                return settled_of(row, rows)
            if row.settled_at is not None:
                raise IdempotencyConflict(
                    f"Attempt {attempt_id} was settled as {row.outcome!r} before and cannot be settled as "
                    f"{outcome.value!r} with other content; the first settlement stands."
                )
            if digested is not None:
                self._contents.add(connection, row.tenant, [digested])
            state, counted = _verdict(AttemptState(row.state), usage_of(row), outcome, usage)
            reference = digested and digested.reference
            connection.execute(
                self._settle,
                {
                    "of_request": request_id,
                    "of_ordinal": row.ordinal,
                    "state": state.value,
                    "outcome": outcome.value,
                    "answered_by": model,
                    "finish_reason": finish_reason and finish_reason.value,
                    "response_id": response_id,
                    "error_code": error_code,
                    "settled_at": now,
                    "settlement_sha256": settlement,
                    "measured": state is not AttemptState.UNKNOWN and (usage is not None or outcome.billed is False),
                    **reference_values("output", reference),
                    **usage_values(counted),
                },
            )
            held = amount_of(usage_of(row))  # it was never settled, so it counts what was held
            self._counters.settle(
                connection,
                row.held_in,
                tenant=row.tenant,
                attempt_id=attempt_id,
                held=held,
                counted=_counted_amount(held, counted),
                released=state is AttemptState.RELEASED,
                now=now,
            )
            totals = Totals(sum((usage_of(other) for other in rows if other is not row), counted), len(rows))
            if row.ended is not None:
                key = {"of_tenant": row.tenant, "of_request": request_id}
                connection.execute(self._correct_end, key | {"attempts": len(rows)} | usage_values(totals.usage))
            return Settled(attempt_id, state, counted, reference, totals)

        tenant = self._tenant_of.pop(attempt_id, None)
        settled = await self._database.write(unit, self._locks(request_id, tenant))
        if digested is not None and tenant is not None:
            self._contents.remember(tenant, [digested])
        return settled

    async def totals(self, request_id: str) -> Totals:
        """What a request has spent so far."""
        return await self._database.read(lambda reading: self.totals_in(reading, request_id))

    def totals_in(self, connection: Connection, request_id: str) -> Totals:
        """Inside a transaction: see `totals`."""
        return totals_of(self._rows(connection, request_id))

    async def list(self, request_id: str) -> tuple[Attempt, ...]:
        """Every call of a request, in the order in which they were opened."""
        rows = await self._database.read(lambda reading: self._rows(reading, request_id))
        return tuple(attempt_of(row) for row in rows)

    def _rows(self, connection: Connection, request_id: str, *, with_end: bool = False) -> Sequence[Row[Any]]:
        statement = self._of_request_and_end if with_end else self._of_request
        return connection.execute(statement, {"of_request": request_id}).all()

    def _locks(self, request_id: str, tenant: str | None) -> Sequence[str]:
        """What other processes are kept from meanwhile: the request, and the tenant's counters if there are any.

        The latter only keeps transactions from waiting for each other in circles; ceilings hold without.
        """
        locks = [lock_of_request(request_id)]
        if tenant in self._tenants_with_budgets:
            locks.append(lock_of(tenant))
        return locks

    def _remember_tenant(self, attempt_id: str, tenant: str) -> None:
        self._tenant_of[attempt_id] = tenant
        while len(self._tenant_of) > _REMEMBERED:
            self._tenant_of.popitem(last=False)


def lock_of_request(request_id: str) -> str:
    """The lock under which a request's attempts and its final row change."""
    return f"holdfast.attempts.{request_id}"


def _verdict(state: AttemptState, worst: Usage, outcome: Outcome, actual: Usage | None) -> tuple[AttemptState, Usage]:
    """Where a settlement leaves an attempt, and what it counts from then on."""
    if outcome.billed:
        # A reply without a usage report was billed something; the worst case is the only safe number.
        return AttemptState.SETTLED, worst if actual is None else actual
    if outcome.billed is False and state is AttemptState.HELD:
        return AttemptState.RELEASED, NOTHING
    return AttemptState.UNKNOWN, worst


def _valid(text: str | None, longest: int | None = None) -> str | None:
    """What a provider said, made storable."""
    return None if text is None else text[:longest].encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _denial(limits: Limits, totals: Totals, hold: Usage) -> LimitExceeded | None:
    try:
        budget.check(limits, totals.usage, totals.attempts, hold)
    except LimitExceeded as denied:
        return denied
    return None


def _held_row(key: AttemptKey, ordinal: int, deployment: str, model: str, hold: Usage) -> dict[str, Any]:
    return {
        "request_id": key.request_id,
        "ordinal": ordinal,
        "tenant": key.tenant,
        "turn": key.turn,
        "deployment": deployment,
        "model": model,
        "state": AttemptState.HELD.value,
        "hold_tokens": hold.total_tokens,
        "hold_cost_usd": hold.cost_usd,
        **usage_values(hold),
    }


def _spender(scopes: SpendScopes | None, agent: str | None, opened_at: datetime) -> dict[str, Any]:
    return {
        "user": scopes and scopes.user,
        "session": scopes and scopes.session,
        "agent": agent,
        "opened_at": opened_at,
        "day": f"{opened_at.astimezone(UTC):%Y-%m-%d}",
    }


def _budget_values(hold: Hold) -> dict[str, Any]:
    return {
        "held_in": hold.held_in,
        "extended_tokens": hold.extended.tokens,
        "extended_cost": hold.extended.cost,
    }


def _counted_amount(held: Amount, counted: Usage) -> Amount:
    """What an attempt counts in budgets once settled; without a price for its usage, the price of its hold stands."""
    amount = amount_of(counted)
    return amount if not amount.unpriced else Amount(amount.tokens, held.cost, held.unpriced)


def _extensions_used(rows: Sequence[Row[Any]]) -> Amount:
    """What a request's attempts have used of the permissions to go past its budgets."""
    used = Amount()
    for row in rows:
        counted = amount_of(usage_of(row))
        used += Amount(min(row.extended_tokens or 0, counted.tokens), min(row.extended_cost or 0, counted.cost))
    return used
