"""Recordings of agents that use tools and of agents that give work to others, for `record_histories`."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.contracts import Decision, Progress
from tests.house import House
from tests.workflows.recorded import DOCUMENT, EDIT, PERSON, QUESTION, REPLY
from tests.workflows.recording import SAID, add_document, decide, ended, ends
from tests.workflows.workshop import WORKSHOP

_PLAIN = 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'
_SPARE = 'deployments = ["spare"]\nprompt = "plain.md"\n'
_LONG = 'deployments = ["long"]\nprompt = "plain.md"\nrecall = false\n'
TEAM_AGENTS = {
    "stubborn": 'deployments = ["sim", "spare"]\nprompt = "plain.md"\ntools = ["lookup_order"]\n',
    "clerk": _PLAIN + 'tools = ["lookup_order", "refund", "meet", "hang", "refuse", "read_page"]\n',
    "cashier": _PLAIN + 'tools = ["lookup_order", "refund"]\n[[approvals]]\non = "refund"\napprovers = ["boss"]\n',
    "desk": _PLAIN + 'delegates = ["sql", "handbook", "signer"]\n',
    "sql": 'description = "Knows the orders."\n' + _SPARE + 'tools = ["lookup_order"]\n',
    "handbook": (
        'description = "Knows the handbook."\ndeployments = ["extractive"]\nprompt = "plain.md"\ncollection = "docs"\n'
    ),
    "signer": ('description = "Asks first."\n' + _LONG + '[approval]\napprovers = ["ann"]\n'),
}


async def tools(house: House) -> str:
    """Calls of one reply: two that are made, one that fails, and two that cannot be made."""
    house.simulator.script(
        _asks(
            ("lookup_order", {"order": QUESTION}),
            ("lookup_order", {"order": PERSON}),
            ("refuse", {}),
            ("lookup_ordr", {"order": QUESTION}),
            ("lookup_order", {"number": QUESTION}),
        ),
        _asks(("lookup_order", {"order": DOCUMENT})),
        SAID,
    )
    return await ended(house, "clerk", "completed", text=f"What is {QUESTION} for {PERSON}?")


async def tools_tainted(house: House) -> str:
    house.simulator.script(
        _asks(("read_page", {"address": QUESTION})), _asks(("refund", {"order": QUESTION, "amount": 5})), SAID
    )
    return await ended(house, "clerk", "completed")


async def tools_repeated(house: House) -> str:
    house.simulator.script(_asks(("lookup_order", {"order": QUESTION})) | {"times": 9})
    return await ended(house, "clerk", "denied")


async def tools_repaired(house: House) -> str:
    """A model that falls silent in the middle of a tool loop, and another deployment that goes on."""
    look_up = _asks(("lookup_order", {"order": QUESTION}))
    house.simulator.script(
        look_up | {"model": "sim-large"}, {"kind": "unauthorized", "model": "sim-large"}, {**SAID, "model": "sim-spare"}
    )
    return await ended(house, "stubborn", "completed")


async def tools_cancel(house: House) -> str:
    WORKSHOP.reset()
    house.simulator.script(_asks(("hang", {})))
    request_id = str((await house.submit("clerk", f"Never mind the {QUESTION}."))["id"])
    async with asyncio.timeout(30):
        await WORKSHOP.begun.wait()
    await house.http.post(f"/v1/requests/{request_id}/cancel")
    return await ends(house, request_id, "cancelled")


async def tool_approve(house: House) -> str:
    request_id = await _refund(house)
    await decide(house, request_id, "approve", by="boss")
    return await ends(house, request_id, "completed")


async def tool_edit(house: House) -> str:
    request_id = await _refund(house)
    edited = json.dumps({"order": EDIT, "amount": 7})
    await decide(house, request_id, "edit", by="boss", payload=edited)
    return await ends(house, request_id, "completed")


async def tool_reject(house: House) -> str:
    request_id = await _refund(house)
    await decide(house, request_id, "reject", by="boss", reason="not yet")
    return await ends(house, request_id, "completed")


async def tool_cancel(house: House) -> str:
    request_id = await _refund(house)
    await house.http.post(f"/v1/requests/{request_id}/cancel")
    return await ends(house, request_id, "cancelled")


async def team(house: House) -> str:
    """Delegates at once: one that answers, one that fails, and one that cites."""
    await add_document(house)
    large, spare = {"model": "sim-large"}, {"model": "sim-spare"}
    house.simulator.script(
        _delegates("sql", "sql", "handbook") | large,
        {"kind": "context_length"} | spare,
        SAID | spare,
        SAID | large,
    )
    return await ended(house, "desk", "completed")


async def team_delegate(house: House) -> str:
    """The run of a delegate, with a tool of its own."""
    large, spare = {"model": "sim-large"}, {"model": "sim-spare"}
    house.simulator.script(
        _delegates("sql") | large, _asks(("lookup_order", {"order": QUESTION})) | spare, SAID | spare, SAID | large
    )
    return await _delegate_of(house, await ended(house, "desk", "completed"))


async def team_held(house: House) -> str:
    """A delegate waits for a person."""
    large, long = {"model": "sim-large"}, {"model": "sim-long"}
    house.simulator.script(_delegates("signer") | large, SAID | long, SAID | large)
    request_id = str((await house.submit("desk", f"May {QUESTION} leave?"))["id"])
    below = await _delegate_of(house, request_id)
    await house.show(below)
    await decide(house, below, "edit", payload=f"Better {EDIT}.")
    return await ends(house, request_id, "completed")


async def team_cancel(house: House) -> str:
    house.simulator.script(
        _delegates("sql", "sql") | {"model": "sim-large"}, {"kind": "hang", "model": "sim-spare", "times": 2}
    )
    request_id = await _hanging_team(house)
    await house.http.post(f"/v1/requests/{request_id}/cancel")
    return await ends(house, request_id, "cancelled")


async def team_delegate_cancel(house: House) -> str:
    """The run of a delegate whose parent is cancelled."""
    return await _delegate_of(house, await team_cancel(house))


async def start_over_tools(house: House) -> str:
    """A tool loop makes the history long; then a call waits for a person, and signals make it long again."""
    house.simulator.script(
        *(_asks(("lookup_order", {"order": f"{QUESTION} {number}"})) for number in range(2)),
        _asks(("lookup_order", {"order": DOCUMENT}), ("refund", {"order": DOCUMENT, "amount": 7})),
        SAID,
    )
    request_id = str((await house.ask("cashier", f"What is {QUESTION}?"))["id"])
    content = (await house.waiting(request_id))["content_sha256"]
    for number in range(7):
        said = {"decision": "approve", "actor": f"eve{number}", "content_sha256": content}
        await house.client.get_workflow_handle(request_id).signal("decide", Decision.model_validate(said))
    await decide(house, request_id, "approve", by="boss")
    return await ends(house, request_id, "completed")


TEAM_PATHS: tuple[Callable[[House], Awaitable[str]], ...] = (
    tools,
    tools_tainted,
    tools_repeated,
    tools_repaired,
    tools_cancel,
    tool_approve,
    tool_edit,
    tool_reject,
    tool_cancel,
    team,
    team_delegate,
    team_held,
    team_cancel,
    team_delegate_cancel,
)


def _asks(*calls: tuple[str, Any]) -> dict[str, Any]:
    return {"kind": "tool_calls", "tool_calls": [{"name": name, "arguments": given} for name, given in calls]}


def _delegates(*names: str) -> dict[str, Any]:
    return _asks(*((f"ask_{name}", {"task": f"What is {QUESTION}, and the {DOCUMENT}?"}) for name in names))


async def _refund(house: House) -> str:
    house.simulator.script(
        _asks(("lookup_order", {"order": QUESTION}), ("refund", {"order": REPLY, "amount": 5})), SAID
    )
    return str((await house.ask("cashier", f"May {QUESTION} leave?"))["id"])


async def _delegate_of(house: House, request_id: str) -> str:
    """The first delegate of a request, once there is one."""
    async with asyncio.timeout(30):
        while True:
            sheet = await house.client.get_workflow_handle(request_id).query("progress", result_type=Progress)
            if sheet.delegates:
                return str(sheet.delegates[0].request_id)
            await asyncio.sleep(0.05)


async def _hanging_team(house: House) -> str:
    request_id = str((await house.submit("desk", f"Never mind the {QUESTION}."))["id"])
    async with asyncio.timeout(30):
        while house.simulator.bill(entries=False)["requests"] < 3:  # noqa: ASYNC110 - the bill has no event
            await asyncio.sleep(0.05)
    return request_id
