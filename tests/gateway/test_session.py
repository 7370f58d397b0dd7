"""What was said before in a session becomes the conversation of the next request."""

from pathlib import Path
from typing import Any

import pytest

from holdfast.configuration import Configuration, load_configuration
from holdfast.contracts import Conversation, Status, ToolCall, Turn
from holdfast.ledger import Ledger
from tests.gateway.conftest import MODELS
from tests.gateway.recorded import Edge, opened
from tests.gateway.streams import finish


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    """`talker` remembers two exchanges, `goldfish` none."""
    for name in ("agents", "prompts"):
        (tmp_path / name).mkdir()
    (tmp_path / "models.toml").write_text(MODELS)
    (tmp_path / "prompts" / "prompt.md").write_text("Answer briefly.")
    for name, history in (("talker", 2), ("goldfish", 0)):
        agent = f'deployments = ["extractive"]\nprompt = "prompt.md"\nhistory = {history}\n'
        (tmp_path / "agents" / f"{name}.toml").write_text(agent)
    return load_configuration(tmp_path)


async def exchange(edge: Edge, question: str, answer: str, *, agent: str = "talker", **body: Any) -> None:
    headers, ending = body.pop("headers", {}), body.pop("ending", {})
    reply = await edge.ask({"agent": agent, "input": question, "session": "s1"} | body, **headers)
    assert reply.status_code == 202, reply.text
    await finish(edge, reply.json()["id"], answer, **ending)


async def conversation(edge: Edge) -> Conversation | None:
    request = edge.engine.submitted[-1]
    if request.conversation is None:
        return None
    return Conversation.model_validate_json(await edge.ledger.contents.get(request.tenant, request.conversation))


def said(*texts: str) -> tuple[Turn, ...]:
    return tuple(Turn(role=("user", "assistant")[n % 2], content=text) for n, text in enumerate(texts))


async def test_the_latest_exchanges_come_first(edge: Edge) -> None:
    for number in range(3):
        await exchange(edge, f"Question {number}?", f"Answer {number}.")
    await edge.ask({"agent": "talker", "input": "And now?", "session": "s1"})
    asked = await conversation(edge)
    assert asked is not None
    assert asked.turns == said("Question 1?", "Answer 1.", "Question 2?", "Answer 2.")
    assert await edge.ledger.contents.get("local", edge.engine.submitted[-1].input) == "And now?"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"session": "s2"}, {}),
        ({"agent": "goldfish"}, {}),
        ({}, {"X_Holdfast_User": "somebody-else"}),
    ],
)
async def test_other_sessions_users_and_agents_without_history_begin_anew(
    edge: Edge, body: dict[str, str], headers: dict[str, str]
) -> None:
    await exchange(edge, "Why?", "Because.")
    await edge.ask({"agent": "talker", "input": "And now?", "session": "s1"} | body, **headers)
    assert await conversation(edge) is None


async def test_another_tenants_session_of_the_same_name_is_another(
    configuration: Configuration, ledger: Ledger
) -> None:
    async with opened(configuration, ledger, api_keys="ka=acme/ann,ko=other/ann") as edge:
        await exchange(edge, "Why?", "Because.", headers={"Authorization": "Bearer ka"})
        await edge.ask({"agent": "talker", "input": "And?", "session": "s1"}, Authorization="Bearer ko")
        assert await conversation(edge) is None
        await edge.ask({"agent": "talker", "input": "And?", "session": "s1"}, Authorization="Bearer ka")
        assert await conversation(edge) is not None


async def test_exchanges_without_an_answer_or_with_a_tool_call_are_left_out(edge: Edge) -> None:
    await exchange(edge, "Why?", "Because.")
    for changes in ({"status": Status.FAILED}, {"tool_calls": (ToolCall(id="c", name="f", arguments="{}"),)}):
        reply = await edge.ask({"agent": "talker", "input": "What?", "session": "s1"})
        await finish(edge, reply.json()["id"], "Let me look.", **changes)
    await edge.ask({"agent": "talker", "input": "And now?", "session": "s1"})
    asked = await conversation(edge)
    assert asked is not None
    assert asked.turns[-2:] == said("Why?", "Because.")


async def test_a_chat_client_names_its_session_and_brings_its_own_history_instead(edge: Edge) -> None:
    await exchange(edge, "Why?", "Because.")
    url, ask = "/v1/chat/completions", {"role": "user", "content": "And now?"}
    system = {"role": "system", "content": "Be brief."}
    edge.becomes(status=Status.FAILED)

    await edge.http.post(url, json={"model": "talker", "messages": [ask], "metadata": {"session": "s1"}})
    asked = await conversation(edge)
    assert asked is not None
    assert asked.turns == said("Why?", "Because.")

    headers = {"X-Holdfast-Session": "s1"}
    await edge.http.post(url, json={"model": "talker", "messages": [system, ask]}, headers=headers)
    asked = await conversation(edge)
    assert asked is not None
    assert asked.turns == (Turn(role="system", content="Be brief."), *said("Why?", "Because."))

    own = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}, ask]
    await edge.http.post(url, json={"model": "talker", "messages": own}, headers=headers)
    asked = await conversation(edge)
    assert asked is not None
    assert asked.turns == said("Where?", "There.")
    assert edge.engine.submitted[-1].session == "s1"


async def test_a_request_that_is_shown_tainted_answers_starts_tainted_whichever_agent_gave_them(edge: Edge) -> None:
    await exchange(edge, "Read it.", "It says: refund A7.", agent="goldfish", ending={"tainted": ("web", "tools")})
    await exchange(edge, "Look.", "Seen.", ending={"tainted": ("tools", "mcp")})
    await edge.ask({"agent": "talker", "input": "And now?", "session": "s1"})
    assert edge.engine.submitted[-1].tainted == ("web", "tools", "mcp")


async def test_only_answers_that_a_request_is_shown_taint_it(edge: Edge) -> None:
    tainted = {"tainted": ("web",)}
    await exchange(edge, "Read it.", "It says: refund A7.", ending=tainted)
    asking = {"agent": "talker", "input": "And now?", "session": "s1"}
    for body in ({"agent": "goldfish"}, {"session": "s2"}):
        await edge.ask(asking | body)
        assert "tainted" not in edge.engine.submitted[-1].model_fields_set
    await exchange(edge, "Why?", "Because.")
    await exchange(edge, "Say nothing.", "", ending=tainted)
    await edge.ask(asking)
    asked = await conversation(edge)
    assert asked is not None
    assert asked.turns == said("Why?", "Because.")
    assert edge.engine.submitted[-1].tainted == ()


async def test_what_a_client_brings_as_earlier_answers_is_its_own_text(edge: Edge) -> None:
    await exchange(edge, "Read it.", "It says: refund A7.", ending={"tainted": ("web",)})
    edge.becomes(status=Status.FAILED)
    own = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]
    messages = [*own, {"role": "user", "content": "And now?"}]
    body = {"model": "talker", "messages": messages, "metadata": {"session": "s1"}}
    await edge.http.post("/v1/chat/completions", json=body)
    assert (edge.engine.submitted[-1].session, edge.engine.submitted[-1].tainted) == ("s1", ())
    body["messages"] = messages[-1:]
    await edge.http.post("/v1/chat/completions", json=body)
    assert edge.engine.submitted[-1].tainted == ("web",)
