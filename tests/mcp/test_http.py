"""A server over HTTP that misbehaves: each call ends bounded, with what is known about it."""

import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from holdfast.errors import OutcomeUnknown, ToolProblem, Unavailable
from holdfast.mcp import McpServerSettings
from tests.mcp.badweb import BadWeb, bad_web
from tests.mcp.open_servers import Open, open_servers

SHORT = timedelta(seconds=2)


@pytest.fixture
async def web() -> AsyncIterator[BadWeb]:
    async with bad_web() as served:
        yield served


@pytest.fixture
async def opened(web: BadWeb) -> AsyncIterator[Open]:
    settings = McpServerSettings(url=web.url, headers={"Authorization": "BAD_AUTHORIZATION"}, tools=("*",))
    opened = open_servers({"h": settings}, {"BAD_AUTHORIZATION": "Bearer secret-1"})
    await opened.pin()
    yield opened
    await opened.servers.aclose()


async def test_headers_are_taken_from_the_environment(web: BadWeb, opened: Open) -> None:
    assert (await opened.call("act")).text == "done"
    assert set(web.authorization) == {"Bearer secret-1"}


@pytest.mark.parametrize("answer", ["huge", "gzip", "junk", "broken", "drop", "event", "again", "500", "503"])
async def test_an_answer_that_cannot_be_read_leaves_the_call_unknown_and_made_once(
    web: BadWeb, opened: Open, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    web.answer = answer
    with pytest.raises(OutcomeUnknown) as unknown:
        await opened.call("act", timeout=SHORT)
    assert web.calls == 1
    web.answer = "ok"
    assert (await opened.call("act")).text == "done"
    for secret in ("hunter2", "secret-1", "session-1"):
        assert secret not in caplog.text
        assert secret not in str(unknown.value)


async def test_a_stream_of_events_without_end_is_cut_off(web: BadWeb, opened: Open) -> None:
    web.answer = "events"
    with pytest.raises(OutcomeUnknown, match="it sent more than 64 MB that nobody had asked for"):
        await opened.call("act", timeout=timedelta(minutes=5))
    web.answer = "ok"
    assert (await opened.call("act")).text == "done"


@pytest.mark.parametrize("status", ["401", "403"])
async def test_a_server_that_refuses_our_credentials_is_told_of(web: BadWeb, opened: Open, status: str) -> None:
    web.answer = status
    with pytest.raises(ToolProblem, match="refuses our credentials"):
        await opened.call("act")


@pytest.mark.parametrize("answer", ["redirect", "html"])
async def test_nothing_is_sent_to_where_an_answer_redirects(web: BadWeb, opened: Open, answer: str) -> None:
    web.answer = answer
    result = await opened.call("act")
    assert not result.ok
    assert web.calls == 1


@pytest.mark.parametrize("status", [404, 400])
async def test_a_session_that_the_server_forgot_is_opened_again(web: BadWeb, opened: Open, status: int) -> None:
    web.gone = status
    assert (await opened.call("act")).ok
    web.session = "session-2"
    assert (await opened.call("act")).text == "done"
    assert (web.calls, web.opened) == (2, 2)


@pytest.mark.parametrize("status", [404, 400])
async def test_a_server_that_forgets_every_session_is_not_asked_for_ever(
    web: BadWeb, opened: Open, status: int
) -> None:
    web.answer, web.gone = "forgets", status
    with pytest.raises(ToolProblem, match="was not called: the server forgot 3 sessions one after another"):
        await opened.call("act", timeout=timedelta(minutes=5))
    assert (web.calls, web.unknown) == (0, 3)


async def test_a_call_that_a_server_finds_bad_is_made_once_and_keeps_its_session(web: BadWeb, opened: Open) -> None:
    web.answer = "400"
    assert not (await opened.call("act")).ok
    web.answer = "ok"
    assert (await opened.call("act")).text == "done"
    assert (web.calls, web.opened) == (2, 1)


async def test_a_stream_that_breaks_off_for_ever_is_not_opened_for_ever(web: BadWeb, opened: Open) -> None:
    web.answer = "again"
    with pytest.raises(OutcomeUnknown):
        await opened.call("act", timeout=timedelta(seconds=20))
    assert web.streams < 80


async def test_a_server_that_is_not_there_is_unavailable(free_port: int) -> None:
    opened = open_servers({"h": McpServerSettings(url=f"http://127.0.0.1:{free_port}/mcp", tools=("*",))})
    with pytest.raises(Unavailable, match="MCP server 'h' cannot be used: no connection can be made to it"):
        await opened.pin()
    await opened.servers.aclose()
