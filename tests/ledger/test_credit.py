"""Prepaid credit: granted, held, captured, released, and every movement on record."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from holdfast.contracts import FinishReason, Limits, SpendScopes, Usage
from holdfast.errors import BudgetExceeded, IdempotencyConflict, InvalidInput, Outcome
from holdfast.ledger import AttemptKey, Ledger, Opened

SCOPES = SpendScopes(tenant="acme", user="ada")
HOLD = Usage(input_tokens=400, cost_usd=Decimal("0.40"))
GOOD: dict[str, Any] = {"output": "reply", "finish_reason": FinishReason.STOP, "model": "m"}


async def opened(ledger: Ledger, request: str, *, hold: Usage = HOLD) -> Opened:
    result = await ledger.attempts.open(
        AttemptKey("acme", request, 1), deployment="d", model="m", hold=hold, limits=Limits(), scopes=SCOPES
    )
    assert isinstance(result, Opened)
    return result


async def available(ledger: Ledger) -> Decimal | None:
    (account,) = await ledger.budgets.list("acme")
    entries = await ledger.budgets.entries("acme", limit=1_000)
    # An overrun can take the account below zero, of which nothing is left.
    assert max(Decimal(0), sum((entry.change_usd for entry in entries), Decimal(0))) == account.left_usd
    return account.left_usd


async def movements(ledger: Ledger) -> set[tuple[str, Decimal, Decimal]]:
    return {(entry.kind, entry.cost_usd, entry.change_usd) for entry in await ledger.budgets.entries("acme")}


async def test_a_tenant_with_credit_spends_what_it_has_and_no_more(ledger: Ledger) -> None:
    await ledger.budgets.grant("acme", Decimal(1), entry_id="invoice-1", by="grace")
    await opened(ledger, "req_1")
    await opened(ledger, "req_2")
    assert await available(ledger) == Decimal("0.2")
    with pytest.raises(BudgetExceeded, match=r"credit.*0\.2 USD are left.*budget grant --tenant acme") as denied:
        await opened(ledger, "req_3")
    assert (denied.value.action, denied.value.scope, denied.value.resets_at) == ("block", "credit acme", None)
    await ledger.budgets.grant("acme", Decimal("0.2"), entry_id="invoice-2", by="grace")
    await opened(ledger, "req_3")
    assert await available(ledger) == 0


async def test_a_hold_is_captured_at_what_was_used_and_the_rest_released(ledger: Ledger) -> None:
    await ledger.budgets.grant("acme", Decimal(1), entry_id="p", by="grace")
    call = await opened(ledger, "req_1")
    used = Usage(input_tokens=100, cost_usd=Decimal("0.15"))
    for _ in range(2):
        await ledger.attempts.settle(call.attempt_id, Outcome.OK, usage=used, **GOOD)
    assert await available(ledger) == Decimal("0.85")
    assert await movements(ledger) == {
        ("grant", Decimal(1), Decimal(1)),
        ("hold", Decimal("0.4"), Decimal("-0.4")),
        ("capture", Decimal("0.15"), Decimal(0)),
        ("release", Decimal("0.25"), Decimal("0.25")),
    }


async def test_a_call_that_was_not_billed_releases_all(ledger: Ledger) -> None:
    await ledger.budgets.grant("acme", Decimal(1), entry_id="p", by="grace")
    call = await opened(ledger, "req_1")
    await ledger.attempts.settle(call.attempt_id, Outcome.RATE_LIMITED)
    assert await available(ledger) == 1
    assert ("release", Decimal("0.4"), Decimal("0.4")) in await movements(ledger)


async def test_a_call_of_unknown_outcome_is_captured_whole(ledger: Ledger) -> None:
    await ledger.budgets.grant("acme", Decimal(1), entry_id="p", by="grace")
    call = await opened(ledger, "req_1")
    await ledger.attempts.settle(call.attempt_id, Outcome.UNKNOWN)
    assert await available(ledger) == Decimal("0.6")
    assert ("capture", Decimal("0.4"), Decimal(0)) in await movements(ledger)


async def test_an_overrun_is_captured_even_below_zero(ledger: Ledger) -> None:
    await ledger.budgets.grant("acme", Decimal("0.5"), entry_id="p", by="grace")
    call = await opened(ledger, "req_1")
    await ledger.attempts.settle(
        call.attempt_id, Outcome.OK, usage=Usage(input_tokens=9, cost_usd=Decimal("0.75")), **GOOD
    )
    assert await available(ledger) == 0
    assert ("capture", Decimal("0.75"), Decimal("-0.35")) in await movements(ledger)
    await ledger.budgets.grant("acme", Decimal(1), entry_id="q", by="grace")
    assert await available(ledger) == Decimal("0.75")


async def test_the_same_payment_counts_once_and_cannot_change(ledger: Ledger) -> None:
    await asyncio.gather(
        *(ledger.budgets.grant("acme", Decimal(2), entry_id="invoice-1", by="grace") for _ in range(5))
    )
    assert await available(ledger) == 2
    with pytest.raises(IdempotencyConflict, match="'invoice-1'"):
        await ledger.budgets.grant("acme", Decimal(3), entry_id="invoice-1", by="grace")
    await ledger.budgets.grant("globex", Decimal(3), entry_id="invoice-1", by="grace")


@pytest.mark.parametrize(("cost", "entry_id"), [("0", "p"), ("-1", "p"), ("NaN", "p"), ("1", ""), ("1e9", "p")])
async def test_a_grant_needs_a_sound_amount_and_an_id(ledger: Ledger, cost: str, entry_id: str) -> None:
    with pytest.raises(InvalidInput):
        await ledger.budgets.grant("acme", Decimal(cost), entry_id=entry_id, by="grace")


async def test_a_model_without_a_price_is_refused_on_credit(ledger: Ledger) -> None:
    await ledger.budgets.grant("acme", Decimal(1), entry_id="p", by="grace")
    with pytest.raises(BudgetExceeded, match="no known price"):
        await opened(ledger, "req_1", hold=HOLD.model_copy(update={"cost_usd": None}))


async def test_calls_without_scopes_and_other_tenants_leave_credit_alone(ledger: Ledger) -> None:
    await ledger.budgets.grant("acme", Decimal(1), entry_id="p", by="grace")
    for tenant, scopes in (("acme", None), ("globex", SpendScopes(tenant="globex", user="ada"))):
        await ledger.attempts.open(
            AttemptKey(tenant, f"req_{tenant}", 1),
            deployment="d",
            model="m",
            hold=HOLD,
            limits=Limits(),
            scopes=scopes,
        )
    assert await available(ledger) == 1
