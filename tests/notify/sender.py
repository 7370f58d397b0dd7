"""A process that makes one attempt at a notification, to be killed in the middle of it: `sender LEDGER URL ID`."""

import asyncio
import sys
from datetime import timedelta

from holdfast.ledger import Ledger
from holdfast.notify import Links, Notifications, Notifier
from tests.notify.targets import People, hook


async def main(ledger_url: str, url: str, delivery: str) -> None:
    """Make the attempt."""
    ledger = await Ledger.open(ledger_url)
    notifier = Notifier(ledger, Notifications({"ops": hook(url)}), People(), Links("http://127.0.0.1:8080"))
    await notifier.attempt("acme", delivery, timedelta(0))
    await ledger.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
