"""Tools for agents of the tests. What they do is counted in this process, where the tests' workers run."""

import asyncio
from dataclasses import dataclass, field

from holdfast.errors import ToolProblem
from holdfast.tools import ToolContext, tool


@dataclass
class Workshop:
    """What happened in it."""

    refunds: list[tuple[str, int, str]] = field(default_factory=list)
    """Order, amount and idempotency key of each."""
    looked_up: list[str] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """A call of `hang` is under way."""
    broken_off: int = 0
    """Calls of `hang` that were cancelled."""
    meeting: asyncio.Barrier = field(default_factory=lambda: asyncio.Barrier(2))
    page: str = "An ordinary page."

    def reset(self) -> None:
        """Forget everything."""
        vars(self).update(vars(Workshop()))


WORKSHOP = Workshop()

TOOLS = 'modules = ["tests.workflows.workshop"]\n'
"""`config/tools.toml` of an installation with these tools."""


@tool(side_effects=False, idempotent=True)
def lookup_order(order: str) -> str:
    """Look an order up.

    Args:
        order: Its number.
    """
    WORKSHOP.looked_up.append(order)
    return f"Order {order} is on its way."


@tool
def refund(order: str, amount: int, context: ToolContext) -> str:
    """Pay an order back.

    Args:
        order: Its number.
        amount: How much, in whole dollars.
    """
    WORKSHOP.refunds.append((order, amount, context.idempotency_key))
    return f"Refunded {amount} for {order}."


@tool(side_effects=False, idempotent=True, timeout="1m")
async def meet(name: str) -> str:
    """Wait for the other one: returns only when two calls are under way at once.

    Args:
        name: Who comes.
    """
    await WORKSHOP.meeting.wait()
    return f"{name} met the other."


@tool(side_effects=False, idempotent=True, origin="web")
def read_page(address: str) -> str:
    """Read a page that strangers write.

    Args:
        address: Where it is.
    """
    return f"{address}: {WORKSHOP.page}"


@tool(side_effects=False, idempotent=True, timeout="1h")
async def hang() -> str:
    """Take for ever."""
    WORKSHOP.begun.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        WORKSHOP.broken_off += 1
        raise
    return "never"


@tool(side_effects=False, idempotent=True)
def refuse() -> str:
    """Say no."""
    raise ToolProblem("The warehouse is closed.")
