"""An agent with tools of MCP servers, through the whole of Holdfast: engine, ledger, gateway, and a real server."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from holdfast.contracts import Answer, Progress
from holdfast.tools.calling import MOST_TRIES
from tests.house import House, open_house
from tests.mcp.open_servers import HOSTILE
from tests.workflows.recorded import readable

_PLAIN = 'deployments = ["sim"]\nprompt = "plain.md"\n'
_BOSS = '[[approvals]]\non = "files__write_file"\napprovers = ["boss"]\nwithin = "4h"\n'
AGENTS = {
    "librarian": _PLAIN + 'tools = ["files.read_*"]\n',
    "scribe": _PLAIN + 'tools = ["files.read_text_file", "files.write_file"]\n' + _BOSS,
    "careless": _PLAIN + 'tools = ["files.read_text_file", "files.write_file"]\n',
    "brave": _PLAIN + 'tools = ["hostile.*"]\n[limits]\ntool_calls = 8\n',
    "stubborn": _PLAIN + 'tools = ["frail.die"]\n',
    "lonely": _PLAIN + 'tools = ["broken.*", "files.read_text_file"]\n',
}
pytestmark = pytest.mark.timeout(570)  # the first test downloads a server, perhaps twice
ECHO = {"kind": "ok", "turns": [{"content": "{results}"}], "times": 1}
"""A reply that repeats what tools told the model last."""


def asks(name: str, **arguments: Any) -> dict[str, Any]:
    return {"kind": "tool_calls", "tool_calls": [{"name": name, "arguments": arguments}]}


@pytest.fixture(scope="module")
async def shared_house(
    temporal_client: Client, tmp_path_factory: pytest.TempPathFactory, npm_programs: Path
) -> AsyncIterator[House]:
    """A house with a real file server, a hostile server, and one that cannot be started."""
    directory = tmp_path_factory.mktemp("house")
    library = directory / "library"
    library.mkdir()
    (library / "note.txt").write_text("The key is under the mat, says ada@example.org.")
    tools = (
        f'[mcp.files]\ncommand = "{npm_programs}/mcp-server-filesystem"\nargs = ["{library}"]\n'
        'tools = ["read_*", "write_file"]\nread_only = ["read_*"]\n'
        f'[mcp.hostile]\ncommand = "{sys.executable}"\nargs = ["{HOSTILE}", "calls={directory}/calls"]\n'
        'tools = ["echo", "die", "fail", "change"]\nread_only = ["echo", "change"]\n'
        f'[mcp.frail]\ncommand = "{sys.executable}"\nargs = ["{HOSTILE}", "calls={directory}/frail"]\n'
        'tools = ["die"]\nread_only = ["die"]\n'
        f'[mcp.broken]\ncommand = "{sys.executable}"\nargs = ["{HOSTILE}", "die"]\ntools = ["*"]\n'
    )
    async with open_house(directory, temporal_client, agents=AGENTS, tools=tools) as opened:
        with pytest.MonkeyPatch.context() as patient:
            patient.setattr("holdfast.mcp.servers.WARM_UP_SECONDS", 60.0)
            await opened.services.servers.warm_up()
        yield opened


@pytest.fixture
def house(shared_house: House) -> House:
    shared_house.reset()
    return shared_house


@pytest.fixture
def library(house: House) -> Path:
    return house.settings.config_dir.parent / "library"


def script(house: House, *replies: dict[str, Any]) -> None:
    house.simulator.script(*replies)


async def progress(house: House, request_id: str) -> Progress:
    sheet: Progress = await house.client.get_workflow_handle(request_id).query("progress", result_type=Progress)
    return sheet


async def answer(house: House, request_id: str) -> Answer:
    async with asyncio.timeout(60):
        ended: Answer = await house.client.get_workflow_handle(request_id, result_type=Answer).result()
    return ended


async def test_an_agent_reads_a_file_through_a_server_that_was_not_written_here(house: House, library: Path) -> None:
    script(house, asks("files__read_text_file", path=str(library / "note.txt")), ECHO)
    reply = await house.ask("librarian", "Where is the key?")
    assert reply["status"] == "completed", reply
    assert "The key is under the mat" in reply["answer"]["text"]
    ended = await answer(house, reply["id"])
    assert (ended.tool_calls, ended.tainted) == (1, ("mcp",))
    history = readable(await house.history(reply["id"]))
    assert "under the mat" not in history
    assert "note.txt" not in history


async def test_a_write_waits_for_a_person_who_sees_its_arguments(house: House, library: Path) -> None:
    new = library / "new.txt"
    script(house, asks("files__write_file", path=str(new), content="signed"), ECHO)
    reply = await house.ask("scribe", "Write it.")
    assert reply["status"] == "waiting", reply
    assert not new.exists()
    taken = await house.decide(reply["id"], "approve", by="boss")
    assert taken.status_code == 200, taken.text
    final = await house.show(reply["id"])
    assert final["status"] == "completed", final
    assert new.read_text() == "signed"


async def test_what_a_server_returned_keeps_the_run_from_writing(house: House, library: Path) -> None:
    read = asks("files__read_text_file", path=str(library / "note.txt"))
    script(house, read, asks("files__write_file", path=str(library / "stolen.txt"), content="x"), ECHO)
    reply = await house.ask("careless", "Do what the note says.")
    assert reply["status"] == "completed", reply
    assert not (library / "stolen.txt").exists()
    assert [line.state for line in (await progress(house, reply["id"])).tools] == ["done", "refused"]


async def test_a_server_that_dies_in_a_call_is_told_of_and_the_call_is_not_repeated(house: House) -> None:
    calls = house.settings.config_dir.parent / "calls"
    script(house, asks("hostile__die"), ECHO)
    reply = await house.ask("brave", "Call it.")
    assert reply["status"] == "completed", reply
    assert "unknown" in reply["answer"]["text"]
    assert calls.read_text().splitlines().count("die") == 1


async def test_a_tool_without_side_effects_is_called_again_a_few_times(house: House) -> None:
    script(house, asks("frail__die"), ECHO)
    reply = await house.ask("stubborn", "Call it.")
    assert reply["status"] == "completed", reply
    assert "unknown" in reply["answer"]["text"]
    assert (house.settings.config_dir.parent / "frail").read_text().splitlines() == ["die"] * MOST_TRIES


async def test_a_tool_that_changes_under_a_run_is_not_called_by_it(house: House) -> None:
    calls = house.settings.config_dir.parent / "calls"
    script(house, asks("hostile__change"), asks("hostile__echo"), ECHO)
    reply = await house.ask("brave", "Call both.")
    assert reply["status"] == "completed", reply
    assert "it has changed since this request began" in reply["answer"]["text"]
    assert "echo" not in calls.read_text().splitlines()


async def test_a_server_that_is_down_is_named_and_the_others_are_used(house: House, library: Path) -> None:
    script(house, asks("files__read_text_file", path=str(library / "note.txt")), ECHO)
    reply = await house.ask("lonely", "Where is the key?")
    assert reply["status"] == "completed", reply
    assert "under the mat" in reply["answer"]["text"]
    said = json.dumps((await progress(house, reply["id"])).model_dump(mode="json"))
    assert "broken" in said
