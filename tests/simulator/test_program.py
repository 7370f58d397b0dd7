"""Where behaviours come from: profile, script, header; determinism; limits; what is refused."""

import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulator.behaviour import CALL_FIELDS, BehaviourError, Kind
from simulator.program import Profile, ProfileError, Program
from simulator.rate_limits import RateLimit, go_duration
from simulator.server import Simulator
from tests.simulator.conftest import Ask


def content_of(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


async def test_the_same_request_gets_the_same_text_on_another_server(ask: Ask) -> None:
    first = content_of(await ask())
    async with Simulator(seed=7) as other, httpx.AsyncClient(base_url=other.url, trust_env=False) as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
        assert content_of(await client.post("/v1/chat/completions", json=body)) == first


async def test_model_messages_and_seed_each_change_the_text(ask: Ask) -> None:
    first = content_of(await ask())
    assert content_of(await ask(model="other")) != first
    assert content_of(await ask(messages=[{"role": "user", "content": "Hello!"}])) != first
    async with Simulator(seed=8) as other, httpx.AsyncClient(base_url=other.url, trust_env=False) as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
        assert content_of(await client.post("/v1/chat/completions", json=body)) != first


async def test_a_script_is_consumed_in_order_and_then_over(ask: Ask, client: httpx.AsyncClient) -> None:
    script = [{"kind": "error_500", "times": 2}, {"kind": "overloaded_503"}]
    queued = await client.post("/_simulator/script", json=script)
    assert queued.json() == {"queued": 3}
    assert [(await ask()).status_code for _ in range(4)] == [500, 500, 503, 200]


async def test_a_script_for_a_model_waits_for_that_model(ask: Ask, simulator: Simulator) -> None:
    simulator.script({"kind": "error_500", "model": "a"}, {"kind": "overloaded_503"})
    statuses = [(await ask(model=model)).status_code for model in ("b", "b", "a", "a")]
    assert statuses == [503, 200, 500, 200]


async def test_a_header_overrides_the_script_and_leaves_it_alone(ask: Ask, simulator: Simulator) -> None:
    simulator.script({"kind": "error_500"})
    assert (await ask({"kind": "overloaded_503"})).status_code == 503
    assert (await ask()).status_code == 500


def test_more_specific_sources_override_field_by_field() -> None:
    profile = Profile.read(
        {"default": {"first_token_ms": 5, "completion_tokens": 9}, "models": {"a": {"completion_tokens": 7}}}
    )
    program = Program(profile, seed=0)
    program.enqueue([{"kind": "truncated", "model": "a"}])
    behaviour = program.decide("a", None)
    assert (behaviour.kind, behaviour.first_token_ms, behaviour.completion_tokens) == (Kind.TRUNCATED, 5, 7)
    assert program.decide("b", {"first_token_ms": 1}).first_token_ms == 1


def test_random_faults_repeat_with_the_seed_and_spare_stated_kinds() -> None:
    profile = Profile.read({"default": {"fault_probability": 0.5, "fault_kind": "overloaded_503"}})
    program = Program(profile, seed=3)
    first = [program.decide("m", None).kind for _ in range(40)]
    program.reset()
    assert [program.decide("m", None).kind for _ in range(40)] == first
    assert set(first) == {Kind.OK, Kind.OVERLOADED_503}
    assert {program.decide("m", {"kind": "ok"}).kind for _ in range(40)} == {Kind.OK}
    assert [Program(profile, seed=4).decide("m", None).kind for _ in range(40)] != first


@pytest.mark.parametrize(
    ("given", "field", "accepted"),
    [
        ({"kind": "explode"}, "kind", "disconnect_mid_stream"),
        ({"latency": 3}, "latency", "first_token_ms"),
        ({"token_ms": -1}, "token_ms", "a number from 0"),
        ({"token_ms": "1"}, "token_ms", "a number from 0"),
        ({"completion_tokens": 0}, "completion_tokens", "an integer from 1"),
        ({"bill_on_error": 1}, "bill_on_error", "true or false"),
        ({"retry_after_format": "days"}, "retry_after_format", "http_date"),
        ({"tool_calls": [{}]}, "tool_calls", "arguments"),
        ({"fault_probability": 0.1}, "fault_probability", "kind"),
    ],
)
async def test_an_unknown_behaviour_is_refused_with_the_field_and_what_it_accepts(
    ask: Ask, client: httpx.AsyncClient, simulator: Simulator, given: dict[str, Any], field: str, accepted: str
) -> None:
    by_script = await client.post("/_simulator/script", json=[{"kind": "ok"}, given])
    for response in (await ask(given), by_script):
        assert response.status_code == 422
        assert response.json()["error"]["param"] == field
        assert accepted in response.json()["error"]["message"]
    with pytest.raises(BehaviourError):
        simulator.script(given)
    assert simulator.bill(entries=False)["requests"] == 0


@pytest.mark.parametrize("body", [b"{", b"{}", b"[3]"])
async def test_a_script_that_is_no_list_of_behaviours_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await client.post("/_simulator/script", content=body)).status_code == 422


