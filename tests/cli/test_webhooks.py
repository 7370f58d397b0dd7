"""`webhooks` on a ledger of its own, with a real engine to send again."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from cli.main import execute
from cli.temporal_server import TemporalServer
from holdfast.contracts import NotifyRun
from holdfast.ledger import Delivery, DeliveryState, Ledger

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def ledger_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger that the verbs find through their settings."""
    url = f"sqlite+aiosqlite:///{tmp_path}/books.db"
    monkeypatch.setenv("HOLDFAST_LEDGER__URL", url)
    return url


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[Ledger]:
    """The same ledger: one notification dead, one sent, one pending, and one of another tenant dead."""
    opened = await Ledger.open(ledger_url)
    made = [
        Delivery(
            id=f"msg_{number}",
            tenant="globex" if number == 4 else "acme",
            request_id=f"req_0000000{number}",
            target="webhook:ops",
            event="request.completed",
            payload='{"data": {"agent": "buyer"}}',
            created_at=NOW + timedelta(minutes=number),
        )
        for number in (1, 2, 3, 4)
    ]
    await opened.database.write(lambda connection: opened.deliveries.add_in(connection, made))
    for number, tenant, state in ((1, "acme", "dead"), (2, "acme", "sent"), (4, "globex", "dead")):
        problem = "HTTP 500" if state == "dead" else None
        await opened.deliveries.tried(tenant, f"msg_{number}", DeliveryState(state), NOW, problem=problem)
    yield opened
    await opened.aclose()


@pytest.fixture
def queue(temporal_server: TemporalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine that the verbs find, and a queue of it that no worker serves."""
    monkeypatch.setenv("HOLDFAST_ENGINE__ADDRESS", temporal_server.address)
    monkeypatch.setenv("HOLDFAST_ENGINE__NAMESPACE", temporal_server.namespace)
    monkeypatch.setenv("HOLDFAST_ENGINE__TASK_QUEUE", tmp_path.name)
    return tmp_path.name


async def run(*words: str) -> int:
    """Run a verb beside the test's own event loop."""
    return await asyncio.to_thread(execute, ["webhooks", *words])


def ids(written: str) -> list[str]:
    """The notifications of a JSON document."""
    return [str(row["id"]) for row in json.loads(written)["notifications"]]


async def started(client: Client, numbers: Sequence[int]) -> list[Any]:
    """What the runs that send again were given."""
    found = []
    for number in numbers:
        history = await client.get_workflow_handle(f"retry-msg_{number}").fetch_history()
        payload = history.events[0].workflow_execution_started_event_attributes.input.payloads[0]
        found.append(NotifyRun.model_validate_json(payload.data))
    return found


@pytest.mark.usefixtures("ledger")
async def test_the_dead_letter_list_says_what_failed_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("failed") == 0
    written = capsys.readouterr().out
    assert "msg_1" in written
    assert "msg_2" not in written
    assert "HTTP 500" in written
    assert "holdfast webhooks retry ID" in written


@pytest.mark.usefixtures("ledger")
async def test_notifications_are_listed_latest_first_by_state_and_tenant(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["list"], ["msg_4", "msg_3", "msg_2", "msg_1"]),
        (["list", "--state", "pending"], ["msg_3"]),
        (["list", "--limit", "1"], ["msg_4"]),
        (["failed", "--tenant", "acme"], ["msg_1"]),
    ):
        assert await run(*words, "--json") == 0
        assert ids(capsys.readouterr().out) == expected


async def test_an_empty_list_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("failed") == 0
    assert "Nothing was given up." in capsys.readouterr().out


async def test_an_empty_list_tells_what_to_do_as_things_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLDFAST_CONFIG_DIR", str(tmp_path))
    file = tmp_path / "notifications.toml"
    assert await run("list") == 0
    assert f"Next: describe whom to tell in {file}" in capsys.readouterr().out
    file.write_text("")
    assert await run("list") == 0
    assert f"Next: cause an event that {file} has somebody told of" in capsys.readouterr().out
    assert await run("list", "--state", "pending") == 0
    assert "No notification waits to be sent.\n\nNext: holdfast webhooks list\n" in capsys.readouterr().out


@pytest.mark.usefixtures("ledger")
async def test_a_notification_is_listed_with_its_request_and_agent(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("list") == 0
    listed = {line.split()[0]: line.split()[1:4] for line in capsys.readouterr().out.splitlines() if "msg_" in line}
    assert listed["msg_3"] == ["acme", "req_00000003", "buyer"]


async def test_a_dead_notification_is_taken_up_again_under_its_id(
    ledger: Ledger, queue: str, temporal_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    del queue
    assert await run("retry", "msg_1") == 0
    assert "Notification msg_1 is being sent again." in capsys.readouterr().out
    assert await started(temporal_client, [1]) == [NotifyRun(tenant="acme", deliveries=("msg_1",))]
    taken = await ledger.deliveries.get("acme", "msg_1")
    assert taken is not None
    assert taken.state is DeliveryState.PENDING
    await temporal_client.get_workflow_handle("retry-msg_1").terminate()


async def test_two_who_retry_everything_at_once_start_each_notification_once(
    ledger: Ledger, queue: str, temporal_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    del queue
    codes = await asyncio.gather(run("retry", "--all"), run("retry", "--all"))
    assert set(codes) == {0}
    said = capsys.readouterr().out
    assert await started(temporal_client, [1, 4]) == [
        NotifyRun(tenant="acme", deliveries=("msg_1",)),
        NotifyRun(tenant="globex", deliveries=("msg_4",)),
    ]
    assert "2 notifications are being sent again." in said or said.count("1 notifications are being sent again.") == 2
    assert await ledger.deliveries.list(states=[DeliveryState.DEAD]) == ()
    for number in (1, 4):
        await temporal_client.get_workflow_handle(f"retry-msg_{number}").terminate()


async def test_only_one_tenants_notifications_are_retried(ledger: Ledger, queue: str, temporal_client: Client) -> None:
    del queue
    assert await run("retry", "--all", "--tenant", "globex") == 0
    assert [dead.id for dead in await ledger.deliveries.list(states=[DeliveryState.DEAD])] == ["msg_1"]
    assert await run("retry", "msg_1", "--tenant", "globex") == 1
    await temporal_client.get_workflow_handle("retry-msg_4").terminate()


@pytest.mark.usefixtures("ledger", "queue")
async def test_what_was_accepted_or_never_was_is_not_sent_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("retry", "msg_2") == 1
    assert "was accepted; it is not sent again" in capsys.readouterr().err
    assert await run("retry", "msg_9") == 1
    assert "There is no notification 'msg_9'." in capsys.readouterr().err
    for words in ([], ["msg_1", "--all"]):
        assert await run("retry", *words) == 2


async def test_without_an_engine_the_dead_letter_list_stays_as_it_is(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLDFAST_ENGINE__ADDRESS", "127.0.0.1:1")
    assert await run("retry", "--all") != 0
    assert "No Temporal server answers" in capsys.readouterr().err
    assert len(await ledger.deliveries.list(states=[DeliveryState.DEAD])) == 2
