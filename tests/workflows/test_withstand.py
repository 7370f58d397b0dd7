"""A primary that misbehaves: the fallback takes over in time, no text is shown twice, and the books cover the bill."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from gateway.app import create_app
from gateway.server import base_url, serving
from holdfast.breaker import BreakerPolicy
from holdfast.errors import Outcome
from holdfast.health import Health, MemoryHealth
from holdfast.ledger import AttemptState
from tests.gateway.streams import Event, events_of
from tests.house import PATIENCE_SECONDS, House, open_house
from tests.workflows.holding import replies_held

MODELS = """
[deployments.primary]
provider = "openai"
model = "sim-primary"
base_url = "%(url)s/v1"
price = { input = "1", output = "3" }
timeouts = { first_token = "1s", between_tokens = "1s" }

[deployments.backup]
provider = "openai"
model = "sim-backup"
base_url = "%(url)s/v1"
price = { input = "2", output = "6" }
"""

AGENTS = {
    "held-up": 'deployments = ["primary", "backup"]\nprompt = "plain.md"\nrecall = false\n',
    "fastest": 'deployments = ["primary", "backup"]\nprompt = "plain.md"\nrecall = false\nrouting = "fastest"\n',
    "only-primary": 'deployments = ["primary"]\nprompt = "plain.md"\nrecall = false\n',
    "only-backup": 'deployments = ["backup"]\nprompt = "plain.md"\nrecall = false\n',
}

ANSWER = "The anchor holds the ship, and the chain holds the anchor."
OTHER = "A ship is held by its anchor."

FAULTS: dict[str, dict[str, Any]] = {
    "hangs": {"kind": "hang"},
    "throttles": {"kind": "rate_limited", "retry_after": 30},
    "dies mid-stream": {"kind": "disconnect_mid_stream", "after_tokens": 4, "content": ANSWER, "token_ms": 20},
    "hangs mid-stream": {"kind": "hang_mid_stream", "after_tokens": 4, "content": ANSWER, "token_ms": 20},
    "errs mid-stream": {"kind": "error_mid_stream", "after_tokens": 4, "content": ANSWER, "token_ms": 20},
    "answers HTML": {"kind": "html_200"},
    "is overloaded": {"kind": "overloaded_529"},
    "fails and bills": {"kind": "error_500", "bill_on_error": True},
}

LIMITS = {"deadline": "2m"}


@dataclass
class Front:
    """A house with its door on a port, so that streams come as they are written."""

    house: House
    http: httpx.AsyncClient

    async def follow(self, request_id: str) -> list[Event]:
        """Everything that happens to a request."""
        async with self.http.stream("GET", f"/v1/requests/{request_id}/events", timeout=90) as reply:
            assert reply.status_code == 200
            return [event async for event in events_of(reply)]

    async def chat(self, agent: str, question: str) -> tuple[str, dict[str, Any] | None]:
        """The text of a streamed chat completion, and the error that it ended with, if it did."""
        body = {"model": agent, "messages": [{"role": "user", "content": question}], "stream": True}
        text, error = "", None
        async with self.http.stream("POST", "/v1/chat/completions", json=body, timeout=90) as reply:
            assert reply.status_code == 200, await reply.aread()
            async for line in reply.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                error = chunk.get("error", error)
                for choice in chunk.get("choices", ()):
                    text += choice["delta"].get("content") or ""
        return text, error

    def called(self) -> list[str]:
        """The models that were called, in order."""
        return [call["model"] for call in self.house.simulator.calls()]


@asynccontextmanager
async def front_of(
    directory: Path, client: Client, health: Health | None = None, models: str = MODELS
) -> AsyncIterator[Front]:
    async with open_house(directory, client, agents=AGENTS, models=models, sandbox=False, health=health) as house:
        app = create_app(
            house.settings, house.configuration, house.services.ledger, house.engine, relay=house.services.relay
        )
        async with (
            serving(app, "127.0.0.1", 0) as port,
            httpx.AsyncClient(base_url=base_url("127.0.0.1", port)) as http,
        ):
            yield Front(house, http)


@pytest.fixture(scope="module")
async def shared_front(temporal_client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    """The module's house."""
    async with front_of(tmp_path_factory.mktemp("front"), temporal_client) as opened:
        yield opened


@pytest.fixture
def front(shared_front: Front) -> Front:
    """A house whose primary nobody knows anything of yet."""
    shared_front.house.reset()
    return shared_front


def shown(events: list[Event]) -> list[str]:
    """What a client that obeys every event had on its screen, after each event that changed it."""
    screens = [""]
    for event in events:
        if event.kind == "restart":
            screens.append("")
        elif event.kind == "text":
            screens.append(screens[-1] + event.data["text"])
    return screens


async def books_cover_the_bill(house: House, request_id: str) -> None:
    """Call by call: at least what was billed, and exactly that where the provider said what it was."""
    bill = {entry["client_request_id"]: entry for entry in house.simulator.bill()["entries"]}
    recorded = {attempt.attempt_id: attempt for attempt in await house.services.ledger.attempts.list(request_id)}
    ours = {name: entry for name, entry in bill.items() if name.startswith(f"{request_id}.")}
    assert set(ours) <= set(recorded)
    for name, attempt in recorded.items():
        entry = ours.get(name, {"prompt_tokens": 0, "completion_tokens": 0})
        billed = entry["prompt_tokens"] + entry["completion_tokens"]
        assert attempt.usage.total_tokens >= billed, f"{name} ended as {attempt.outcome}"
        if attempt.outcome is Outcome.OK or attempt.state is AttemptState.RELEASED:
            assert attempt.usage.total_tokens == billed, f"{name} ended as {attempt.outcome}"


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_fallback_takes_over_in_time_and_a_follower_sees_its_text_once(front: Front, fault: str) -> None:
    front.house.simulator.script(
        FAULTS[fault] | {"model": "sim-primary", "times": 20},
        {"kind": "ok", "content": ANSWER, "token_ms": 10, "model": "sim-backup"},
    )
    request = await front.house.submit("held-up", "What holds a ship?", limits=LIMITS)
    events = await front.follow(request["id"])
    done = events[-1]
    assert (done.kind, done.data["status"]) == ("done", "completed"), done.data
    assert (done.data["deployment"], done.data["answer"]["text"]) == ("backup", ANSWER)
    assert front.called()[0] == "sim-primary"
    assert front.called().count("sim-backup") == 1
    screens = shown(events)
    assert screens[-1] == ANSWER
    assert all(ANSWER.startswith(screen) for screen in screens), "nothing twice, nothing mixed"
    await books_cover_the_bill(front.house, request["id"])


