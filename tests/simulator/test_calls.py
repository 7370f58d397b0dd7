"""Failing and recovering on demand, and reading who called when: scripts by model, key and time; the log of calls."""

from datetime import datetime
from hashlib import sha256

import httpx
import pytest

from simulator.behaviour import Kind
from simulator.calls import credential_digest
from simulator.program import REALISTIC, Profile, Program
from simulator.server import Simulator
from tests.simulator.conftest import Ask

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}


async def called(client: httpx.AsyncClient, *, key: str | None = None, model: str = "m") -> int:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return (await client.post("/v1/chat/completions", json=BODY | {"model": model}, headers=headers)).status_code


async def test_calls_that_are_turned_away_are_logged_in_order_with_their_key(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.script({"kind": "rate_limited", "times": 2})
    assert [await called(client, key=key) for key in ("key-a", "key-b", "key-a")] == [429, 429, 200]
    calls = (await client.get("/_simulator/calls")).json()["calls"]
    assert calls == simulator.calls()
    assert [call["status"] for call in calls] == [429, 429, 200]
    a, b = (sha256(key.encode()).hexdigest()[:12] for key in ("key-a", "key-b"))
    assert [call["credential"] for call in calls] == [a, b, a]
    assert "key-a" not in str(calls)
    [entry] = simulator.bill()["entries"]
    assert (entry["id"], entry["credential"]) == (calls[2]["bill_id"], credential_digest("key-a"))
    arrivals = [datetime.fromisoformat(call["arrived_at"]) for call in calls]
    assert arrivals == sorted(arrivals)
    assert arrivals[2] <= datetime.fromisoformat(entry["accepted_at"])


async def test_the_log_can_be_read_for_one_model(client: httpx.AsyncClient, simulator: Simulator) -> None:
    for model in ("a", "b", "a"):
        await called(client, model=model)
    calls = (await client.get("/_simulator/calls", params={"model": "a"})).json()["calls"]
    assert [call["model"] for call in calls] == ["a", "a"]
    assert len(simulator.calls("b")) == 1


async def test_both_headers_name_the_key(tell: Ask, client: httpx.AsyncClient, simulator: Simulator) -> None:
    await called(client, key="one")
    body = BODY | {"max_tokens": 9}
    await client.post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01", "x-api-key": "one"})
    assert [call["credential"] for call in simulator.calls()] == [credential_digest("one")] * 2


async def test_a_script_may_wait_for_a_key(client: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.script({"kind": "overloaded_503", "api_key": "bad", "times": 2})
    assert [await called(client, key=key) for key in ("good", "bad", None, "bad", "bad")] == [200, 503, 200, 503, 200]


async def test_a_model_recovers_when_its_script_is_cleared(client: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.script({"kind": "error_500", "model": "a", "times": 1000}, {"kind": "error_502", "model": "b"})
    assert await called(client, model="a") == 500
    cleared = await client.delete("/_simulator/script", params={"model": "a"})
    assert cleared.json() == {"queued": 1}
    assert [await called(client, model=model) for model in ("a", "b")] == [200, 502]
    simulator.script({"kind": "error_500", "times": 5})
    assert (await client.delete("/_simulator/script")).json() == {"queued": 0}
    assert await called(client) == 200
    simulator.script({"kind": "error_500", "times": 5})
    simulator.clear_script()
    assert await called(client) == 200


def test_a_script_for_some_time_applies_to_every_call_until_it_is_over() -> None:
    now = 100.0
    program = Program(Profile(), seed=0, clock=lambda: now)
    assert program.enqueue([{"kind": "hang", "for_ms": 2000}, {"kind": "error_500"}]) == 1
    assert [program.decide("m", None).kind for _ in range(3)] == [Kind.HANG] * 3
    now = 102.0
    assert [program.decide("m", None).kind for _ in range(2)] == [Kind.ERROR_500, Kind.OK]


def test_latencies_can_be_multiplied() -> None:
    program = Program(Profile.read({"default": {"first_token_ms": 100}}), seed=0)
    program.enqueue([{"latency_factor": 1.5}])
    behaviour = program.decide("m", None)
    assert (behaviour.first_token_ms, behaviour.latency_factor) == (100, 1.5)


async def test_a_slower_model_says_the_same(ask: Ask) -> None:
    slow = {"first_token_ms": 1, "first_token_sigma": 0.5, "token_ms": 0.1, "latency_factor": 2}
    assert (await ask(slow)).json()["choices"] == (await ask()).json()["choices"]


def test_faults_of_several_kinds_repeat_with_the_seed_whatever_other_models_do() -> None:
    profile = Profile.read(
        {"default": {"fault_probability": 0.5, "fault_kinds": {"hang": 1, "error_500": 3, "error_502": 0}}}
    )
    program, other = Program(profile, seed=3), Program(profile, seed=3)
    kinds = [program.decide("m", None).kind for _ in range(400)]
    interleaved = []
    for _ in range(400):
        other.decide("another", None)
        interleaved.append(other.decide("m", None).kind)
    assert interleaved == kinds
    assert set(kinds) == {Kind.OK, Kind.HANG, Kind.ERROR_500}
    assert kinds.count(Kind.ERROR_500) > 2 * kinds.count(Kind.HANG) > 0


def test_a_list_of_kinds_weighs_them_alike() -> None:
    profile = Profile.read({"default": {"fault_probability": 1, "fault_kinds": ["hang", "error_500"]}})
    program = Program(profile, seed=1)
    kinds = [program.decide("m", None).kind for _ in range(200)]
    assert 60 < kinds.count(Kind.HANG) < 140


def test_the_realistic_profile_is_one_fault_in_a_hundred_with_limits_and_prices() -> None:
    profile = Profile.load(REALISTIC)
    program = Program(profile, seed=1)
    faults = sum(program.decide("sim-large", None).kind is not Kind.OK for _ in range(20_000))
    assert 100 < faults < 300
    for model in profile.models.values():
        assert model.requests_per_minute
        assert model.tokens_per_minute
        assert model.price
        assert model.behaviour.first_token_sigma > 0


async def test_an_unreachable_simulator_refuses_connections_and_comes_back_with_its_bill() -> None:
    async with Simulator() as simulator:
        async with httpx.AsyncClient(base_url=simulator.url, trust_env=False) as client:
            assert await called(client) == 200
            async with simulator.unreachable():
                with pytest.raises(httpx.TransportError):
                    await called(client)
                with pytest.raises(httpx.ConnectError):
                    await called(client)
            assert await called(client) == 200
        assert simulator.bill(entries=False)["requests"] == 2
