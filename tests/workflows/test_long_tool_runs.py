"""A tool loop whose history grows long starts over in the middle of it: nothing is made twice, no limit is renewed.

The server suggests it at 20 events instead of thousands.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from temporalio.client import Client

from holdfast.contracts import Answer, Decision
from tests.house import House, open_house
from tests.workflows.test_long_runs import ended, progress, run, runs, started_over
from tests.workflows.workshop import TOOLS, WORKSHOP

Script = Callable[..., None]

_SIM = 'deployments = ["sim"]\nprompt = "plain.md"\n'
_BOSS = '[[approvals]]\non = "refund"\napprovers = ["boss"]\nwithin = "4h"\n'
AGENTS = {
    "clerk": _SIM + 'tools = ["lookup_order", "refund"]\n[limits]\niterations = 7\n',
    "careful": _SIM + 'tools = ["lookup_order", "refund"]\n' + _BOSS,
    "desk": _SIM + 'delegates = ["sql"]\n',
    "sql": 'description = "Knows the orders."\ndeployments = ["spare"]\nprompt = "plain.md"\nrecall = false\n',
    "guide": _SIM + 'tools = ["read_page", "lookup_order", "refund"]\n[taint]\ntrust = ["tools"]\n',
}
ECHO = {"kind": "ok", "turns": [{"content": "{results}"}], "times": 1}


@pytest.fixture(scope="module")
async def shared_house(short_history: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house on a server that calls 20 events a long history."""
    directory = tmp_path_factory.mktemp("house")
    async with open_house(directory, short_history, agents=AGENTS, tools=TOOLS) as opened:
        yield opened


@pytest.fixture(autouse=True)
def workshop() -> None:
    """Nothing has happened in the workshop."""
    WORKSHOP.reset()


def asks(*calls: tuple[str, Any]) -> dict[str, Any]:
    """A reply that asks for these calls."""
    return {"kind": "tool_calls", "tool_calls": [{"name": name, "arguments": given} for name, given in calls]}


def looks_up(number: int) -> dict[str, Any]:
    """A reply that asks for one order."""
    return asks(("lookup_order", {"order": f"A{number}"}))


async def test_a_long_tool_loop_makes_every_call_once_and_remembers_all_results(house: House, script: Script) -> None:
    script(*(looks_up(number) for number in range(5)), ECHO)
    reply = await house.ask("clerk", "Where are they?", limits={"attempts": 7})
    assert reply["status"] == "completed", reply["reason"]
    assert WORKSHOP.looked_up == [f"A{number}" for number in range(5)]
    assert reply["answer"]["text"] == "Order A4 is on its way."
    assert len(await runs(house, reply["id"])) >= 2
    assert house.simulator.bill()["requests"] == 6
    answer: Answer = await run(house, reply["id"]).result()
    assert (answer.tool_calls, answer.attempts) == (5, 6)
    memo = await (await run(house, reply["id"]).describe()).memo()
    assert memo["tools"] == (await progress(house, reply["id"])).catalog, "the tools stay those it began with"


async def test_limits_of_a_tool_loop_are_not_renewed(house: House, script: Script) -> None:
    script(*(looks_up(number) for number in range(20)))
    reply = await house.ask("clerk", "Where are they?")
    assert reply["status"] == "denied", reply
    assert "limits.iterations" in reply["reason"]
    assert len(WORKSHOP.looked_up) == 6
    assert len(await runs(house, reply["id"])) >= 2


async def test_a_model_that_repeats_itself_is_stopped_in_whichever_run(house: House, script: Script) -> None:
    script(looks_up(1), looks_up(7), looks_up(2), looks_up(7), looks_up(3), looks_up(7), looks_up(7), looks_up(7))
    reply = await house.ask("careful", "Where are they?")
    assert reply["status"] == "denied", reply
    assert WORKSHOP.looked_up.count("A7") == 3
    assert len(await runs(house, reply["id"])) >= 2


async def test_a_call_that_waits_for_a_person_waits_on_in_the_next_run(house: House, script: Script) -> None:
    script(asks(("lookup_order", {"order": "A7"}), ("refund", {"order": "A7", "amount": 5})), ECHO)
    reply = await house.ask("careful", "Refund A7.")
    assert reply["status"] == "waiting", reply
    opened = await house.waiting(reply["id"])
    for number in range(45):
        said = {"decision": "approve", "actor": f"eve{number}", "content_sha256": opened["content_sha256"]}
        await run(house, reply["id"]).signal("decide", Decision.model_validate(said))
    await started_over(house, reply["id"], 1)
    assert (await progress(house, reply["id"])).status == "waiting"
    assert await house.waiting(reply["id"]) == opened
    decided = await house.decide(reply["id"], "approve", by="boss")
    assert decided.status_code == 200, decided.text
    answer = await ended(house, reply["id"])
    assert answer.status == "completed"
    assert WORKSHOP.looked_up == ["A7"], "what was made in the first run is not made again"
    assert [(order, amount) for order, amount, _ in WORKSHOP.refunds] == [("A7", 5)]
    final = await house.show(reply["id"])
    assert "Refunded 5 for A7." in final["answer"]["text"]
    assert "Order A7 is on its way." in final["answer"]["text"]


async def test_a_run_that_starts_over_stays_tainted(house: House, script: Script) -> None:
    script(
        asks(("read_page", {"address": "a"})),
        *(looks_up(number) for number in range(5)),
        asks(("refund", {"order": "A7", "amount": 5})),
        ECHO,
    )
    reply = await house.ask("guide", "Read it.")
    assert reply["status"] == "completed", reply
    assert len(await runs(house, reply["id"])) >= 2
    assert WORKSHOP.refunds == []
    assert "text from outside (web)" in reply["answer"]["text"]


async def test_what_delegates_spent_is_remembered(house: House, script: Script) -> None:
    work = [asks(("ask_sql", {"task": f"Count {number}."})) | {"model": "sim-large"} for number in range(4)]
    script(*work, ECHO | {"model": "sim-large"}, {"kind": "ok", "content": "Many.", "model": "sim-spare", "times": 4})
    reply = await house.ask("desk", "Count.")
    assert reply["status"] == "completed", reply
    assert len(await runs(house, reply["id"])) >= 2
    answer: Answer = await run(house, reply["id"]).result()
    bill = house.simulator.bill()
    assert bill["requests"] == 9
    assert answer.usage.total_tokens == bill["prompt_tokens"] + bill["completion_tokens"]
    assert len(answer.delegates) == 4
