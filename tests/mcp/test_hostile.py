"""Whatever a server does, it is bounded, explained in our words, and the next call goes on."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.contracts.conversation import MAX_TOOLS
from holdfast.errors import OutcomeUnknown, ToolProblem, Unavailable
from holdfast.mcp import McpServerSettings
from holdfast.mcp.results import MAX_RESULT
from tests.mcp.open_servers import HOSTILE, Open, open_servers

SHORT = timedelta(seconds=1)
Hostile = Callable[..., Open]


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has waited for yet is dead.
    return " Z " not in Path(f"/proc/{pid}/stat").read_text() if Path(f"/proc/{pid}").exists() else False


async def gone(pid: int) -> None:
    async with asyncio.timeout(60):
        while alive(pid):  # noqa: ASYNC110 - a process of another parent has no event
            await asyncio.sleep(0.01)


def commands() -> list[str]:
    """The command lines of all processes."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((process / "cmdline").read_bytes().decode(errors="replace"))
    return found


async def test_a_tool_of_a_server_is_found_and_called(hostile: Hostile) -> None:
    opened = hostile()
    assert "h__echo" in await opened.pin()
    result = await opened.call("echo", {"a": [1, "x"]})
    assert (result.text, result.ok) == ('{"a": [1, "x"]}', True)


async def test_the_key_of_a_call_is_sent_along_and_nothing_of_our_traces(hostile: Hostile) -> None:
    meta = json.loads((await hostile().call("meta")).text)
    assert meta["holdfast.idempotency-key"] == "key-1"
    # Made up for the call, and says that nothing is recorded.
    assert meta["traceparent"].endswith("-00")


async def test_a_failure_the_server_tells_of_is_a_result_in_its_words(hostile: Hostile) -> None:
    opened = hostile()
    assert await opened.call("fail") == await opened.call("fail")
    failed, refused = await opened.call("fail"), await opened.call("error")
    assert (failed.text, failed.ok) == ("the disk is full", False)
    assert (refused.text, refused.ok) == ("that is no order", False)


async def test_a_call_that_hangs_ends_at_its_time_and_the_server_is_told_to_stop(
    hostile: Hostile, tmp_path: Path
) -> None:
    heard = tmp_path / "heard"
    opened = hostile(f"heard={heard}")
    with pytest.raises(OutcomeUnknown, match=r"'hang' of the MCP server 'h' did not answer within 1 s.*unknown"):
        await opened.call("hang", timeout=SHORT)
    assert (await opened.call("echo")).ok
    messages = [json.loads(line) for line in lines(heard)]
    (hung,) = [message for message in messages if message.get("params", {}).get("name") == "hang"]
    cancelled = [message for message in messages if message.get("method") == "notifications/cancelled"]
    assert [message["params"]["requestId"] for message in cancelled] == [hung["id"]]


async def test_cancelling_a_call_cancels_it_at_the_server(hostile: Hostile, tmp_path: Path) -> None:
    heard, calls = tmp_path / "heard", tmp_path / "calls"
    opened = hostile(f"heard={heard}", f"calls={calls}")
    await opened.pin()
    call = asyncio.create_task(opened.call("hang"))
    async with asyncio.timeout(60):
        while not lines(calls):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await opened.call("echo")).ok
    assert sum("notifications/cancelled" in line for line in lines(heard)) == 1


async def test_a_server_that_answers_neither_call_nor_ping_is_replaced(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.mcp.connection.PING_SECONDS", 0.2)
    starts = tmp_path / "starts"
    opened = hostile(f"starts={starts}")
    await opened.pin()
    (first,) = lines(starts)
    with pytest.raises(OutcomeUnknown):
        await opened.call("deaf", timeout=SHORT)
    await gone(int(first))
    assert (await opened.call("echo")).ok
    assert len(lines(starts)) == 2


async def test_a_server_that_dies_in_a_call_leaves_it_unknown_and_is_not_called_again(
    hostile: Hostile, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    opened = hostile(f"calls={calls}")
    with pytest.raises(OutcomeUnknown, match="ended with exit code 3"):
        await opened.call("die")
    assert (await opened.call("echo")).ok
    assert lines(calls) == ["die", "echo"]


async def test_calls_beside_one_that_kills_the_server_are_unknown_too(hostile: Hostile) -> None:
    opened = hostile()
    await opened.pin()
    ended = await asyncio.gather(opened.call("hang"), opened.call("hang"), opened.call("die"), return_exceptions=True)
    assert [type(one) for one in ended] == [OutcomeUnknown] * 3


async def test_lines_that_are_no_messages_are_passed_over_and_told_of(hostile: Hostile) -> None:
    opened = hostile("noise")
    assert (await opened.call("echo")).ok
    with pytest.raises(OutcomeUnknown, match="lines it sent were no messages"):
        await opened.call("junk", timeout=SHORT)
    assert (await opened.call("echo")).ok


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        ("flood", "it sent more than 64 MB that nobody had asked for"),
        ("chatter", "it sent more than 64 MB that nobody had asked for"),
        ("pings", "it sent more than 64 MB that nobody had asked for"),
        ("line", "it sent a message of more than 4 MB"),
    ],
)
async def test_a_server_that_floods_is_cut_off(hostile: Hostile, tool: str, reason: str) -> None:
    opened = hostile()
    with pytest.raises(OutcomeUnknown, match=reason):
        await opened.call(tool)
    assert (await opened.call("echo")).ok


