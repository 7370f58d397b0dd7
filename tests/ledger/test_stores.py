"""Vault, submissions, exact answers, final rows, and the transaction that ends a request."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from holdfast.contracts import Answer, ContentRef, FinishReason, Limits, Status, Usage
from holdfast.errors import ContentMissing, IdempotencyConflict, InvalidInput, Outcome
from holdfast.ledger import AttemptKey, Claim, Contents, ExactAnswer, FinishedRequest, Ledger, Opened, Reuse
from holdfast.ledger.contents import digest_of

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
    assert recalled == ExactAnswer(content, None, "req_1", NOON)
    assert await ledger.vault.load("acme", "req_1") == {}
    assert await ledger.finish(finished(at=NOON + timedelta(hours=1)), document="other") == stored


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
