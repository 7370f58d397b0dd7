"""Agents that give work to other agents: what it costs, who decides, how it ends, and what comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from holdfast.configuration import reference
from holdfast.contracts import Answer, Limits, Progress, Request, Run
from holdfast.contracts.request import CURRENT_WALK, MAX_DEPTH
from holdfast.delegation import child_id
from tests.house import PATIENCE_SECONDS, House, open_house
from tests.workflows.recorded import readable
from tests.workflows.workshop import TOOLS, WORKSHOP
from workflows.connection import DATA_CONVERTER

Script = Callable[..., None]

_SIM = 'deployments = ["sim"]\nprompt = "plain.md"\n'
_SPARE = 'deployments = ["spare"]\nprompt = "plain.md"\n'
_LONG = 'deployments = ["long"]\nprompt = "plain.md"\n'
AGENTS = {
    "desk": _SIM + 'delegates = ["sql", "reader", "docs", "held"]\ntools = ["refund"]\n',
    "sql": 'description = "Knows the orders."\n' + _SPARE + 'tools = ["meet", "lookup_order", "refund"]\n',
    "reader": 'description = "Reads pages."\n' + _LONG + 'tools = ["meet", "read_page"]\n',
    "docs": 'description = "Knows it."\ndeployments = ["extractive"]\nprompt = "plain.md"\ncollection = "docs"\n',
    "held": 'description = "Asks before it speaks."\n'
    + _SPARE
    + 'recall = false\n[approval]\napprovers = ["ann"]\nwithin = "4h"\n',
    "wary": _SIM + 'delegates = ["sql"]\n[[approvals]]\non = "ask_sql"\napprovers = ["boss"]\n',
    "guide": _SIM + 'delegates = ["sql"]\ntools = ["read_page"]\n[taint]\ntrust = ["tools"]\n',
    "boss": _SIM + 'delegates = ["payer"]\ntools = ["read_page"]\n',
    "payer": 'description = "Pays."\n' + _SPARE + 'tools = ["refund"]\n[taint]\ntrust = ["web"]\n',
    "lax": _SIM
    + 'tools = ["read_page", "refund"]\n[[approvals]]\non = "refund"\napprovers = ["ann"]\ndefault = "approve"\n',
    "top": _SIM + 'delegates = ["middle"]\n',
    "middle": 'description = "Passes work on."\n' + _LONG + 'delegates = ["sql"]\n',
}


@pytest.fixture(scope="module")
async def shared_house(temporal_client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A house whose agents are a team; each of them has a model of its own."""
    directory = tmp_path_factory.mktemp("house")
    async with open_house(directory, temporal_client, agents=AGENTS, tools=TOOLS) as opened:
        yield opened


@pytest.fixture(autouse=True)
def workshop() -> None:
    """Nothing has happened in the workshop."""
    WORKSHOP.reset()


DESK, SQL, READER = {"model": "sim-large"}, {"model": "sim-spare"}, {"model": "sim-long"}
"""The models of the agents."""
ECHO = {"kind": "ok", "turns": [{"content": "{results}"}], "times": 1}
"""Repeats what it was told by tools."""
SAID = {"kind": "ok", "content": "Forty-two orders."}


def asks(*calls: tuple[str, Any]) -> dict[str, Any]:
    """A reply that asks for these calls."""
    return {"kind": "tool_calls", "tool_calls": [{"name": name, "arguments": given} for name, given in calls]}


def tasks(*names: str, task: str = "How many orders?") -> dict[str, Any]:
    """A reply that gives each of these agents the same task."""
    return asks(*((f"ask_{name}", {"task": task}) for name in names))


async def progress(house: House, request_id: str) -> Progress:
    """The run sheet."""
    return await house.progress(request_id)


