"""The shop's own tools: one that looks, and one that pays money back and so is called once or not at all."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from holdfast.errors import ToolProblem
from holdfast.tools import ToolContext, tool

DATABASE = Path("var/samples/shop.db")
"""Made of `samples/shop.sql` by `holdfast dev`."""

OrderId = Annotated[str, Field(pattern=r"^[A-Z]-\d{4}$")]


class Order(BaseModel):
    """An order as support sees it."""

    order: str
    product: str
    quantity: int
    paid_usd: str
    ordered: str
    returned: str | None
    reason: str | None
    refunded_usd: str | None


@tool(side_effects=False)
def lookup_order(order: OrderId) -> Order:
    """Look an order up: what was bought and paid, whether it came back and why, and what was refunded.

    Args:
        order: The order's number, like A-1001.
    """
    with closing(_open("ro")) as shop:
        found = shop.execute(
            "SELECT p.name, o.quantity, p.price_usd, o.ordered, r.returned, r.reason, f.amount_usd FROM orders o"
            " JOIN products p ON p.id = o.product_id LEFT JOIN returns r ON r.order_id = o.id"
            " LEFT JOIN refunds f ON f.order_id = o.id WHERE o.id = ?",
            (order,),
        ).fetchone()
    if found is None:
        raise ToolProblem(f"There is no order {order!r}.")
    product, quantity, price, ordered, returned, reason, refunded = found
    return Order(
        order=order,
        product=product,
        quantity=quantity,
        paid_usd=str(Decimal(price) * quantity),
        ordered=ordered,
        returned=returned,
        reason=reason,
        refunded_usd=refunded,
    )


@tool(idempotent=True)
def refund(order: OrderId, amount: Annotated[float, Field(gt=0)], reason: str, context: ToolContext) -> str:
    """Pay money back for an order.

    Args:
        order: The order's number, like A-1001.
        amount: US dollars, at most what was paid.
        reason: Why, in a few words.
    """
    paid, dollars = Decimal(lookup_order(order).paid_usd), Decimal(str(amount))
    with closing(_open("rw")) as shop, shop:
        shop.execute("BEGIN IMMEDIATE")
        made = dict(shop.execute("SELECT idempotency_key, amount_usd FROM refunds WHERE order_id = ?", (order,)))
        # The same call again, after a crash, finds its own row and changes nothing.
        if context.idempotency_key not in made:
            if sum(map(Decimal, made.values())) + dollars > paid:
                raise ToolProblem(f"Order {order!r} was paid with {paid} USD; no more than that can be refunded.")
            today = datetime.now(UTC).date().isoformat()
            shop.execute(
                "INSERT INTO refunds (idempotency_key, order_id, amount_usd, reason, made) VALUES (?, ?, ?, ?, ?)",
                (context.idempotency_key, order, str(dollars), reason, today),
            )
    return f"Refunded {dollars} USD for order {order}."


def _open(mode: str) -> sqlite3.Connection:
    if not DATABASE.exists():
        raise ToolProblem("The shop's database is not there; `holdfast dev` makes it.")
    return sqlite3.connect(f"{DATABASE.resolve().as_uri()}?mode={mode}", uri=True, timeout=5)
