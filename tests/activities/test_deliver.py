"""The way out: personal data is put back, the request is closed once, and what is stored is what was checked."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.testing import ActivityEnvironment

from activities.deliver import Deliver, _restored_json
from holdfast.configuration import reference
from holdfast.contracts import (
    AnswerDocument,
    Delivered,
    DeliverInput,
    FinishReason,
    Limits,
    Passage,
    Plan,
    Request,
    Status,
)
from holdfast.errors import ContentMissing
from holdfast.ledger import Ledger
from holdfast.preparation import PASSAGES
from holdfast.relay import MemoryRelay

TENANT = "acme"
TEXT = reference("x")
AWKWARD = 'Ann "the\\Boss"\n</b>'


def request(request_id: str, *, schema: bool = False) -> Request:
    """A request of an agent."""
    return Request(
        id=request_id,
        tenant=TENANT,
        user="ann",
        plan=Plan(
            agent="docs",
            version="0123456789abcdef",
            deployments=("sim",),
            instructions=TEXT,
            output_schema=TEXT if schema else None,
        ),
        input=TEXT,
        limits=Limits(),
        submitted_at=datetime(2026, 3, 1, 9, tzinfo=UTC),
    )


async def delivered(running: ActivityEnvironment, ledger: Ledger, text: str, **changes: Any) -> Delivered:
    """Deliver a text as a completed request's."""
    content = await ledger.contents.put(TENANT, text)
    fields = {
        "request": request("req_00000001"),
        "status": Status.COMPLETED,
        "content": content,
        "masked": reference("the question"),
        **changes,
    }
    return await running.run(Deliver(ledger, MemoryRelay()).deliver, DeliverInput.model_validate(fields))


async def read(ledger: Ledger, result: Delivered) -> AnswerDocument:
    """The document as the client reads it."""
    assert result.document is not None
    return AnswerDocument.model_validate_json(await ledger.contents.get(TENANT, result.document))


async def test_placeholders_become_what_they_stood_for(running: ActivityEnvironment, ledger: Ledger) -> None:
    await ledger.vault.save(TENANT, "req_00000001", {"<EMAIL_1>": "ann@example.org"})
    result = await delivered(running, ledger, "Ask <EMAIL_1>, not <EMAIL_2>.", private=True)
    assert (await read(ledger, result)).text == "Ask ann@example.org, not <EMAIL_2>."
    assert await ledger.vault.load(TENANT, "req_00000001") == {}, "what was hidden is not kept any longer"


async def test_nothing_is_put_back_for_a_request_that_hid_nothing(running: ActivityEnvironment, ledger: Ledger) -> None:
    await ledger.vault.save(TENANT, "req_00000001", {"<EMAIL_1>": "ann@example.org"})
    result = await delivered(running, ledger, "Ask <EMAIL_1>.")
    assert (await read(ledger, result)).text == "Ask <EMAIL_1>."


async def test_a_value_put_back_in_json_stays_one_string(running: ActivityEnvironment, ledger: Ledger) -> None:
    await ledger.vault.save(TENANT, "req_00000001", {"<EMAIL_1>": AWKWARD})
    reply = '{"to": ["<EMAIL_1>"], "<EMAIL_1>": 1, "n": 1.50, "ok": true, "none": null}'
    result = await delivered(running, ledger, reply, private=True, request=request("req_00000001", schema=True))
    document = await read(ledger, result)
    assert json.loads(document.text) == {"to": [AWKWARD], AWKWARD: 1, "n": 1.5, "ok": True, "none": None}
    assert document.citations == (), "in JSON a bracketed number is data"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON_VALUES, st.text())
def test_restoring_changes_placeholders_in_json_and_nothing_else(value: Any, hidden: str) -> None:
    reply = json.dumps({"value": value, "who": "<EMAIL_1>"})
    assert json.loads(_restored_json(reply, {"<EMAIL_1>": hidden})) == {"value": value, "who": hidden}


async def test_citations_point_into_the_sources(running: ActivityEnvironment, ledger: Ledger) -> None:
    passages = (Passage(source="a.md", start=0, end=6, text="Anchor", score=0.9),)
    kept = await ledger.contents.put(TENANT, PASSAGES.dump_json(passages).decode())
    result = await delivered(running, ledger, "It holds [1].", passages=kept)
    (citation,) = (await read(ledger, result)).citations
    assert (citation.marker, citation.source, citation.quote) == (1, "a.md", "Anchor")


@pytest.mark.parametrize("status", [status for status in Status if status.is_final and status is not Status.COMPLETED])
async def test_only_a_completed_request_has_a_document(
    running: ActivityEnvironment, ledger: Ledger, status: Status
) -> None:
    result = await delivered(running, ledger, "Not for anyone.", status=status, reason="because", recallable=True)
    assert result.document is None
    assert result.status is status
    assert await recalled(ledger) is None


async def recalled(ledger: Ledger) -> object:
    """What the identical question would be answered with."""
    question = reference("the question").sha256
    return await ledger.answers.recall(
        TENANT, "0123456789abcdef", question, ttl=timedelta(hours=1), now=datetime.now(UTC)
    )


async def test_an_answer_is_kept_for_the_identical_question_only_when_it_may_be(
    running: ActivityEnvironment, ledger: Ledger
) -> None:
    await delivered(running, ledger, "For one.", recallable=False)
    assert await recalled(ledger) is None
    await delivered(running, ledger, "For all.", recallable=True, request=request("req_00000002"))
    assert await recalled(ledger) is not None


async def test_closing_again_changes_nothing_even_when_the_hidden_values_are_gone(
    running: ActivityEnvironment, ledger: Ledger
) -> None:
    await ledger.vault.save(TENANT, "req_00000001", {"<EMAIL_1>": "ann@example.org"})
    first = await delivered(running, ledger, "Ask <EMAIL_1>.", private=True)
    again = await delivered(running, ledger, "Ask <EMAIL_1>.", private=True)
    assert again == first
    assert (await read(ledger, again)).text == "Ask ann@example.org."
    late = await delivered(running, ledger, "Ask <EMAIL_1>.", status=Status.CANCELLED, reason="too late")
    assert (late.status, late.document) == (Status.COMPLETED, first.document)


async def test_a_text_that_is_gone_is_named(running: ActivityEnvironment, ledger: Ledger) -> None:
    gone = reference("never stored")
    with pytest.raises(ContentMissing, match=gone.sha256[:12]):
        await delivered(running, ledger, "x", content=gone)


async def test_a_reply_that_says_it_calls_tools_and_calls_none_is_a_text(
    running: ActivityEnvironment, ledger: Ledger
) -> None:
    chat = request("req_00000001").model_copy(update={"chat": True})
    said = {"request": chat, "finish_reason": FinishReason.TOOL_CALLS}
    document = await read(ledger, await delivered(running, ledger, "Let me look that up.", **said))
    assert (document.text, document.tool_calls) == ("Let me look that up.", ())


async def test_what_a_run_with_tools_masked_is_forgotten_even_if_the_run_never_heard_of_it(
    running: ActivityEnvironment, ledger: Ledger
) -> None:
    asked = request("req_00000001")
    acting = asked.model_copy(update={"plan": asked.plan.model_copy(update={"toolbox": TEXT})})
    await ledger.vault.save(TENANT, acting.id, {"<EMAIL_1>": "ada@example.org"})
    await delivered(running, ledger, "", request=acting, status=Status.CANCELLED, content=None)
    assert await ledger.vault.load(TENANT, acting.id) == {}