async def test_a_long_result_is_cut_and_the_cut_is_told(hostile: Hostile) -> None:
    text = (await hostile().call("huge")).text
    assert text.endswith(f"[{2_000_000 - MAX_RESULT} more characters were cut off]")


async def test_content_that_is_no_text_is_described(hostile: Hostile) -> None:
    opened = hostile()
    assert (await opened.call("blobs")).text.splitlines() == [
        "[image of type image/png, about 300 bytes, which cannot be shown as text]",
        "[link to a resource: report file:///report]",
        "inside",
    ]
    assert (await opened.call("structured")).text == '{"total": 5}'


async def test_an_answer_that_is_no_result_is_a_problem_of_the_tool(hostile: Hostile) -> None:
    with pytest.raises(ToolProblem, match="no result of a tool"):
        await hostile().call("noresult")


async def test_an_error_that_pretends_the_connection_closed_counts_as_unknown(hostile: Hostile) -> None:
    with pytest.raises(OutcomeUnknown):
        await hostile().call("closed_code")


async def test_a_server_may_not_have_a_model_answer_for_it(hostile: Hostile, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    opened = hostile(f"heard={heard}")
    assert (await opened.call("ask")).ok
    assert (await opened.call("echo")).ok
    (answer,) = [json.loads(line) for line in lines(heard) if json.loads(line).get("id") == "q1"]
    assert "error" in answer


async def test_a_tool_that_has_changed_is_not_called(hostile: Hostile, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    opened = hostile(f"calls={calls}")
    assert (await opened.call("echo")).ok
    await opened.call("change")
    with pytest.raises(ToolProblem, match="it has changed since this request began"):
        await opened.call("echo")
    await opened.pin()
    assert (await opened.call("echo")).ok
    assert lines(calls) == ["echo", "change", "echo"]


async def test_a_tool_that_has_gone_is_not_called(hostile: Hostile, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    opened = hostile(f"calls={calls}")
    await opened.call("vanish")
    with pytest.raises(ToolProblem, match="no longer among the tools"):
        await opened.call("echo")
    assert lines(calls) == ["vanish"]


async def test_only_what_the_allow_list_allows_is_offered_or_called(hostile: Hostile, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    opened = hostile(f"calls={calls}", tools=("echo", "lo*"))
    assert await opened.pin() == ["h__echo", "h__look"]
    with pytest.raises(Unavailable, match=r"no tool 'die' among the 2 that `tools` of \[mcp.h\] allows, of 24"):
        await opened.servers.entries("h", "die")
    opened.digests["h", "die"] = "0" * 16
    with pytest.raises(ToolProblem, match="no longer among the tools"):
        await opened.call("die")
    assert lines(calls) == []


async def test_of_500_tools_no_more_are_offered_than_a_model_can_take(hostile: Hostile) -> None:
    opened = hostile("tools=500")
    with pytest.raises(Unavailable, match=f"524 tools that match '\\*', and a model can be offered {MAX_TOOLS}"):
        await opened.servers.entries("h", "*")
    assert len(await opened.servers.entries("h", "many_1*")) == 111


async def test_a_list_is_asked_for_once_while_it_is_believed(hostile: Hostile, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    opened = hostile(f"heard={heard}")
    await asyncio.gather(*(opened.pin() for _ in range(5)))
    await opened.call("echo")
    assert sum('"tools/list"' in line for line in lines(heard)) == 1


async def test_a_list_that_is_too_old_is_asked_for_again(hostile: Hostile, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    opened = hostile(f"heard={heard}", discover_every="1ms")
    await opened.pin()
    await asyncio.sleep(0.002)
    await opened.pin()
    assert sum('"tools/list"' in line for line in lines(heard)) == 2


async def test_a_server_gets_no_variable_of_ours_but_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ours")
    settings = McpServerSettings(command=sys.executable, args=(str(HOSTILE),), env=("FILES_TOKEN",), tools=("env",))
    opened = open_servers({"h": settings}, {"FILES_TOKEN": "t-1", "OTHER": "x"})
    try:
        seen = json.loads((await opened.call("env")).text)
    finally:
        await opened.servers.aclose()
    assert seen == {"PATH": os.environ["PATH"], "LC_CTYPE": "C.UTF-8", "FILES_TOKEN": "t-1"}


async def test_what_a_server_prints_is_not_logged(hostile: Hostile, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    opened = hostile("noise")
    await opened.call("error")
    with pytest.raises(OutcomeUnknown):
        await opened.call("die")
    await opened.call("echo")  # the one before has been put away
    assert "ended with exit code 3" in caplog.text
    for said in ("hunter2", "no order", "Server is starting"):
        assert said not in caplog.text


async def test_standard_error_goes_to_the_file_that_asks_for_it(hostile: Hostile, tmp_path: Path) -> None:
    file = tmp_path / "logs" / "server.log"
    opened = hostile(stderr=file)
    await opened.pin()
    async with asyncio.timeout(60):
        while not lines(file):  # noqa: ASYNC110 - written by a thread
            await asyncio.sleep(0.01)
    assert lines(file) == ["the secret is hunter2"]


async def test_closing_ends_a_stubborn_server_and_its_children(hostile: Hostile, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    opened = hostile("stubborn", f"starts={starts}")
    child = int((await opened.call("child")).text)
    (server,) = map(int, lines(starts))
    assert alive(child)
    assert alive(server)
    await opened.servers.aclose()
    await gone(server)
    await gone(child)


async def test_a_killed_worker_takes_its_servers_with_it(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    script = (
        "import asyncio, sys, uvloop\n"
        "from holdfast.mcp import McpServers, McpServerSettings\n"
        "async def main():\n"
        f"    args = ({str(HOSTILE)!r}, 'stubborn', 'starts={starts}')\n"
        "    servers = McpServers({'h': McpServerSettings(command=sys.executable, args=args, tools=('*',))}, {})\n"
        "    (entry,) = await servers.entries('h', 'child')\n"
        "    from datetime import timedelta\n"
        "    result = await servers.call('h', 'child', {}, digest=entry.digest, timeout=timedelta(seconds=30),\n"
        "                                idempotency_key='k')\n"
        "    print(result.text, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "uvloop.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    child = int(await worker.stdout.readline())
    (server,) = map(int, lines(starts))
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    await gone(server)
    await gone(child)


async def test_a_server_that_ends_at_once_is_left_alone_for_a_while(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.mcp.connection.FIRST_BACKOFF_SECONDS", 3_600.0)
    monkeypatch.setattr("holdfast.mcp.connection.LONGEST_BACKOFF_SECONDS", 3_600.0)
    starts = tmp_path / "starts"
    opened = hostile("die", f"starts={starts}")
    for _ in range(3):
        with pytest.raises(Unavailable, match="MCP server 'h' cannot be used: its program ended with exit code 4"):
            await opened.pin()
    assert len(lines(starts)) == 1


async def test_a_server_that_never_finishes_its_start_is_given_up(hostile: Hostile, tmp_path: Path) -> None:
    word = f"starts={tmp_path / 'starts'}"
    opened = hostile("mute", word, connect_timeout="500ms")
    with pytest.raises(Unavailable, match=r"did not finish its start within 0.5 s"):
        await opened.pin()
    # It may be too early for it to have told its process id.
    async with asyncio.timeout(60):
        while any(word in command for command in commands()):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_a_start_goes_on_when_nobody_waits_for_it_any_more(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = hostile()
    with monkeypatch.context() as patient:
        patient.setattr("holdfast.mcp.servers.PATIENCE_SECONDS", 0.0)
        with pytest.raises(Unavailable, match="still starting"):
            await opened.pin()
    assert "h__echo" in await opened.pin()


async def test_a_program_that_is_not_there_is_named() -> None:
    opened = open_servers({"h": McpServerSettings(command="no-such-program", tools=("*",))})
    with pytest.raises(Unavailable, match=r"program 'no-such-program' is found neither on PATH nor in .*; install it"):
        await opened.pin()
    await opened.servers.aclose()


async def test_warming_up_survives_a_server_that_is_broken(hostile: Hostile, caplog: pytest.LogCaptureFixture) -> None:
    await hostile("die").servers.warm_up()
    assert "begin without its tools" in caplog.text


async def test_a_server_that_nobody_configured_is_named(hostile: Hostile) -> None:
    with pytest.raises(Unavailable, match=r"no MCP server 'mail'.*Add \[mcp.mail\]"):
        await hostile().servers.entries("mail", "*")


async def test_no_more_calls_are_under_way_than_allowed(hostile: Hostile, tmp_path: Path) -> None:
    opened = hostile(concurrency=1)
    await opened.pin()
    first = asyncio.create_task(opened.call("hang"))
    with pytest.raises(Unavailable, match="had 1 calls under way"):
        await asyncio.gather(opened.call("hang", timeout=SHORT), opened.call("hang", timeout=SHORT))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
