"""Records one history for each path a request can take, for `test_replay.py`.

Run by hand after a change that alters what workflows do, from the root of the repository:

    python -m tests.workflows.record_histories [PATH ...]

A change that makes an old history fail to replay breaks every run that is under way when it is deployed: guard it with
`workflow.patched` and keep the old history beside the new one, unless nothing of the old kind can be running.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from temporalio.client import Client, WorkflowHistory

import activities.generate
from cli.temporal_server import TemporalServer
from holdfast.contracts import AtLimit, Decision
from holdfast.spending import Period, ScopeKind
from tests.house import AGENTS, House, open_house
from tests.notify.receiver import Receiver
from tests.workflows.recorded import CARD, DIRECTORY, DOCUMENT, EDIT, PERSON, QUESTION, REPLY, readable
from tests.workflows.recording import INVALID, SAID, VALID, add_document, decide, ended, ends, held, poor
from tests.workflows.recordings_of_approvals import APPROVAL_AGENTS, APPROVAL_PATHS
from tests.workflows.recordings_of_notifications import NOTIFICATION_SECRETS, NOTIFICATIONS, NOTIFIED_PATHS
from tests.workflows.recordings_of_teams import TEAM_AGENTS, TEAM_PATHS, start_over_tools
from tests.workflows.workshop import TOOLS
from workflows.connection import DATA_CONVERTER

RECORDER = "recorder"
"""Identity of client and workers, which would else be process id and host name."""

SHORT_HISTORY = {"limit.historyCount.suggestContinueAsNew": 20}
"""So that a request with a few repairs has a history that is long."""

_RULE = '[approval]\napprovers = ["ann", "bob"]\nwithin = "%s"\n'
_PLAIN = 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'
RECORDED_AGENTS = {
    **AGENTS,
    "briefly": _PLAIN + _RULE % "1s",
    "trusting": _PLAIN + _RULE % "1s" + 'default = "approve"\n',
    **TEAM_AGENTS,
    **APPROVAL_AGENTS,
    "heldjson": _PLAIN + 'output_schema = "point.json"\n' + _RULE % "4h" + "[limits]\nattempts = 9\nrepairs = 9\n",
}


async def plain(house: House) -> str:
    house.simulator.script(SAID)
    return await ended(house, "plain", "completed")


async def private(house: House) -> str:
    house.simulator.script({"kind": "ok", "content": f"{REPLY} for <EMAIL_1>."})
    return await ended(house, "recalling", "completed", text=f"Write to {PERSON} about card {CARD}.")


async def recall(house: House) -> str:
    house.simulator.script(SAID)
    await ended(house, "recalling", "completed")
    return await ended(house, "recalling", "completed")


async def documents(house: House) -> str:
    await add_document(house)
    return await ended(house, "docs", "completed", text=f"What does the {DOCUMENT} hold?")


async def ingest(house: House) -> str:
    return await add_document(house)


async def repair(house: House) -> str:
    house.simulator.script(INVALID, VALID)
    return await ended(house, "json", "completed")


async def approve(house: House) -> str:
    request_id = await held(house)
    await decide(house, request_id, "approve")
    return await ends(house, request_id, "completed")


async def edit(house: House) -> str:
    request_id = await held(house)
    await decide(house, request_id, "edit", payload=f"Better {EDIT}.")
    return await ends(house, request_id, "completed")


async def reject(house: House) -> str:
    request_id = await held(house)
    await decide(house, request_id, "reject", reason="not yet")
    return await ends(house, request_id, "rejected")


async def signal(house: House) -> str:
    request_id = await held(house)
    handle = house.client.get_workflow_handle(request_id)
    content = (await house.waiting(request_id))["content_sha256"]
    for actor in ("eve", "ann"):
        said = {"decision": "approve", "actor": actor, "content_sha256": content}
        await handle.signal("decide", Decision.model_validate(said))
    return await ends(house, request_id, "completed")


async def timeout(house: House) -> str:
    return await ends(house, await held(house, "briefly"), "rejected")


async def timeout_approve(house: House) -> str:
    return await ends(house, await held(house, "trusting"), "completed")


async def expire(house: House) -> str:
    house.simulator.script(SAID)
    return await ends(house, await held(house, "held", limits={"deadline": "2s"}), "expired")


async def retry(house: House) -> str:
    limited = {"kind": "rate_limited", "retry_after": 0.2, "retry_after_format": "milliseconds"}
    house.simulator.script(limited, SAID)
    return await ended(house, "plain", "completed")


async def wait(house: House) -> str:
    """A Retry-After too long for the activity; the bound is lowered instead of waiting for a minute."""
    house.simulator.script({"kind": "rate_limited", "retry_after": 1}, SAID)
    with patch.object(activities.generate, "LONGEST_RETRY_DELAY", activities.generate.LONGEST_RETRY_DELAY / 100):
        return await ended(house, "plain", "completed")


async def fallback(house: House) -> str:
    house.simulator.script({"kind": "insufficient_quota", "model": "sim-large"}, SAID)
    return await ended(house, "fallback", "completed")


async def refuse(house: House) -> str:
    return await ended(house, "strict", "refused", text=f"The forbidden topic of {QUESTION}.")


async def deny(house: House) -> str:
    return await ended(house, "plain", "denied", limits={"cost_usd": "0.000001"})


async def cancel(house: House) -> str:
    house.simulator.script({"kind": "hang"})
    request_id = str((await house.submit("plain", f"Never mind the {QUESTION}."))["id"])
    await house.until_the_model_is_called()
    await house.http.post(f"/v1/requests/{request_id}/cancel")
    return await ends(house, request_id, "cancelled")


async def cancel_waiting(house: House) -> str:
    request_id = await held(house)
    await house.http.post(f"/v1/requests/{request_id}/cancel")
    return await ends(house, request_id, "cancelled")


async def fail(house: House) -> str:
    house.simulator.script({"kind": "insufficient_quota"})
    return await ended(house, "plain", "failed")


async def broken(house: House) -> str:
    """A step before the model call fails for good."""
    with patch.object(house.services.sanitizer, "sanitize", side_effect=TypeError(f"cannot read {QUESTION!r}")):
        return await ended(house, "plain", "failed")


async def undelivered(house: House) -> str:
    house.simulator.script(SAID)
    with patch.object(house.services.ledger, "finish", side_effect=TypeError(f"cannot store {REPLY!r}")):
        return await ended(house, "plain", "failed")


async def nonsense(house: House) -> str:
    """Signals that are no decisions."""
    request_id = await held(house)
    handle = house.client.get_workflow_handle(request_id)
    unread: tuple[list[Any], ...] = ([], [None], [{"decison": "approve"}], [{}, {}])
    for arguments in unread:
        await handle.signal("decide", args=arguments)
    await decide(house, request_id, "approve")
    return await ends(house, request_id, "completed")


async def invalid(house: House) -> str:
    house.simulator.script({**INVALID, "times": 2})
    return await ended(house, "json", "failed", limits={"repairs": 1})


async def start_over(house: House) -> str:
    """Repairs and refused signals make the history long, twice; then somebody approves."""
    house.simulator.script({**INVALID, "times": 5}, VALID)
    request_id = await held(house, "heldjson")
    handle = house.client.get_workflow_handle(request_id)
    content = (await house.waiting(request_id))["content_sha256"]
    for number in range(12):
        said = {"decision": "approve", "actor": f"eve{number}", "content_sha256": content}
        await handle.signal("decide", Decision.model_validate(said))
    await decide(house, request_id, "approve")
    return await ends(house, request_id, "completed")


async def second_walk(house: House) -> str:
    house.simulator.script(SAID)
    return await ended(house, "plain", "completed")


async def other_policy(house: House) -> str:
    house.simulator.script({"kind": "refusal", "model": "sim-large"}, {**SAID, "model": "sim-claude"})
    return await ended(house, "careful", "completed")


async def longer_window(house: House) -> str:
    house.simulator.script({"kind": "context_length", "model": "sim-large"}, {**SAID, "model": "sim-long"})
    return await ended(house, "careful", "completed")


async def escalate(house: House) -> str:
    house.simulator.script({**SAID, "confidence": 0.3, "model": "sim-large"}, {**SAID, "model": "sim-long"})
    return await ended(house, "unsure", "completed")


async def handled(house: House) -> str:
    return await ended(house, "helpdesk", "completed", text="please reset my password")


async def rest(house: House) -> str:
    house.simulator.script(
        {"kind": "rate_limited", "retry_after": 1, "model": "sim-large"},
        {"kind": "unauthorized", "model": "sim-spare"},
        {**SAID, "model": "sim-large"},
    )
    return await ended(house, "fallback", "completed")


async def budget_extended(house: House) -> str:
    await poor(house, AtLimit.ASK)
    request_id = await held(house, "asking")
    await decide(house, request_id, "approve", by="boss")
    return await ends(house, request_id, "completed")


async def budget_kept(house: House) -> str:
    await poor(house, AtLimit.ASK)
    request_id = await held(house, "asking")
    await decide(house, request_id, "reject", by="boss", reason="enough")
    return await ends(house, request_id, "denied")


async def budget_queued(house: House) -> str:
    await poor(house, AtLimit.QUEUE)
    request_id = str((await house.submit("plain", f"What is {QUESTION}?"))["id"])
    async with asyncio.timeout(30):
        while "next period" not in readable(await house.history(request_id)):  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.1)
    await house.http.post(f"/v1/requests/{request_id}/cancel")
    return await ends(house, request_id, "cancelled")


async def budget_degraded(house: House) -> str:
    await poor(house, AtLimit.DEGRADE)
    return await ended(house, "frugal", "completed")


async def batch(house: House) -> str:
    house.simulator.script(SAID)
    return await ended(house, "nightly", "completed", batch=True)


async def batch_again(house: House) -> str:
    """A line fails, and the call goes into the next batch."""
    house.simulator.script({"kind": "hang", "model": "sim-bulk"}, SAID)
    return await ended(house, "nightly", "completed", batch=True)


async def batch_fallback(house: House) -> str:
    house.simulator.script({"kind": "insufficient_quota", "model": "sim-bulk"}, SAID)
    return await ended(house, "nightlyspare", "completed", batch=True)


async def batch_cancel(house: House) -> str:
    house.simulator.script(SAID | {"batch_ms": 1_000})
    request_id = str((await house.submit("nightly", f"Never mind the {QUESTION}.", batch=True))["id"])
    async with asyncio.timeout(60):
        while not (await house.services.ledger.batch_lines.count("bulk"))[1]:  # noqa: ASYNC110 - a table has no event
            await asyncio.sleep(0.05)
    await house.http.post(f"/v1/requests/{request_id}/cancel")
    return await ends(house, request_id, "cancelled")


async def batch_expire(house: House) -> str:
    house.simulator.script(SAID | {"batch_ms": 5_000})
    return await ended(house, "nightly", "expired", batch=True, limits={"deadline": "3s"})


async def batches(house: House) -> str:
    """The run that sends and collects."""
    await batch_again(house)
    workflow_id = f"batch.{house.settings.engine.task_queue}.bulk"
    await house.ended(workflow_id)
    return workflow_id


Recording = Callable[[House], Awaitable[str]]

PATHS: tuple[Recording, ...] = (
    plain,
    private,
    recall,
    documents,
    ingest,
    repair,
    approve,
    edit,
    reject,
    signal,
    timeout,
    timeout_approve,
    expire,
    retry,
    wait,
    fallback,
    refuse,
    deny,
    cancel,
    cancel_waiting,
    fail,
    broken,
    undelivered,
    nonsense,
    invalid,
    second_walk,
    other_policy,
    longer_window,
    escalate,
    handled,
    rest,
    budget_extended,
    budget_kept,
    budget_queued,
    budget_degraded,
    batch,
    batch_again,
    batch_fallback,
    batch_cancel,
    batch_expire,
    batches,
    *TEAM_PATHS,
    *APPROVAL_PATHS,
)


async def _record(house: House, path: Recording) -> None:
    house.reset()
    await house.services.ledger.budgets.remove("local", ScopeKind.TENANT, "local", Period.DAY)
    workflow_id = await path(house)
    runs = [await house.history(workflow_id)]
    while earlier := runs[0].events[0].workflow_execution_started_event_attributes.continued_execution_run_id:
        runs.insert(0, await house.client.get_workflow_handle(workflow_id, run_id=earlier).fetch_history())
    for old in DIRECTORY.glob(f"{path.__name__}*.json"):
        if old.stem.removeprefix(path.__name__).strip("_0123456789") == "":
            old.unlink()
    for number, run in enumerate(runs, start=1):
        name = path.__name__ if len(runs) == 1 else f"{path.__name__}_{number}"
        _write(name, run)


def _write(name: str, history: WorkflowHistory) -> None:
    text = json.dumps(history.to_json_dict(), indent=1)
    for private_word in (tempfile.gettempdir(), str(Path.home()), str(Path.cwd())):
        if private_word in text:
            raise AssertionError(f"The history of {name!r} holds {private_word!r}.")
    (DIRECTORY / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(f"{name}: {len(history.events)} events")


async def main(wanted: list[str]) -> None:
    """Record the wanted paths, or all of them."""
    DIRECTORY.mkdir(exist_ok=True)
    for paths, dynamic_config in (
        (PATHS, {}),
        ((start_over, start_over_tools), SHORT_HISTORY),
        (NOTIFIED_PATHS, {}),
    ):
        chosen = [path for path in paths if not wanted or path.__name__ in wanted]
        if not chosen:
            continue
        with tempfile.TemporaryDirectory() as directory:
            async with TemporalServer(port=0, ui=False, dynamic_config=dynamic_config) as server:
                client = await Client.connect(server.address, identity=RECORDER, data_converter=DATA_CONVERTER)
                async with (
                    Receiver() as receiver,
                    open_house(
                        Path(directory),
                        client,
                        agents=RECORDED_AGENTS,
                        tools=TOOLS,
                        notifications=NOTIFICATIONS % receiver.url if paths is NOTIFIED_PATHS else "",
                        environment=NOTIFICATION_SECRETS,
                        sandbox=False,
                    ) as house,
                ):
                    for path in chosen:
                        await _record(house, path)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