async def answer(house: House, request_id: str) -> Answer:
    """What the run ended with."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        ended: Answer = await house.client.get_workflow_handle(request_id, result_type=Answer).result()
    return ended


async def delegates(house: House, request_id: str, count: int = 1) -> list[str]:
    """The ids of a request's delegates, once there are so many, and each has a run: they are written down before."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(found := (await progress(house, request_id)).delegates) < count:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.02)
        ids = [delegate.request_id for delegate in sorted(found, key=lambda delegate: delegate.key)]
        for below in ids:
            while not await begun(house, below):  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0.02)
    return ids


async def begun(house: House, request_id: str) -> bool:
    """Whether a request has a run."""
    try:
        await house.client.get_workflow_handle(request_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True


async def shown_delegates(house: House, request_id: str) -> list[tuple[str, str]]:
    """A request's delegates and their states, as the gateway shows them; empty while no worker answers it."""
    reply = await house.http.get(f"/v1/requests/{request_id}", params={"progress": "true"})
    progress = reply.json()["progress"] or {"delegates": []}
    return [(found["request_id"], found["status"]) for found in progress["delegates"]]


async def briefed(house: House, request_id: str) -> Request:
    """The request that a run was started with."""
    (started, *_) = (await house.history(request_id)).events
    payloads = started.workflow_execution_started_event_attributes.input.payloads
    (run,) = await DATA_CONVERTER.decode(list(payloads), [Run])
    assert isinstance(run, Run)
    return run.request


async def test_delegates_of_one_reply_work_at_the_same_time(house: House, script: Script) -> None:
    script(
        DESK | tasks("sql", "reader"),
        SQL | asks(("meet", {"name": "sql"})),
        READER | asks(("meet", {"name": "reader"})),
        SQL | ECHO,
        READER | ECHO,
        DESK | ECHO,
    )
    reply = await house.ask("desk", "Do they meet?")
    assert reply["status"] == "completed", reply
    assert "sql met the other." in reply["answer"]["text"]
    assert "reader met the other." in reply["answer"]["text"]


async def test_what_a_team_spent_is_in_the_request_at_its_top_and_counted_once(house: House, script: Script) -> None:
    script(DESK | tasks("sql", "reader"), SQL | SAID, READER | SAID, DESK | ECHO)
    reply = await house.ask("desk", "How many?")
    assert reply["status"] == "completed", reply
    bill = house.simulator.bill()
    assert bill["requests"] == 4
    ended = await answer(house, reply["id"])
    assert ended.usage.total_tokens == bill["prompt_tokens"] + bill["completion_tokens"]
    assert reply["usage"]["total_tokens"] == ended.usage.total_tokens
    assert (ended.attempts, ended.tool_calls) == (2, 2)
    assert list(ended.delegates) == await delegates(house, reply["id"])
    parts = [await answer(house, request_id) for request_id in ended.delegates]
    own = await house.services.ledger.attempts.totals(reply["id"])
    whole = sum((part.usage for part in parts), own.usage)
    assert whole == ended.usage
    kept = await house.services.ledger.requests.get("local", reply["id"])
    assert kept is not None
    assert kept.answer == ended, "the ledger knows it when the engine has forgotten the run"
    assert kept.own_usage == own.usage
    sheet = await progress(house, reply["id"])
    assert [(delegate.agent, delegate.status) for delegate in sheet.delegates] == [
        ("sql", "completed"),
        ("reader", "completed"),
    ]


async def test_each_delegate_gets_a_part_of_what_is_left_and_less_time(house: House, script: Script) -> None:
    script(DESK | tasks("sql", "reader"), SQL | SAID, READER | SAID, DESK | ECHO)
    limits = {"tokens": 9_000, "cost_usd": "0.09", "deadline": "1h"}
    reply = await house.ask("desk", "How many?", limits=limits)
    assert reply["status"] == "completed", reply
    (first, *_) = await house.services.ledger.attempts.list(reply["id"])
    above = await briefed(house, reply["id"])
    for request_id in await delegates(house, reply["id"]):
        below = await briefed(house, request_id)
        assert below.limits.tokens == (9_000 - first.usage.total_tokens) // 3
        assert below.limits.cost_usd is not None
        assert first.usage.cost_usd is not None
        assert below.limits.cost_usd <= (Decimal("0.09") - first.usage.cost_usd) / 3
        assert below.deadline_at < above.deadline_at
        assert (below.parent, below.root, below.depth, below.user) == (above.id, above.id, 2, above.user)
        assert below.walk == CURRENT_WALK


async def test_a_team_that_wants_more_ends_below_the_limit_of_the_request_at_its_top(
    house: House, script: Script
) -> None:
    padding = "padding " * 150
    calls = [("lookup_order", {"order": f"{number} {padding}"}) for number in range(2)]
    script(
        *({**DESK, **tasks("sql", task=f"{number} {padding}")} for number in range(10)),
        {**SQL, **asks(*calls), "times": 50},
    )
    reply = await house.ask("desk", "How many?", limits={"tokens": 12_000, "attempts": 10})
    assert reply["status"] == "denied", reply
    assert "Delegates spent" in reply["reason"]
    ended = await answer(house, reply["id"])
    assert ended.limit is not None
    assert ended.limit.limit == "tokens"
    assert ended.delegates
    assert ended.usage.total_tokens <= 12_000
    spent = 0
    for request_id in (reply["id"], *ended.delegates):
        spent += (await house.services.ledger.attempts.totals(request_id)).usage.total_tokens
    assert spent == ended.usage.total_tokens


async def test_the_answer_cites_what_a_delegate_found(house: House, script: Script) -> None:
    documents = [{"source": "anchor.md", "text": "# Anchors\n\nAn anchor holds a ship fast in a storm.\n"}]
    posted = await house.http.post("/v1/collections/docs/documents", params={"wait": 60}, json={"documents": documents})
    assert posted.status_code == 200, posted.text
    script(DESK | tasks("docs", task="What holds a ship fast in a storm?"), DESK | ECHO)
    reply = await house.ask("desk", "What holds a ship?")
    assert reply["status"] == "completed", reply
    (citation,) = reply["answer"]["citations"]
    assert citation["source"] == "anchor.md"
    assert f"[{citation['marker']}]" in reply["answer"]["text"]
    assert documents[0]["text"][citation["start"] : citation["end"]].strip().startswith("An anchor") or "anchor" in (
        citation["quote"].lower()
    )


async def test_cancelling_a_request_cancels_its_delegates(house: House, script: Script) -> None:
    script(DESK | tasks("sql", "reader"), SQL | {"kind": "hang"}, READER | {"kind": "hang"})
    reply = await house.submit("desk", "Never mind.")
    below = await delegates(house, reply["id"], 2)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while house.simulator.bill(entries=False)["requests"] < 3:  # noqa: ASYNC110 - the bill has no event
            await asyncio.sleep(0.02)
    await house.http.post(f"/v1/requests/{reply['id']}/cancel")
    final = await house.show(reply["id"])
    assert final["status"] == "cancelled", final
    above = await house.client.get_workflow_handle(reply["id"]).describe()
    assert above.status is WorkflowExecutionStatus.CANCELED
    for request_id in below:
        assert (await house.show(request_id))["status"] == "cancelled"
        (attempt,) = await house.services.ledger.attempts.list(request_id)
        assert attempt.outcome == "cancelled"
    spent = [(await house.services.ledger.attempts.totals(one)).usage for one in (reply["id"], *below)]
    whole = spent[0] + spent[1] + spent[2]
    assert (await progress(house, reply["id"])).spent == whole, "what was spent is counted"
    assert final["usage"]["total_tokens"] == whole.total_tokens
    assert final["usage"]["cost_usd"] == format(whole.cost_usd or 0, "f")
    assert (sorted(final["delegates"]), final["tool_calls"]) == (sorted(below), 2)


async def test_a_delegate_that_is_cancelled_alone_is_a_result(house: House, script: Script) -> None:
    script(DESK | tasks("sql"), SQL | {"kind": "hang"}, DESK | ECHO)
    reply = await house.submit("desk", "How many?")
    (below,) = await delegates(house, reply["id"])
    await house.http.post(f"/v1/requests/{below}/cancel")
    final = await house.show(reply["id"])
    assert final["status"] == "completed", final
    assert "its request is cancelled" in final["answer"]["text"]


async def test_a_delegate_whose_run_is_ended_from_outside_counts_as_if_it_had_spent_its_part(
    house: House, script: Script
) -> None:
    script(DESK | tasks("sql"), SQL | {"kind": "hang"}, DESK | ECHO)
    reply = await house.submit("desk", "How many?")
    (below,) = await delegates(house, reply["id"])
    await house.client.get_workflow_handle(below).terminate("by the test")
    final = await house.show(reply["id"])
    assert final["status"] == "completed", final
    assert "operator of the engine ended its run" in final["answer"]["text"]
    part = (await briefed(house, below)).limits
    own = (await house.services.ledger.attempts.totals(reply["id"])).usage
    assert final["usage"]["total_tokens"] == own.total_tokens + part.tokens


async def test_a_delegate_that_was_asked_before_a_reset_counts_as_if_it_had_spent_its_part(
    house: House, script: Script
) -> None:
    script(DESK | tasks("sql"), DESK | ECHO)
    asked = await house.ask("wary", "How many orders?")
    (line,) = (await progress(house, asked["id"])).tools
    # As after a reset: there is a run already under the id that the delegate will get.
    earlier = await house.client.start_workflow(
        "Earlier", id=child_id(asked["id"], line.key), task_queue=f"nobody-{asked['id']}"
    )
    assert (await house.decide(asked["id"], "approve", by="boss")).status_code == 200
    final = await house.show(asked["id"])
    assert final["status"] == "completed", final
    assert "It was asked before this run was reset." in final["answer"]["text"]
    (delegate,) = (await progress(house, asked["id"])).delegates
    own = (await house.services.ledger.attempts.totals(asked["id"])).usage
    assert final["usage"]["total_tokens"] == own.total_tokens + delegate.usage.total_tokens
    assert delegate.usage.total_tokens > own.total_tokens
    await earlier.terminate("by the test")


async def test_a_delegate_waits_for_a_person_and_goes_on(house: House, script: Script) -> None:
    script(DESK | tasks("held"), SQL | SAID, DESK | ECHO)
    reply = await house.submit("desk", "How many?")
    (below,) = await delegates(house, reply["id"])
    waiting = await house.show(below)
    assert waiting["status"] == "waiting", waiting
    assert [(line.state, line.delegate) for line in (await progress(house, reply["id"])).tools] == [("running", below)]
    assert (await house.show(reply["id"], wait=0))["status"] == "running"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := await shown_delegates(house, reply["id"])):
            pass
    assert found == [(below, "waiting")]
    assert await house.listed(below, "ann")
    refused = await house.decide(below, "approve", by="local")
    assert refused.status_code == 403, "who asked the first question asked for everything below it"
    decided = await house.decide(below, "edit", by="ann", payload="Forty-three orders.")
    assert decided.status_code == 200, decided.text
    final = await house.show(reply["id"])
    assert final["status"] == "completed", final
    assert "Forty-three orders." in final["answer"]["text"]
    for decided_below in ((await answer(house, reply["id"])).decisions, (await progress(house, reply["id"])).decisions):
        assert [(taken.request_id, taken.actor) for taken in decided_below] == [(below, "ann")]
    assert final["decided_by"] is None, "nobody was asked about the answer of the request at the top"


