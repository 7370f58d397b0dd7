"""Sessions of browsers: known to every gateway, over for every gateway, and forgotten when their time is over."""

import asyncio
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from holdfast.ledger import Ledger, SessionOwner
from holdfast.ledger.browser_sessions import MOST_AT_ONCE
from holdfast.ledger.schema import browser_sessions

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=12)
ANN = SessionOwner("acme", "ann")


async def rows(ledger: Ledger) -> int:
    counting = select(func.count()).select_from(browser_sessions)
    return await ledger.database.read(lambda reading: reading.execute(counting).scalar_one())


async def test_a_session_is_known_from_its_beginning_to_its_expiry(ledger: Ledger) -> None:
    assert await ledger.browser_sessions.owner("a" * 64, NOW) is None
    await ledger.browser_sessions.open("a" * 64, ANN, NOW, LATER)
    assert await ledger.browser_sessions.owner("a" * 64, LATER - timedelta(seconds=1)) == ANN
    assert await ledger.browser_sessions.owner("a" * 64, LATER) is None
    assert await ledger.browser_sessions.owner("b" * 64, NOW) is None


async def test_a_session_ended_by_one_gateway_is_over_for_the_others(ledger: Ledger, url: str) -> None:
    await ledger.browser_sessions.open("a" * 64, ANN, NOW, LATER)
    await ledger.browser_sessions.open("b" * 64, ANN, NOW, LATER)
    other = await Ledger.open(url)
    assert await other.browser_sessions.owner("a" * 64, NOW) == ANN
    ended = await asyncio.gather(ledger.browser_sessions.end("a" * 64, NOW), other.browser_sessions.end("a" * 64, NOW))
    assert sorted(ended) == [False, True]
    for gateway in (ledger, other):
        assert await gateway.browser_sessions.owner("a" * 64, NOW) is None
        assert await gateway.browser_sessions.still_open(["a" * 64, "b" * 64, "c" * 64], NOW) == {"b" * 64}
    await other.aclose()


async def test_expired_sessions_are_forgotten_when_somebody_signs_in(ledger: Ledger) -> None:
    await ledger.browser_sessions.open("a" * 64, ANN, NOW, LATER)
    await ledger.browser_sessions.open("b" * 64, ANN, NOW, LATER + timedelta(hours=1))
    await ledger.browser_sessions.end("b" * 64, NOW)
    await ledger.browser_sessions.open("c" * 64, ANN, LATER, LATER + timedelta(hours=12))
    assert await rows(ledger) == 2


async def test_more_sessions_are_asked_about_than_one_statement_takes(ledger: Ledger) -> None:
    await ledger.browser_sessions.open("a" * 64, ANN, NOW, LATER)
    await ledger.browser_sessions.open("f" * 64, ANN, NOW, LATER)
    asked = ["a" * 64, "f" * 64, *(f"{number:064}" for number in range(MOST_AT_ONCE))]
    assert await ledger.browser_sessions.still_open(asked, NOW) == {"a" * 64, "f" * 64}
    assert await ledger.browser_sessions.still_open([], NOW) == frozenset()
