"""The look at open inboxes: it goes on whatever it meets, and tells of each kind of fault once."""

import asyncio
import logging
from datetime import timedelta

import pytest

from gateway.identity import Caller
from gateway.inbox_watch import InboxWatch, Seen
from holdfast.errors import Unavailable
from tests.pages.staged import Stage

BOUND_SECONDS = 30


async def until(seen: Seen, *, answers: bool) -> None:
    """Wait until the inbox was looked at, with or without an answer."""
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            changed = seen.changed
            if seen.version is not None and bool(seen.version) is answers:
                return
            await changed.wait()


@pytest.mark.parametrize("fault", [ValueError("a memo of another version: hunter2"), Unavailable("Nobody answers.")])
async def test_an_inbox_is_looked_at_again_after_any_fault(
    stage: Stage, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    watch = InboxWatch(stage.engine, timedelta(milliseconds=5))
    async with watch.watching(Caller("local", "ann")) as seen:
        for _ in range(3):
            await until(seen, answers=True)
            stage.engine.broken = fault
            await until(seen, answers=False)
            stage.engine.broken = None
        await until(seen, answers=True)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == isinstance(fault, ValueError)
    assert not any("hunter2" in sentence for sentence in told)
    assert all("ValueError" in sentence for sentence in told)
