"""Calls of tools, each claimed before it is made, so that no call that is on record is made again.

```
(no row) ──begin──▶ begun ──end──▶ done | failed
                      │ begin again: idempotent → begun, one run more; else OutcomeUnknown
```

A call that stays begun was under way when its worker died: it may or may not have happened.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import Connection, Row, bindparam, select, update

from holdfast.contracts import ToolReturned
from holdfast.errors import OutcomeUnknown, ToolProblem
from holdfast.ledger.contents import Contents, digest_of
from holdfast.ledger.database import Database
from holdfast.ledger.schema import tool_calls


class CallState(StrEnum):
    """Where a call is."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class ToolCallKey:
    """Names one call of one request."""

    tenant: str
    request_id: str
    key: str
    """Turn and position in the reply, `3.0`."""


@dataclass(frozen=True)
class Begun:
    """The caller may, and has to, make the call."""

    runs: int
    """Which run of it this is."""


@dataclass(frozen=True)
class RecordedCall:
    """One call as it is on record."""

    key: ToolCallKey
    tool: str
    agent: str
    idempotency_key: str
    arguments_sha256: str
    state: CallState
    runs: int
    result: ToolReturned | None
    begun_at: datetime
    ended_at: datetime | None


class ToolCalls:
    """The calls of every request."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database = database
        self._contents = contents
        of_request = (tool_calls.c.tenant == bindparam("of_tenant"), tool_calls.c.request_id == bindparam("of_request"))
        this = (*of_request, tool_calls.c.call_key == bindparam("of_key"))
        self._insert = database.insert_once(tool_calls)
        self._select = select(tool_calls).where(*this)
        self._again = update(tool_calls).where(*this).values(runs=tool_calls.c.runs + 1)
        self._end = update(tool_calls).where(*this, tool_calls.c.state == CallState.BEGUN.value)
        self._list = select(tool_calls).where(*of_request).order_by(tool_calls.c.begun_at, tool_calls.c.call_key)

    async def begin(
        self,
        key: ToolCallKey,
        *,
        tool: str,
        agent: str,
        idempotency_key: str,
        arguments_sha256: str,
        idempotent: bool,
    ) -> Begun | ToolReturned:
        """Claim a call, or learn what came of it. Of several at the same time, one is given it.

        Args:
            key: Which call.
            tool: Its tool's name.
            agent: Who makes it.
            idempotency_key: What the tool is handed.
            arguments_sha256: Digest of the arguments.
            idempotent: Whether it may be made again if it was begun and nobody knows what became of it.

        Returns:
            That the call is to be made now, or its recorded result, marked `repeated`.

        Raises:
            OutcomeUnknown: It was begun, nothing is known of its end, and it may not be made again.
            ToolProblem: The record is about other arguments.
        """
        row = {
            "tenant": key.tenant,
            "request_id": key.request_id,
            "call_key": key.key,
            "tool": tool,
            "agent": agent,
            "idempotency_key": idempotency_key,
            "arguments_sha256": arguments_sha256,
            "state": CallState.BEGUN.value,
            "runs": 1,
            "begun_at": datetime.now(UTC),
        }

        def unit(connection: Connection) -> Begun | ToolReturned:
            if connection.execute(self._insert, row).rowcount == 1:
                return Begun(runs=1)
            recorded = _recorded(connection.execute(self._select, _named(key)).one())
            if recorded.arguments_sha256 != arguments_sha256 or recorded.tool != tool:
                raise ToolProblem(
                    "A call of this place in the conversation was made before with other arguments; it was not made "
                    "again."
                )
            if recorded.result is not None:
                return recorded.result.model_copy(update={"repeated": True})
            if not idempotent:
                raise OutcomeUnknown(
                    "The call was begun before and nobody knows how it ended: it may or may not have taken effect. It "
                    "was not repeated. Find out what happened before you try it another way."
                )
            connection.execute(self._again, _named(key))
            return Begun(runs=recorded.runs + 1)

        return await self._database.write(unit, [f"tool:{key.request_id}:{key.key}"])

    async def end(self, key: ToolCallKey, returned: ToolReturned, text: str | None = None) -> ToolReturned:
        """Record what came of a call that was begun. What is recorded first stays.

        Args:
            key: Which call.
            returned: What came of it, without `result`.
            text: What the model is to be shown; stored with the record, its reference becomes `result`.

        Returns:
            What is on record.

        Raises:
            InvalidInput: The text is not valid Unicode.
        """
        digested = None if text is None else digest_of(text)
        if digested is not None:
            returned = returned.model_copy(update={"result": digested.reference})
        values = {
            "state": (CallState.DONE if returned.ok else CallState.FAILED).value,
            "result": returned.model_dump_json(),
            "ended_at": datetime.now(UTC),
        }

        def unit(connection: Connection) -> ToolReturned:
            if connection.execute(self._end.values(values), _named(key)).rowcount == 1:
                if digested is not None:
                    self._contents.add(connection, key.tenant, [digested])
                return returned
            recorded = _recorded(connection.execute(self._select, _named(key)).one())
            if recorded.result is None:
                raise AssertionError("A call that is not begun has a result.")
            return recorded.result.model_copy(update={"repeated": True})

        kept = await self._database.write(unit, [f"tool:{key.request_id}:{key.key}"])
        if digested is not None and kept is returned:
            self._contents.remember(key.tenant, [digested])
        return kept

    async def list(self, tenant: str, request_id: str) -> tuple[RecordedCall, ...]:
        """Every call of a request, in the order in which they were begun."""
        key = {"of_tenant": tenant, "of_request": request_id}
        rows = await self._database.read(lambda reading: reading.execute(self._list, key).all())
        return tuple(_recorded(row) for row in rows)


def _named(key: ToolCallKey) -> dict[str, str]:
    return {"of_tenant": key.tenant, "of_request": key.request_id, "of_key": key.key}


def _recorded(row: Row[tuple[object, ...]]) -> RecordedCall:
    return RecordedCall(
        key=ToolCallKey(row.tenant, row.request_id, row.call_key),
        tool=row.tool,
        agent=row.agent,
        idempotency_key=row.idempotency_key,
        arguments_sha256=row.arguments_sha256,
        state=CallState(row.state),
        runs=row.runs,
        result=None if row.result is None else ToolReturned.model_validate_json(row.result),
        begun_at=row.begun_at,
        ended_at=row.ended_at,
    )
