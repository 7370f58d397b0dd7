"""A process that competes with others for one ledger; run by `test_processes.py`.

It says `ready`, waits for a line, and then, by its first argument:
`open` opens the ledger and asks for many calls of one request; `write` submits requests until it is killed; `reserve`
asks for one call of each of many requests against the budgets of one tenant; `spend` also settles some; `churn` does so
until it is killed.
"""

import asyncio
import json
import sys

from holdfast.contracts import FinishReason, Limits, SpendScopes, Usage
from holdfast.errors import BudgetExceeded, LimitExceeded, Outcome
from holdfast.ledger import AttemptKey, Ledger, Opened

LIMITS = Limits(tokens=2_000, attempts=50)
HOLD = Usage(input_tokens=40, output_tokens=60)


async def open_calls(ledger: Ledger, turns: range) -> None:
    """Ask for one call per turn, all at once, each beside a write of another kind; report what was admitted."""

    async def ask(turn: int) -> int | None:
        key = AttemptKey("acme", "req_1", turn)
        await ledger.contents.put("acme", f"prompt {turn}")
        try:
            opened = await ledger.attempts.open(key, deployment="d", model="m", hold=HOLD, limits=LIMITS)
        except LimitExceeded:
            return None
        assert isinstance(opened, Opened)
        if turn % 2:
            await ledger.attempts.settle(
                opened.attempt_id, Outcome.OK, usage=HOLD, output="reply", finish_reason=FinishReason.STOP, model="m"
            )
        return opened.ordinal

    admitted = await asyncio.gather(*(ask(turn) for turn in turns))
    print(json.dumps([ordinal for ordinal in admitted if ordinal is not None]), flush=True)


SCOPES = SpendScopes(tenant="acme", user="ada", session="chat-7")


async def spend(ledger: Ledger, number: int, *, settles: bool = True) -> int | None:
    """One call against the budgets: if it settles, every fourth below its hold, and every fourth is released.

    Returns:
        The tokens that it counts, `None` when it was refused.
    """
    key = AttemptKey("acme", f"req_{number}", 1)
    try:
        opened = await ledger.attempts.open(
            key, deployment="d", model="m", hold=HOLD, limits=LIMITS, scopes=SCOPES, agent="docs"
        )
    except BudgetExceeded:
        return None
    assert isinstance(opened, Opened)
    if not settles:
        return HOLD.total_tokens
    if number % 4 == 0:
        await ledger.attempts.settle(opened.attempt_id, Outcome.OVERLOADED)
        return 0
    if number % 4 == 1:
        actual = Usage(input_tokens=7)
        await ledger.attempts.settle(
            opened.attempt_id, Outcome.OK, usage=actual, output="reply", finish_reason=FinishReason.STOP, model="m"
        )
        return actual.total_tokens
    return HOLD.total_tokens


async def spend_all(ledger: Ledger, numbers: range, *, settles: bool) -> None:
    """Many calls at once; report what they count."""
    counted = await asyncio.gather(*(spend(ledger, number, settles=settles) for number in numbers))
    print(json.dumps([tokens for tokens in counted if tokens is not None]), flush=True)


async def churn(ledger: Ledger, first: int) -> None:
    """Calls in waves without end, a line for each wave."""
    while True:
        await asyncio.gather(*(spend(ledger, number) for number in range(first, first + 20)))
        first += 20
        print("wave", flush=True)


async def write_for_ever(ledger: Ledger) -> None:
    """Submit requests, and name each once it is committed."""
    number = 0
    while True:
        number += 1
        key, text = f"key {number}", f"question {number} " * 50
        claim = await ledger.submissions.claim(
            "acme", key, body_sha256="a" * 64, request_id=f"req_{number}", texts=[text]
        )
        print(claim.request_id, flush=True)


async def main(task: str, url: str, first_turn: int) -> None:
    """Compete."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ledger = await Ledger.open(url)
    if task == "open":
        await open_calls(ledger, range(first_turn, first_turn + 60))
        await ledger.aclose()
    elif task in ("reserve", "spend"):
        await spend_all(ledger, range(first_turn, first_turn + 250), settles=task == "spend")
        await ledger.aclose()
    elif task == "churn":
        await churn(ledger, first_turn)
    else:
        await write_for_ever(ledger)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
