"""The traps of the best gateways' caches, each as a test that it does not catch us."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select

from gateway.edge_answers import EdgeAnswers
from gateway.submission import digest
from holdfast.configuration import Configuration, load_configuration, reference
from holdfast.contracts import Answer, AnswerDocument, GenerateInput, Limits, SpendScopes, Status
from holdfast.errors import ContentMissing
from holdfast.ledger import ExactAnswer, FinishedRequest, Ledger, Reuse
from holdfast.ledger.schema import answers as answers_table
from holdfast.ledger.schema import metadata
from holdfast.preparation import ConnectedDeployment, Preparation
from holdfast.prices import Prices
from holdfast.providers import Extractive, ModelCall
from tests.gateway.recorded import Edge, opened

QUESTION = "May I open the valve?"
DAY = timedelta(hours=24)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
PREAMBLE = "You answer for the harbour office. " * 400
"""A system prompt far longer than any question."""

_numbers = itertools.count(1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where the ledger is."""
    return f"sqlite+aiosqlite:///{tmp_path}/holdfast.db"


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    """An empty ledger."""
    ledger = await Ledger.open(url)
    yield ledger
    await ledger.aclose()


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    """Two personas over the same model, behind the same long preamble."""
    config = tmp_path / "config"
    for name in ("agents", "prompts", "schemas"):
        (config / name).mkdir(parents=True)
    (config / "models.toml").write_text('[deployments.extractive]\nprovider = "extractive"\nmodel = "extractive-1"\n')
    for name, persona in (("engineer", "Be exact."), ("comedian", "Be funny.")):
        (config / "prompts" / f"{name}.md").write_text(PREAMBLE + persona)
        (config / "agents" / f"{name}.toml").write_text(f'deployments = ["extractive"]\nprompt = "{name}.md"\n')
    return load_configuration(config)


async def kept(ledger: Ledger, text: str = "No.", *, tenant: str = "acme") -> ExactAnswer:
    """An answer that may be stored for reuse."""
    return ExactAnswer(await ledger.contents.put(tenant, text), None, f"req_{next(_numbers):08}")


async def delivered(
    ledger: Ledger, version: str, question: str = QUESTION, text: str = "No.", *, tenant: str = "local"
) -> None:
    """Leave what a completed request leaves."""
    content = await ledger.contents.put(tenant, text)
    asked = reference(question)
    now = datetime.now(UTC)
    await ledger.finish(
        FinishedRequest(
            tenant=tenant,
            user="ada",
            agent="engineer",
            plan_version=version,
            submitted_at=now,
            finished_at=now,
            answer=Answer(request_id=f"req_{next(_numbers):08}", status=Status.COMPLETED),
            input=asked,
        ),
        document=AnswerDocument(text=text).model_dump_json(),
        reuse=Reuse(asked.sha256, content, input_sha256=asked.sha256),
    )


async def rows(ledger: Ledger) -> int:
    """Rows of the table of exact answers."""
    counted = select(func.count()).select_from(answers_table)
    return await ledger.database.read(lambda connection: int(connection.execute(counted).scalar_one()))


async def test_trap_1_a_question_has_one_row_however_often_and_from_wherever_it_is_stored(
    ledger: Ledger, url: str
) -> None:
    """Trap 1: LiteLLM's Qdrant cache gives every answer a random id, so the same question piles up."""
    other = await Ledger.open(url)
    masked = reference(QUESTION).sha256
    storing = [
        at.answers.store("acme", "v1", masked, await kept(at, f"No, {number}."), now=NOON)
        for number in range(10)
        for at in (ledger, other)
    ]
    await asyncio.gather(*storing)
    assert await rows(ledger) == 1
    await other.aclose()


async def test_trap_1_answers_that_are_too_old_to_serve_are_deleted(ledger: Ledger) -> None:
    """Trap 1: that cache has no lifetime at all; here what can no longer serve leaves as new answers come."""
    for number in range(20):
        masked = reference(f"Question {number}").sha256
        await ledger.answers.store("acme", "v1", masked, await kept(ledger), now=NOON)
    await ledger.answers.store("acme", "v1", reference("Another").sha256, await kept(ledger), now=NOON + DAY)
    assert await rows(ledger) == 1