@pytest.mark.parametrize("fault", ["hangs", "dies mid-stream", "answers HTML"])
async def test_a_chat_client_reads_the_answer_once_although_its_author_changed(front: Front, fault: str) -> None:
    front.house.simulator.script(
        FAULTS[fault] | {"model": "sim-primary", "times": 20},
        {"kind": "ok", "content": ANSWER, "token_ms": 10, "model": "sim-backup"},
    )
    assert await front.chat("held-up", "What holds a ship?") == (ANSWER, None)
    assert front.called().count("sim-backup") == 1


async def test_a_chat_client_is_told_when_another_author_begins_another_text(front: Front) -> None:
    front.house.simulator.script(
        FAULTS["dies mid-stream"] | {"model": "sim-primary", "times": 20},
        {"kind": "ok", "content": OTHER, "token_ms": 10, "model": "sim-backup"},
    )
    text, error = await front.chat("held-up", "What holds a ship?")
    assert error is not None
    assert text
    assert ANSWER.startswith(text), "nothing of the second text is mixed into the first"


class Steady(MemoryHealth):
    """Takes each key for as slow as it is said to be, however slow this machine makes its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.pace: dict[str, timedelta] = {}
        """The time to the first token, by key."""

    async def record(self, key: str, outcome: Outcome, **measured: Any) -> None:
        if measured["first_token"] is not None:
            pace = self.pace[key]
            measured |= {"first_token": pace, "duration": pace + timedelta(milliseconds=100)}
        await super().record(key, outcome, **measured)


async def test_of_two_deployments_the_one_that_has_become_half_as_slow_again_is_left(
    tmp_path: Path, temporal_client: Client
) -> None:
    health = Steady()
    async with front_of(tmp_path, temporal_client, health) as front:
        deployments = front.house.configuration.deployments
        keys = {f"sim-{name}": deployments[name].health_key for name in ("primary", "backup")}
        usual_pace = timedelta(milliseconds=250)

        async def called_by(agent: str, calls: int) -> list[str]:
            before = len(front.called())
            for number in range(calls):
                reply = await front.house.ask(agent, f"Question {before + number}", limits={"output_tokens": 30})
                assert reply["status"] == "completed"
            return front.called()[before:]

        health.pace = dict.fromkeys(keys.values(), usual_pace)
        await called_by("only-primary", 3)
        await called_by("only-backup", 3)
        usual = (await called_by("fastest", 1))[-1]
        (other,) = keys.keys() - {usual}
        health.pace[keys[usual]] = usual_pace * 1.5
        # One in fifty may look whether it is still slow.
        assert (await called_by("fastest", 16))[-10:].count(other) > 5


async def test_after_an_outage_exactly_one_probe_goes_first(tmp_path: Path, temporal_client: Client) -> None:
    policy = BreakerPolicy(minimum_calls=3, open_for=timedelta(seconds=1), open_at_most=timedelta(seconds=1))
    now = datetime.now(UTC)
    health = MemoryHealth(policy, clock=lambda: now)
    patient = MODELS.replace('first_token = "1s", between_tokens = "1s"', 'first_token = "2m", between_tokens = "2m"')
    async with front_of(tmp_path, temporal_client, health, patient) as front:
        house, key = front.house, front.house.configuration.deployments["primary"].health_key
        house.simulator.script({"kind": "overloaded_529", "model": "sim-primary", "times": 100})
        await house.ask("held-up", "Who answers?", limits=LIMITS)
        assert (await health.look([key]))[key].state == "open"
        house.simulator.clear_script()
        house.simulator.script({"kind": "ok", "first_token_ms": 1, "model": "sim-primary"})
        now += policy.open_for
        assert (await health.look([key]))[key].state != "open"
        before = len(front.called())
        with replies_held():
            asked = [asyncio.create_task(house.ask("held-up", f"Question {n}", limits=LIMITS)) for n in range(20)]
            async with asyncio.timeout(PATIENCE_SECONDS):
                while sum(task.done() for task in asked) < 19:  # noqa: ASYNC110 - all but the one that probes
                    await asyncio.sleep(0.05)
        replies = await asyncio.gather(*asked)
        assert {reply["status"] for reply in replies} == {"completed"}
        calls = house.simulator.calls()[before:]
        probe, *others = [call for call in calls if call["model"] == "sim-primary"]
        [answered] = [reply for reply in replies if reply["id"] in probe["client_request_id"]]
        assert answered["deployment"] == "primary"
        finished = next(attempt.settled_at for attempt in await house.services.ledger.attempts.list(answered["id"]))
        assert finished is not None
        assert all(other["arrived_at"] > finished.isoformat(timespec="microseconds") for other in others)
        assert len(calls) - 1 - len(others) == 19, "the others went to the fallback meanwhile"
        for reply in replies:
            await books_cover_the_bill(house, reply["id"])