async def test_people_may_be_asked_before_a_delegate_is(house: House, script: Script) -> None:
    script(DESK | tasks("sql"), SQL | SAID, DESK | ECHO)
    reply = await house.ask("wary", "How many?")
    assert reply["status"] == "waiting", reply
    assert (await progress(house, reply["id"])).delegates == ()
    await house.decide(reply["id"], "approve", by="boss")
    final = await house.show(reply["id"])
    assert final["status"] == "completed", final
    assert "Forty-two orders." in final["answer"]["text"]


@pytest.mark.parametrize(
    ("behaviour", "limits", "status"),
    [
        ({"kind": "insufficient_quota"}, {}, "failed"),
        ({"kind": "ok"}, {"cost_usd": "0.003"}, "denied"),
    ],
    ids=["failed", "denied"],
)
async def test_a_delegate_without_an_answer_is_a_result(
    house: House, script: Script, behaviour: dict[str, Any], limits: dict[str, Any], status: str
) -> None:
    script(DESK | tasks("sql"), SQL | behaviour, DESK | ECHO)
    reply = await house.ask("desk", "How many?", limits=limits)
    (below,) = await delegates(house, reply["id"])
    assert (await house.show(below))["status"] == status
    assert reply["status"] == "completed", reply
    assert f"its request is {status}" in reply["answer"]["text"]
    bill = house.simulator.bill()
    assert reply["usage"]["total_tokens"] == bill["prompt_tokens"] + bill["completion_tokens"], "it told what it spent"
    if status == "failed":
        description = await house.client.get_workflow_handle(below).describe()
        assert description.status is WorkflowExecutionStatus.FAILED, "the trace shows it in red"