async def test_trap_1_a_long_system_prompt_makes_no_two_questions_alike(
    configuration: Configuration, ledger: Ledger
) -> None:
    """Trap 1: that cache embeds system prompt, user and history as one text, in which a question hardly counts."""
    async with opened(configuration, ledger) as edge:
        await delivered(ledger, configuration.agents["engineer"].plan.version)
        assert await served(edge, "engineer", QUESTION)
        assert not await served(edge, "engineer", "May I open the valves?")
        assert not await served(edge, "engineer", f"{QUESTION} ")


async def test_trap_2_a_hit_renews_nothing(ledger: Ledger) -> None:
    """Trap 2: RedisVL renews an entry with every hit, so a poisoned answer that is popular never dies."""
    masked = reference(QUESTION).sha256
    await ledger.answers.store("acme", "v1", masked, await kept(ledger, "Of course!"), now=NOON)
    for hour in range(24):
        assert await ledger.answers.recall("acme", "v1", masked, now=NOON + timedelta(hours=hour)) is not None
    assert await ledger.answers.recall("acme", "v1", masked, now=NOON + DAY) is None


async def test_trap_2_nor_does_a_hit_at_the_edge(ledger: Ledger) -> None:
    """Trap 2: the copy in a gateway's memory dies with the answer it was made from, however often it is asked for."""
    await delivered(ledger, "v1")
    key = ("local", "v1", reference(QUESTION).sha256)
    edge = EdgeAnswers(ledger, DAY)
    born = (await ledger.answers.recall_input(*key) or pytest.fail("not stored")).created_at
    hits = [await edge.find(*key) for _ in range(50)]
    assert {hit.expires_at for hit in hits if hit is not None} == {born + DAY if born else None}
    assert None not in hits


async def test_trap_3_two_personas_never_share_an_answer(configuration: Configuration, ledger: Ledger) -> None:
    """Trap 3: GPTCache leaves `system` out of its key by default, so an engineer is given a comedian's answer."""
    engineer, comedian = (configuration.agents[name].plan for name in ("engineer", "comedian"))
    assert engineer.version != comedian.version
    async with opened(configuration, ledger) as edge:
        await delivered(ledger, comedian.version, text="Only on Sundays!")
        assert not await served(edge, "engineer", QUESTION)
        assert await served(edge, "comedian", QUESTION)
    assert await ledger.answers.recall("local", engineer.version, reference(QUESTION).sha256) is None


async def test_trap_3_what_was_said_before_is_part_of_the_question(
    configuration: Configuration, ledger: Ledger
) -> None:
    """Trap 3: it leaves `assistant` out too, so the same last words after another talk get the same answer."""
    async with opened(configuration, ledger) as edge:
        await delivered(ledger, configuration.agents["engineer"].plan.version)
        talk = [
            {"role": "user", "content": "The tank is full."},
            {"role": "assistant", "content": "Then keep it shut."},
            {"role": "user", "content": QUESTION},
        ]
        asking = asyncio.ensure_future(
            edge.http.post("/v1/chat/completions", json={"model": "engineer", "messages": talk})
        )
        async with asyncio.timeout(120):
            while not edge.engine.submitted and not asking.done():  # noqa: ASYNC110 - the double has no event
                await asyncio.sleep(0.01)
        assert [request.input for request in edge.engine.submitted] == [reference(QUESTION)]
        assert edge.engine.submitted[0].conversation is not None
        asking.cancel()


async def test_trap_4_a_tenants_answer_serves_nobody_else(configuration: Configuration, ledger: Ledger) -> None:
    """Trap 4: the open-source Portkey keys its cache by body and URL, without credential or tenant."""
    async with opened(configuration, ledger, api_keys="ka=acme/ann,ko=other/olga") as edge:
        await delivered(ledger, configuration.agents["engineer"].plan.version, tenant="acme")
        assert await served(edge, "engineer", QUESTION, key="ka")
        assert not await served(edge, "engineer", QUESTION, key="ko")
        assert await served(edge, "engineer", QUESTION, key="ka"), "and asking has taken nothing from its owner"
    key = (configuration.agents["engineer"].plan.version, reference(QUESTION).sha256)
    for look_up in (ledger.answers.recall, ledger.answers.recall_input):
        assert await look_up("acme", *key) is not None
        assert await look_up("other", *key) is None


