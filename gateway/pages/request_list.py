"""The list of requests: what each is about, for those who may read that, and what it has cost."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from gateway.context import Gateway
from gateway.execution import Execution
from gateway.identity import Caller
from gateway.pages.questions import spent, text_of
from holdfast.approval import is_named
from holdfast.contracts import ContentRef


@dataclass(frozen=True)
class Row:
    """A request in the list."""

    execution: Execution
    asked: str | None
    """What the user asked; `None` when it is not for whoever reads the list, or not stored."""
    cost_usd: Decimal | None
    """So far, of a request that has not ended."""


async def rows_of(gateway: Gateway, executions: Sequence[Execution], caller: Caller) -> list[Row]:
    """Requests as rows of the list, in their order.

    What was asked is told to the person who asked it, and while a question waits, masked, to those who may decide.
    """
    ended = await gateway.ledger.requests.list(caller.tenant, limit=len(executions)) if executions else ()
    inputs = {one.answer.request_id: one.input for one in ended if one.user == caller.user}
    return await asyncio.gather(
        *(_row(gateway, one, _asked(one, caller) or inputs.get(one.request_id)) for one in executions)
    )


def _asked(execution: Execution, caller: Caller) -> ContentRef | None:
    approval = execution.approval
    if approval is None:
        return None
    own = execution.user == caller.user
    return approval.asked if own or is_named(approval.approvers, caller.user, caller.roles) else None


async def _row(gateway: Gateway, execution: Execution, asked: ContentRef | None) -> Row:
    cost_usd = execution.cost_usd if execution.status.is_final else (await spent(gateway, execution)).cost_usd
    return Row(execution, await text_of(gateway, execution.tenant, asked), cost_usd)
