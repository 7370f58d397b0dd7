"""A process that competes with another for the calls of one request; run by `test_tool_calls.py`.

It says `ready`, waits for a line, claims fifty calls at once, and names each that it was given to make.
"""

import asyncio
import sys

from holdfast.contracts import ToolReturned
from holdfast.errors import OutcomeUnknown
from holdfast.ledger import Begun, Ledger, ToolCallKey


async def make(ledger: Ledger, key: ToolCallKey) -> None:
    """Claim one call, and end it if it was given."""
    try:
        begun = await ledger.tool_calls.begin(
            key,
            tool="refund",
            agent="desk",
            idempotency_key="k" * 32,
            arguments_sha256="a" * 64,
            idempotent=False,
        )
    except OutcomeUnknown:
        return
    if isinstance(begun, Begun):
        await ledger.tool_calls.end(key, ToolReturned(key=key.key, id="c", name="refund", ok=True), f"made {key.key}")
        print(key.key, flush=True)


async def main() -> None:
    """Race."""
    ledger = await Ledger.open(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    keys = [ToolCallKey("acme", "req_12345678", f"1.{position}") for position in range(50)]
    await asyncio.gather(*(make(ledger, key) for key in keys))
    await ledger.aclose()


asyncio.run(main())
