"""Whatever is killed while tools are used: what is on record is not done again, and nothing happens unapproved.

What the tools do is a line in a file, which the test counts. `stamp` may not be repeated and needs a person; `post` may
be repeated, and gets the same idempotency key each time.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simulator.program import Profile
from tests.chaos.client import Client
from tests.chaos.installation import Installation, open_installation
from tests.chaos.selection import cases
from tests.chaos.test_kill import PATIENCE_SECONDS, assert_every_call_is_on_record

pytestmark = pytest.mark.chaos

TOOLS = 'modules = ["chaos_tools"]\n'
MODULE = '''
import json
from pathlib import Path
from holdfast.tools import ToolContext, tool

def happen(name: str, context: ToolContext) -> str:
    line = {"tool": name, "request": context.request_id, "key": context.idempotency_key}
    with Path(__file__).with_name("effects.log").open("a") as file:
        file.write(json.dumps(line) + "\\n")
    return f"{name} is done."

@tool
def stamp(context: ToolContext) -> str:
    """Stamp the paper."""
    return happen("stamp", context)

@tool(idempotent=True)
def post(context: ToolContext) -> str:
    """Post the letter."""
    return happen("post", context)
'''

_AGENT = 'description = "Works."\ndeployments = ["%s"]\nprompt = "plain.md"\n'
AGENTS = {
    "clerk": _AGENT % "sim" + 'tools = ["stamp"]\n[[approvals]]\non = "stamp"\napprovers = ["ann"]\nwithin = "4h"\n',
    "postman": _AGENT % "spare" + 'tools = ["post"]\n',
    "boss": _AGENT % "long" + 'delegates = ["postman"]\n',
}
MODELS = Profile.read(
    {
        "default": {"token_ms": 5},
        "models": {
            "sim-large": {"turns": [{"tool_calls": [{"name": "stamp"}]}, {"content": "Result: {results}"}]},
            "sim-spare": {"turns": [{"tool_calls": [{"name": "post"}]}, {"content": "Result: {results}"}]},
            "sim-long": {
                "turns": [
                    {"tool_calls": [{"name": "ask_postman", "arguments": {"task": "Post it."}}]},
                    {"content": "The postman says: {results}"},
                ]
            },
        },
    }
)


@dataclass(frozen=True)
class Case:
    """Who works, where a process is killed, and what must have happened in the end."""

    point: str
    agent: str = "postman"
    effects: int = 1
    """Lines in the file."""
    known: bool = True
    """Whether the model is told a result; otherwise that nobody knows whether it happened."""


CASES = (
    *(
        Case(f"{step}:{side}")
        for step in ("equip", "vet", "call_tool", "transcribe", "generate", "deliver")
        for side in ("before", "after")
    ),
    Case("tool:claimed"),
    Case("tool:happened", effects=2),
    Case("tool:recorded"),
    Case("generate:streaming"),
    *(Case(f"call_tool:{side}", "clerk") for side in ("before", "after")),
    Case("tool:claimed", "clerk", effects=0, known=False),
    Case("tool:happened", "clerk", known=False),
    Case("tool:recorded", "clerk"),
    Case("approve:opening", "clerk"),
    Case("approve:waiting", "clerk"),
    Case("approve:deciding", "clerk"),
    Case("approve:decided", "clerk"),
    *(Case(f"note:{side}", "clerk") for side in ("before", "after")),
    Case("gateway:decided", "clerk"),
    Case("server:waiting", "clerk"),
    Case("server:decided", "clerk"),
    *(Case(f"brief:{side}", "boss") for side in ("before", "after")),
    Case("tool:recorded", "boss"),
    Case("deliver:committed", "boss"),
)


@pytest.fixture(scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """An installation whose agents use tools."""
    directory = tmp_path_factory.mktemp("tools")
    (directory / "chaos_tools.py").write_text(MODULE)
    async with open_installation(directory, agents=AGENTS, models=MODELS, tools=TOOLS) as installation:
        yield installation


OFTEN = (
    "postman-tool:happened",
    "postman-tool:recorded",
    "postman-transcribe:after",
    "clerk-tool:claimed",
    "clerk-tool:happened",
    "clerk-tool:recorded",
    "clerk-approve:waiting",
    "clerk-approve:decided",
    "clerk-note:before",
    "boss-brief:after",
)


@pytest.mark.parametrize("case", cases(CASES, OFTEN, name=lambda case: f"{case.agent}-{case.point}"))
async def test_after_a_kill_nothing_that_is_on_record_is_done_again(case: Case, installation: Installation) -> None:
    name = f"{case.agent} {case.point}"
    async with asyncio.timeout(PATIENCE_SECONDS):
        client = Client(installation.http, case.agent, f"Do it. ({name})", name)

        async def kill() -> None:
            async with aclosing(installation.deaths((case.point,), client)) as deaths:
                async for _ in deaths:
                    await assert_every_call_is_on_record(installation, client.request_id)

        async with asyncio.TaskGroup() as group:
            group.create_task(kill())
            walking = group.create_task(client.walk())
        reply = walking.result()
        assert reply["status"] == "completed", reply
        worker_id = _delegates(reply)[0] if case.agent == "boss" else client.request_id
        happened = [line for line in _effects(installation) if line["request"] == worker_id]
        assert len(happened) == case.effects
        assert len({line["key"] for line in happened}) <= 1, "a repetition has the key of what it repeats"
        (recorded,) = await installation.ledger.tool_calls.list("local", worker_id)
        assert not happened or recorded.idempotency_key == happened[0]["key"]
        told = reply["answer"]["text"]
        if case.known:
            assert "is done." in told
        else:
            assert "may or may not" in told
        await assert_every_call_is_on_record(installation, worker_id)
        assert await installation.runs(client.request_id) == 1


def _effects(installation: Installation) -> list[dict[str, Any]]:
    file = Path(installation.plan).with_name("effects.log")
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _delegates(reply: dict[str, Any]) -> list[str]:
    return [str(name) for name in reply["delegates"]]