async def test_trap_4_what_a_gateway_keeps_in_memory_is_bounded(ledger: Ledger) -> None:
    """Trap 4: that cache is an object in memory that only grows."""
    text = "a word or two " * 700
    for number in range(40):
        await delivered(ledger, "v1", f"Question {number}", text)
    edge = EdgeAnswers(ledger, DAY, max_bytes=10 * (3 * len(text) + 3_000))
    keys = [("local", "v1", reference(f"Question {number}").sha256) for number in range(40)]
    for key in keys:
        assert await edge.find(*key) is not None
    await ledger.database.write(lambda connection: connection.execute(delete(answers_table)))
    in_memory = [await edge.find(*key) is not None for key in keys]
    assert sum(in_memory) == 10
    assert all(in_memory[-10:]), "the latest stay"


def test_trap_5_every_stored_text_and_answer_is_keyed_by_its_tenant() -> None:
    """Trap 5: TensorZero's cache is keyed by model, provider and request: a second tenant is answered from the first's.

    Here the tenant leads the key of everything that can be looked up by what it contains; the tables that are keyed
    otherwise hold no text, or are looked up by an id that only its owner's request has.
    """
    by_own_id = {
        "schema_version",
        *("attempts", "batch_lines", "budget_extensions", "deliveries"),  # by request and attempt, or by their own id
        *("budgets", "budget_counters"),  # by an id drawn from tenant and scope
        "browser_sessions",  # by the digest of what one browser holds
    }
    without = {table.name for table in metadata.sorted_tables if "tenant" not in table.primary_key.columns}
    assert without == by_own_id


async def test_trap_5_identical_content_of_two_tenants_is_kept_twice(ledger: Ledger) -> None:
    """Trap 5: a digest says nothing about whose the text is."""
    ours = await ledger.contents.put("acme", "A secret.")
    with pytest.raises(ContentMissing, match="tenant 'other'"):
        await ledger.contents.get("other", ours)
    assert await ledger.contents.put("other", "A secret.") == ours


async def test_trap_5_nor_do_tenants_share_a_prompt_cache_at_the_provider(ledger: Ledger) -> None:
    """Trap 5: the key that groups calls at the provider, and the tag of the end user, differ by tenant too."""
    calls = [await prepared(ledger, tenant) for tenant in ("acme", "other")]
    for named in ("cache_key", "user_tag", "tenant_tag"):
        assert len({getattr(call, named) for call in calls}) == 2, named
    again = await prepared(ledger, "acme")
    assert (again.cache_key, again.user_tag) == (calls[0].cache_key, calls[0].user_tag)


async def test_trap_5_an_idempotency_key_of_one_tenant_means_nothing_to_another(ledger: Ledger) -> None:
    """Trap 5: the same key and body from two tenants are two requests."""
    body = digest({"agent": "engineer", "input": QUESTION})
    for tenant in ("acme", "other"):
        claim = await ledger.submissions.claim(tenant, "key-1", body_sha256=body, request_id=f"req_0000{tenant}")
        assert (claim.created, claim.request_id) == (True, f"req_0000{tenant}")


async def prepared(ledger: Ledger, tenant: str) -> ModelCall:
    """The same call, made for a tenant."""
    text = await ledger.contents.put(tenant, QUESTION)
    given = GenerateInput(
        request_id="req_00000001",
        tenant=tenant,
        deployment="d",
        turn=1,
        question=text,
        instructions=text,
        limits=Limits(),
        scopes=SpendScopes(tenant=tenant, user="ada"),
        agent="engineer",
    )
    return await Preparation(ledger, Prices()).prepare(given, ConnectedDeployment("d", Extractive(), "openai", "m"))


async def served(edge: Edge, agent: str, question: str, *, key: str = "") -> bool:
    """Whether a question is answered from what is stored, rather than by a run."""
    started = len(edge.engine.submitted)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    reply = await edge.http.post("/v1/requests", json={"agent": agent, "input": question}, headers=headers)
    assert reply.status_code in (200, 202), reply.text
    assert (reply.status_code == 202) == (len(edge.engine.submitted) > started)
    return reply.status_code == 200