async def test_a_delegate_delegates_in_turn_and_everything_is_counted_at_the_top(house: House, script: Script) -> None:
    script(
        {"model": "sim-large"} | tasks("middle"),
        {"model": "sim-long"} | tasks("sql"),
        SQL | SAID,
        {"model": "sim-long"} | ECHO,
        {"model": "sim-large"} | ECHO,
    )
    reply = await house.ask("top", "How many?")
    assert reply["status"] == "completed", reply
    assert "Forty-two orders." in reply["answer"]["text"]
    bill = house.simulator.bill()
    assert bill["requests"] == 5
    assert reply["usage"]["total_tokens"] == bill["prompt_tokens"] + bill["completion_tokens"]
    (middle,) = await delegates(house, reply["id"])
    (bottom,) = await delegates(house, middle)
    below = await briefed(house, bottom)
    assert (below.parent, below.root, below.depth) == (middle, reply["id"], 3)


async def test_the_deepest_agent_of_a_chain_is_told_that_nobody_is_below_it(house: House, script: Script) -> None:
    agent = house.configuration.agents["desk"]
    question = "How many?"
    await house.services.ledger.contents.put_many("local", (question, *agent.texts))
    request = Request(
        id="req_deepest0001",
        tenant="local",
        user="local",
        plan=agent.plan,
        input=reference(question),
        limits=Limits(**agent.limits.model_dump()),
        submitted_at=datetime.now(UTC),
        depth=MAX_DEPTH,
        walk=CURRENT_WALK,
    )
    script(DESK | tasks("sql"), DESK | ECHO)
    await house.engine.submit(request)
    final = await house.show(request.id)
    assert final["status"] == "completed", final
    assert f"{MAX_DEPTH} are the most" in final["answer"]["text"]
    assert (await answer(house, request.id)).delegates == ()


