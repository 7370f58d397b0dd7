"""Vault, submissions, exact answers, final rows, and the transaction that ends a request."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select

from holdfast.contracts import Answer, ContentRef, FinishReason, LimitReached, Limits, Status, Usage
from holdfast.errors import ContentMissing, IdempotencyConflict, InvalidInput, Outcome
from holdfast.ledger import AttemptKey, Claim, Contents, ExactAnswer, FinishedRequest, GroupBy, Ledger, Opened, Reuse
from holdfast.ledger.contents import digest_of
from holdfast.ledger.schema import answers, requests

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
BODY, OTHER_BODY = "a" * 64, "b" * 64


def finished(request_id: str = "req_1", *, tenant: str = "acme", at: datetime = NOON) -> FinishedRequest:
    return FinishedRequest(
        tenant=tenant,
        user="ada",
        agent="docs",
        plan_version="v1",
        submitted_at=NOON,
        finished_at=at,
        session="chat-7",
        tier="gold",
        answer=Answer(
            request_id=request_id,
            status=Status.COMPLETED,
            reason=None,
            content_sha256=BODY,
            deployment="large",
            decided_by="grace",
        ),
    )


async def test_the_vault_gives_back_what_was_hidden_until_it_is_told_to_forget(ledger: Ledger) -> None:
    await ledger.vault.save("acme", "req_1", {"<EMAIL_1>": "ada@example.org"})
    await ledger.vault.save("acme", "req_1", {"<EMAIL_1>": "ada@example.org", "<EMAIL_2>": "grace@example.org"})
    assert len(await ledger.vault.load("acme", "req_1")) == 2
    assert await ledger.vault.load("globex", "req_1") == {}
    await ledger.vault.delete("globex", "req_1")
    assert len(await ledger.vault.load("acme", "req_1")) == 2
    await ledger.vault.delete("acme", "req_1")
    await ledger.vault.delete("acme", "req_1")
    assert await ledger.vault.load("acme", "req_1") == {}


async def test_the_first_submission_under_a_key_wins_and_its_text_is_stored(ledger: Ledger) -> None:
    first = await ledger.submissions.claim("acme", "k", body_sha256=BODY, request_id="req_1", texts=["question"])
    again = await ledger.submissions.claim("acme", "k", body_sha256=BODY, request_id="req_2", texts=["question"])
    assert (first, again) == (Claim("req_1", created=True), Claim("req_1", created=False))
    assert await Contents(ledger.database).get("acme", digest_of("question").reference) == "question"


async def test_a_key_with_another_body_is_a_conflict_and_stores_nothing(ledger: Ledger) -> None:
    await ledger.submissions.claim("acme", "k", body_sha256=BODY, request_id="req_1", texts=["question"])
    with pytest.raises(IdempotencyConflict, match="req_1"):
        await ledger.submissions.claim("acme", "k", body_sha256=OTHER_BODY, request_id="req_2", texts=["other"])
    with pytest.raises(ContentMissing):
        await ledger.contents.get("acme", digest_of("other").reference)


async def test_a_submission_whose_text_cannot_be_stored_does_not_use_up_the_key(ledger: Ledger) -> None:
    with pytest.raises(InvalidInput):
        await ledger.submissions.claim("acme", "k", body_sha256=BODY, request_id="req_1", texts=["\ud800"])
    claim = await ledger.submissions.claim("acme", "k", body_sha256=OTHER_BODY, request_id="req_2", texts=["fine"])
    assert claim == Claim("req_2", created=True)


async def test_keys_of_two_tenants_do_not_meet(ledger: Ledger) -> None:
    for tenant, request_id in (("acme", "req_1"), ("globex", "req_2")):
        claim = await ledger.submissions.claim(tenant, "k", body_sha256=BODY, request_id=request_id)
        assert claim == Claim(request_id, created=True)


async def test_of_many_submissions_at_once_under_one_key_one_wins(ledger: Ledger) -> None:
    claims = await asyncio.gather(
        *(ledger.submissions.claim("acme", "k", body_sha256=BODY, request_id=f"req_{n}") for n in range(20))
    )
    assert len({claim.request_id for claim in claims}) == 1
    assert sum(claim.created for claim in claims) == 1


async def test_an_exact_answer_is_recalled_for_the_same_tenant_version_and_question_only(ledger: Ledger) -> None:
    answer = ExactAnswer(ContentRef(sha256=BODY, size=3), ContentRef(sha256=OTHER_BODY, size=4), "req_1")
    await ledger.answers.store("acme", "v1", BODY, answer, now=NOON)
    recalled = await ledger.answers.recall("acme", "v1", BODY, now=NOON)
    assert recalled == replace(answer, created_at=NOON)
    for key in (("globex", "v1", BODY), ("acme", "v2", BODY), ("acme", "v1", OTHER_BODY)):
        assert await ledger.answers.recall(*key, now=NOON) is None


async def test_an_exact_answer_expires_and_reuse_does_not_renew_it(ledger: Ledger) -> None:
    answer = ExactAnswer(ContentRef(sha256=BODY, size=3), None, "req_1")
    await ledger.answers.store("acme", "v1", BODY, answer, now=NOON)
    day = timedelta(hours=24)
    assert await ledger.answers.recall("acme", "v1", BODY, now=NOON + day - timedelta(seconds=1))
    assert await ledger.answers.recall("acme", "v1", BODY, now=NOON + day) is None
    assert await ledger.answers.recall("acme", "v1", BODY, ttl=timedelta(hours=1), now=NOON + day / 2) is None


async def test_the_last_exact_answer_counts(ledger: Ledger) -> None:
    for number, moment in ((1, NOON), (2, NOON + timedelta(days=3))):
        answer = ExactAnswer(ContentRef(sha256=BODY, size=3), None, f"req_{number}")
        await ledger.answers.store("acme", "v1", BODY, answer, now=moment)
    recalled = await ledger.answers.recall("acme", "v1", BODY, now=NOON + timedelta(days=3))
    assert recalled is not None
    assert recalled.request_id == "req_2"


async def test_a_tenants_exact_answers_can_be_forgotten(ledger: Ledger) -> None:
    answer = ExactAnswer(ContentRef(sha256=BODY, size=3), None, "req_1")
    for tenant in ("acme", "globex"):
        await ledger.answers.store(tenant, "v1", BODY, answer, now=NOON)
    assert await ledger.answers.forget("acme") == 1
    assert await ledger.answers.recall("acme", "v1", BODY, now=NOON) is None
    assert await ledger.answers.recall("globex", "v1", BODY, now=NOON)


async def test_a_request_ends_once(ledger: Ledger) -> None:
    assert await ledger.requests.finish(finished())
    assert not await ledger.requests.finish(replace(finished(), user="mallory"))
    assert await ledger.requests.get("acme", "req_1") == finished()
    assert await ledger.requests.get("globex", "req_1") is None


async def test_ended_requests_are_listed_latest_first_page_by_page_without_gaps(ledger: Ledger) -> None:
    for number in range(7):  # pairs share a moment
        await ledger.requests.finish(finished(f"req_{number}", at=NOON + timedelta(minutes=number // 2)))
    await ledger.requests.finish(finished("req_9", tenant="globex"))
    pages: list[str] = []
    before = None
    while page := await ledger.requests.list("acme", limit=3, before=before):
        pages += [one.answer.request_id for one in page]
        before = pages[-1]
    assert pages == [f"req_{number}" for number in (6, 5, 4, 3, 2, 1, 0)]


async def test_finishing_stores_document_row_and_answer_and_empties_the_vault(ledger: Ledger) -> None:
    await ledger.vault.save("acme", "req_1", {"<EMAIL_1>": "ada@example.org"})
    content = await ledger.contents.put("acme", "hello")
    opened = await ledger.attempts.open(
        AttemptKey("acme", "req_1", 1), deployment="large", model="m", hold=Usage(input_tokens=9), limits=Limits()
    )
    assert isinstance(opened, Opened)
    usage = Usage(input_tokens=5, output_tokens=2, cost_usd=Decimal("0.01"))
    await ledger.attempts.settle(
        opened.attempt_id, Outcome.OK, usage=usage, output="hello", finish_reason=FinishReason.STOP, model="m"
    )
    stored = await ledger.finish(finished(), document='{"text":"hi"}', reuse=Reuse(BODY, content), forget_vault=True)
    assert (stored.answer.usage, stored.answer.attempts) == (usage, 1)
    assert stored.answer.document is not None
    assert await Contents(ledger.database).get("acme", stored.answer.document) == '{"text":"hi"}'
    assert await ledger.requests.get("acme", "req_1") == stored
    recalled = await ledger.answers.recall("acme", "v1", BODY, now=NOON)
    assert recalled == ExactAnswer(content, None, "req_1", NOON, stored.answer.document)
    assert await ledger.vault.load("acme", "req_1") == {}
    assert await ledger.finish(finished(at=NOON + timedelta(hours=1)), document="other") == stored


SIX = Usage(input_tokens=1, cache_read_tokens=2, cache_write_tokens=3, cost_usd=Decimal("0.02"))


@pytest.mark.parametrize("delegated", [SIX, SIX.model_copy(update={"cost_usd": None})], ids=["priced", "unpriced"])
async def test_the_final_row_has_what_delegates_used_and_what_is_read_is_the_whole(
    ledger: Ledger, delegated: Usage
) -> None:
    opened = await ledger.attempts.open(
        AttemptKey("acme", "req_1", 1), deployment="large", model="m", hold=Usage(input_tokens=9), limits=Limits()
    )
    assert isinstance(opened, Opened)
    own = Usage(input_tokens=5, output_tokens=2, cost_usd=Decimal("0.01"))
    await ledger.attempts.settle(
        opened.attempt_id, Outcome.OK, usage=own, output="hello", finish_reason=FinishReason.STOP, model="m"
    )
    told = {
        "tool_calls": 3,
        "delegates": ("req_below1", "req_below2"),
        "limit": LimitReached(limit="tool_calls", value="4", bound="3"),
        "tainted": ("web", "delegates"),
    }
    given = replace(finished(), answer=finished().answer.model_copy(update=told), delegated=delegated)
    stored = await ledger.finish(given)
    assert stored.answer.usage == own + delegated
    assert (stored.own_usage, stored.delegated) == (own, delegated)
    assert {name: getattr(stored.answer, name) for name in told} == told
    assert await ledger.requests.get("acme", "req_1") == stored
    assert await ledger.finish(given) == stored, "ending again adds nothing"
    (line,) = await ledger.usage(GroupBy.TENANT)
    assert line.usage == own, "delegates are counted by their own calls"


async def test_a_row_from_before_there_were_tools_and_delegates_is_read_as_one_without(ledger: Ledger) -> None:
    await ledger.requests.finish(finished())
    later = ("tool_calls", "delegates", "limit", "tainted")
    await ledger.database.write(lambda connection: connection.execute(requests.update().values(dict.fromkeys(later))))
    assert await ledger.requests.get("acme", "req_1") == finished()


async def test_finishing_stores_everything_or_nothing(ledger: Ledger) -> None:
    await ledger.vault.save("acme", "req_1", {"<EMAIL_1>": "ada@example.org"})
    naive = replace(finished(), finished_at=NOON.replace(tzinfo=None))
    with pytest.raises(Exception, match="aware"):
        await ledger.finish(naive, document="text", forget_vault=True)
    assert await ledger.requests.get("acme", "req_1") is None
    assert await ledger.vault.load("acme", "req_1")
    with pytest.raises(ContentMissing):
        await ledger.contents.get("acme", digest_of("text").reference)


async def test_a_request_that_keeps_its_vault_and_is_not_reusable_leaves_both_alone(ledger: Ledger) -> None:
    await ledger.vault.save("acme", "req_1", {"<EMAIL_1>": "ada@example.org"})
    stored = await ledger.finish(finished())
    assert stored.answer.document is None
    assert await ledger.vault.load("acme", "req_1")
    assert await ledger.answers.recall("acme", "v1", BODY, now=NOON) is None


def numbered(request_id: str, *, document: bool = True, **changes: Any) -> FinishedRequest:
    """A finished request of a session, with an input of its own."""
    one = replace(finished(request_id), input=ContentRef(sha256=digest_of(request_id).reference.sha256, size=4))
    answer = one.answer.model_copy(update={"document": ContentRef(sha256=OTHER_BODY, size=2) if document else None})
    return replace(one, answer=answer, **changes)


async def test_a_session_is_its_last_completed_requests_oldest_first(ledger: Ledger) -> None:
    for number in range(5):
        await ledger.requests.finish(numbered(f"req_{number}", finished_at=NOON + timedelta(minutes=number)))
    later = NOON + timedelta(hours=1)
    failed = numbered("req_failed", finished_at=later)
    failed = replace(failed, answer=failed.answer.model_copy(update={"status": Status.FAILED}))
    await ledger.requests.finish(failed)
    await ledger.requests.finish(numbered("req_bare", document=False, finished_at=later))
    await ledger.requests.finish(replace(numbered("req_mute", finished_at=later), input=None))
    others: list[dict[str, Any]] = [{"user": "grace"}, {"session": "chat-8"}, {"session": None}, {"tenant": "globex"}]
    for number, other in enumerate(others):
        await ledger.requests.finish(numbered(f"req_other_{number}", **other))
    session = await ledger.requests.of_session("acme", "ada", "chat-7", limit=3)
    assert [one.answer.request_id for one in session] == ["req_2", "req_3", "req_4"]
    assert session[0] == numbered("req_2", finished_at=NOON + timedelta(minutes=2))


async def test_the_very_same_input_finds_the_answer_and_the_document_that_was_delivered(ledger: Ledger) -> None:
    content = await ledger.contents.put("acme", "hello")
    reuse = Reuse(BODY, content, input_sha256=OTHER_BODY)
    stored = await ledger.finish(finished(), document='{"text":"hi"}', reuse=reuse)
    found = await ledger.answers.recall_input("acme", "v1", OTHER_BODY, now=NOON)
    assert found == ExactAnswer(content, None, "req_1", NOON, stored.answer.document)
    for key in (("globex", "v1", OTHER_BODY), ("acme", "v2", OTHER_BODY), ("acme", "v1", BODY)):
        assert await ledger.answers.recall_input(*key, now=NOON) is None
    assert await ledger.answers.recall_input("acme", "v1", OTHER_BODY, now=NOON + timedelta(hours=24)) is None


async def test_an_answer_without_its_document_is_not_found_by_its_input(ledger: Ledger) -> None:
    answer = ExactAnswer(ContentRef(sha256=BODY, size=3), None, "req_1")
    await ledger.answers.store("acme", "v1", BODY, answer, input_sha256=OTHER_BODY, now=NOON)
    assert await ledger.answers.recall("acme", "v1", BODY, now=NOON)
    assert await ledger.answers.recall_input("acme", "v1", OTHER_BODY, now=NOON) is None


async def test_a_popular_answer_dies_of_age_however_often_it_is_asked_for(ledger: Ledger) -> None:
    content = await ledger.contents.put("acme", "hello")
    await ledger.finish(finished(), document="{}", reuse=Reuse(BODY, content, input_sha256=OTHER_BODY))
    for hours in range(24):
        now = NOON + timedelta(hours=hours)
        assert await ledger.answers.recall("acme", "v1", BODY, now=now)
        assert await ledger.answers.recall_input("acme", "v1", OTHER_BODY, now=now)
    over = NOON + timedelta(hours=24)
    assert await ledger.answers.recall("acme", "v1", BODY, now=over) is None
    assert await ledger.answers.recall_input("acme", "v1", OTHER_BODY, now=over) is None


async def rows_of_answers(ledger: Ledger) -> int:
    counting = select(func.count()).select_from(answers)
    return await ledger.database.read(lambda reading: reading.execute(counting).scalar_one())


async def test_storing_the_same_question_again_and_again_keeps_one_row(ledger: Ledger) -> None:
    for number in range(5):
        answer = ExactAnswer(ContentRef(sha256=BODY, size=3), None, f"req_{number}")
        await ledger.answers.store("acme", "v1", BODY, answer, now=NOON)
    assert await rows_of_answers(ledger) == 1


async def test_answers_too_old_to_serve_are_deleted_as_new_ones_come_in(ledger: Ledger) -> None:
    answer = ExactAnswer(ContentRef(sha256=BODY, size=3), None, "req_1")
    for number in range(50):
        question = digest_of(f"question {number}").reference.sha256
        await ledger.answers.store("acme", "v1", question, answer, now=NOON + timedelta(hours=number))
    assert await rows_of_answers(ledger) == 24


async def test_forgetting_a_tenants_answers_begins_its_next_epoch_in_every_process(ledger: Ledger, url: str) -> None:
    other = await Ledger.open(url)
    assert await other.answers.epoch("acme") == 0
    for epoch in (1, 2):
        await ledger.answers.forget("acme")
        assert await other.answers.epoch("acme") == epoch
    assert await other.answers.epoch("globex") == 0
    await other.aclose()