async def test_a_header_that_is_not_json_is_refused(client: httpx.AsyncClient) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    response = await client.post("/v1/chat/completions", json=body, headers={"X-Simulate": "slow"})
    assert response.status_code == 422
    assert "X-Simulate" in response.json()["error"]["message"]


def test_every_field_of_a_behaviour_can_be_set() -> None:
    from_profile = Profile.read({"default": {"kind": "ok"}}).default.behaviour
    assert set(CALL_FIELDS) == set(vars(from_profile))


def test_a_profile_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "slow.toml"
    path.write_text('[default]\ntoken_ms = 3\n[models."gpt-x"]\nrequests_per_minute = 60\n')
    profile = Profile.load(path)
    assert profile.of("gpt-x").requests_per_minute == 60
    assert profile.of("gpt-x").behaviour.token_ms == 3
    assert profile.of("other").requests_per_minute is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[default]\nkind = 'x'\n", "default.kind"),
        ("[models.a]\nfault_probability = 2\n", "models.a.fault_probability"),
        ("[defaults]\n", "defaults"),
        ("models = 3\n", "models"),
        ("[default\n", "not TOML"),
    ],
)
def test_a_wrong_profile_names_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"wrong\.toml") as caught:
        Profile.load(path)
    assert named in str(caught.value)


def test_a_missing_profile_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.toml"):
        Profile.load(tmp_path / "none.toml")


async def test_requests_per_minute_refuse_the_next_request_and_bill_nothing_for_it() -> None:
    profile = Profile.read({"models": {"m": {"requests_per_minute": 2}}})
    async with (
        Simulator(profile=profile) as simulator,
        httpx.AsyncClient(base_url=simulator.url, trust_env=False) as client,
    ):
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        responses = [await client.post("/v1/chat/completions", json=body) for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        assert responses[0].headers["x-ratelimit-limit-requests"] == "2"
        assert responses[0].headers["x-ratelimit-remaining-requests"] == "1"
        assert responses[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(responses[2].headers["retry-after"]) <= 30
        assert 1 <= int(responses[2].headers["retry-after-ms"]) <= 30_000
        assert simulator.bill(entries=False)["requests"] == 2
        assert (await client.post("/v1/chat/completions", json=body | {"model": "free"})).status_code == 200
        simulator.reset()
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        listed = (await client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["m"]


def test_a_token_limit_refills_continuously_and_charges_all_or_nothing() -> None:
    now = 0.0
    limit = RateLimit(10, 600, clock=lambda: now)
    assert limit.take(600) is None
    refusal = limit.take(100)
    assert refusal is not None
    assert (refusal.dimension, refusal.retry_after) == ("tokens", 10.0)
    assert limit.report().requests.remaining == 9
    assert limit.report().tokens.reset == 60
    now = 10.0
    assert limit.take(100) is None
    too_large = limit.take(601)
    assert too_large is not None
    assert too_large.retry_after is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.012, "12ms"), (0.0001, "1ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s"), (3600.5, "1h0m0.5s")],
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


def test_the_programs_draws_are_its_own() -> None:
    random.seed(1)
    state = random.getstate()
    Program(Profile(), seed=0).decide("m", None)
    assert random.getstate() == state