async def test_what_a_delegate_read_outside_taints_who_asked_it(house: House, script: Script) -> None:
    refund = asks(("refund", {"order": "A7", "amount": 5}))
    script(
        DESK | tasks("reader"),
        READER | asks(("read_page", {"address": "https://example.org/"})),
        READER | ECHO,
        DESK | refund,
        DESK | ECHO,
    )
    reply = await house.ask("desk", "Read it and refund.")
    assert reply["status"] == "completed", reply
    assert WORKSHOP.refunds == []
    assert "text from outside" in reply["answer"]["text"]
    assert (await answer(house, reply["id"])).tainted == ("delegates",)


async def test_a_tainted_agent_cannot_have_a_delegate_do_what_it_may_not(house: House, script: Script) -> None:
    script(
        DESK | asks(("read_page", {"address": "https://example.org/"})),
        DESK | tasks("sql", task="Refund A7."),
        SQL | asks(("refund", {"order": "A7", "amount": 5})),
        SQL | ECHO,
        DESK | ECHO,
    )
    reply = await house.ask("guide", "Read it.")
    assert reply["status"] == "completed", reply
    assert WORKSHOP.refunds == []
    (below,) = await delegates(house, reply["id"])
    assert "web" in (await answer(house, below)).tainted


async def test_what_a_delegate_trusts_of_its_own_it_does_not_trust_of_who_asks_it(house: House, script: Script) -> None:
    script(
        DESK | asks(("read_page", {"address": "https://example.org/"})),
        DESK | tasks("payer", task="Refund A7."),
        SQL | asks(("refund", {"order": "A7", "amount": 5})),
        SQL | ECHO,
        DESK | ECHO,
    )
    reply = await house.ask("boss", "Read it.")
    assert reply["status"] == "completed", reply
    assert WORKSHOP.refunds == []
    assert "text from outside" in reply["answer"]["text"]


async def test_why_a_delegate_failed_taints_who_asked_it_as_its_answer_would(house: House, script: Script) -> None:
    script(
        DESK | tasks("reader"),
        READER | asks(("read_page", {"address": "https://example.org/"})),
        READER | {"kind": "refusal"},
        DESK | asks(("refund", {"order": "A7", "amount": 5})),
        DESK | ECHO,
    )
    reply = await house.ask("desk", "Read it and refund.")
    assert reply["status"] == "completed", reply
    assert WORKSHOP.refunds == []
    assert reply["tainted"] == ["delegates"]


async def test_silence_does_not_agree_to_what_a_tainted_run_wants_to_do(house: House, script: Script) -> None:
    refund = DESK | asks(("refund", {"order": "A7", "amount": 5}))
    script(refund, DESK | ECHO, DESK | asks(("read_page", {"address": "https://example.org/"})), refund, DESK | ECHO)
    untainted = await house.ask("lax", "Refund A7.")
    assert untainted["approval"]["default"] == "approve"
    await house.decide(untainted["id"], "reject", by="ann")
    await house.show(untainted["id"])
    tainted = await house.ask("lax", "Read it and refund.")
    assert tainted["approval"]["default"] == "reject"
    await house.decide(tainted["id"], "reject", by="ann")
    await house.show(tainted["id"])


async def test_personal_data_is_masked_for_every_agent_and_restored_at_the_end(house: House, script: Script) -> None:
    script(
        DESK | tasks("sql", task="Who is <EMAIL_1>?"),
        SQL | {"kind": "ok", "turns": [{"content": "Nobody knows: {question}"}], "times": 1},
        DESK | ECHO,
    )
    person = "marker.person@example.org"
    reply = await house.ask("desk", f"Who is {person}?")
    assert reply["status"] == "completed", reply
    assert f"Nobody knows: Who is {person}?" in reply["answer"]["text"]
    (below,) = await delegates(house, reply["id"])
    for request_id in (reply["id"], below):
        assert person not in readable(await house.history(request_id))


async def test_a_delegate_is_found_like_any_request_and_names_its_parent(house: House, script: Script) -> None:
    script(DESK | tasks("sql"), SQL | SAID, DESK | ECHO)
    reply = await house.ask("desk", "How many?", session="chat-7")
    (below,) = await delegates(house, reply["id"])
    description = await house.client.get_workflow_handle(below).describe()
    found = {pair.key.name: pair.value for pair in description.typed_search_attributes}
    plan = house.configuration.agents["sql"].plan
    assert (found["HoldfastAgent"], found["HoldfastVersion"]) == ("sql", plan.version)
    assert (found["HoldfastTenant"], found["HoldfastSession"]) == ("local", "chat-7")
    assert description.parent_id == reply["id"]
    memo = await description.memo()
    assert (memo["parent"], memo["prompt"]) == (reply["id"], plan.instructions.sha256)
    assert "delegated by desk" in (await description.static_summary() or "")
    said = await house.services.ledger.requests.of_session("local", "local", "chat-7", limit=10)
    assert [finished.answer.request_id for finished in said] == [reply["id"]], "agents' talk is no turn of a user's"
