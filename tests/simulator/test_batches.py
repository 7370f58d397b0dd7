"""Batches in both formats: their stages, the fate of each line, half the price, and custom ids that come back once."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from simulator.program import Profile
from simulator.server import Simulator

MESSAGES = [{"role": "user", "content": "Hello?"}]
ANTHROPIC = {"anthropic-version": "2023-06-01"}
both = pytest.mark.parametrize("wire", ["openai", "anthropic"])


class Batching:
    """A client of both batch APIs, and what they have in common."""

    def __init__(self, simulator: Simulator, client: httpx.AsyncClient) -> None:
        self.simulator = simulator
        self.client = client

    async def upload(self, content: str) -> str:
        files = {"file": ("in.jsonl", content.encode())}
        response = await self.client.post("/v1/files", data={"purpose": "batch"}, files=files)
        assert response.status_code == 200
        return str(response.json()["id"])

    async def create(self, wire: str, models: dict[str, str]) -> dict[str, Any]:
        """Start a batch with one line for each custom id."""
        if wire == "anthropic":
            requests = [
                {"custom_id": name, "params": {"model": model, "max_tokens": 99, "messages": MESSAGES}}
                for name, model in models.items()
            ]
            response = await self.client.post("/v1/messages/batches", json={"requests": requests}, headers=ANTHROPIC)
        else:
            file = await self.upload(
                "\n".join(openai_line(name, {"model": model, "messages": MESSAGES}) for name, model in models.items())
            )
            body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            response = await self.client.post("/v1/batches", json=body)
        assert response.status_code == 200
        return dict(response.json())

    def path(self, wire: str, batch: dict[str, Any]) -> str:
        return f"/v1/{'messages/' if wire == 'anthropic' else ''}batches/{batch['id']}"

    async def get(self, wire: str, batch: dict[str, Any]) -> dict[str, Any]:
        return dict((await self.client.get(self.path(wire, batch), headers=ANTHROPIC)).json())

    async def cancel(self, wire: str, batch: dict[str, Any]) -> dict[str, Any]:
        return dict((await self.client.post(f"{self.path(wire, batch)}/cancel", headers=ANTHROPIC)).json())

    async def over(self, wire: str, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch once it has ended."""
        async with asyncio.timeout(60):
            while True:
                shown = await self.get(wire, batch)
                status = shown["processing_status" if wire == "anthropic" else "status"]
                if status in ("ended", "completed", "expired", "cancelled", "failed"):
                    return shown
                await asyncio.sleep(0.01)

    async def results(self, wire: str, batch: dict[str, Any]) -> list[tuple[str, str, Any]]:
        """Custom id, outcome and reply or error of each line, as they were written."""
        found: list[tuple[str, str, Any]] = []
        if wire == "anthropic":
            text = (await self.client.get(batch["results_url"], headers=ANTHROPIC)).text
            for line in map(json.loads, text.splitlines()):
                result = line["result"]
                found.append((line["custom_id"], result["type"], result.get("message") or result.get("error")))
            return found
        for name in ("output_file_id", "error_file_id"):
            if batch[name] is None:
                continue
            text = (await self.client.get(f"/v1/files/{batch[name]}/content")).text
            for line in map(json.loads, text.splitlines()):
                response = line["response"]
                if response is None:
                    found.append((line["custom_id"], line["error"]["code"].removeprefix("batch_"), line["error"]))
                else:
                    succeeded = response["status_code"] == 200
                    assert succeeded == (name == "output_file_id")
                    outcome = "succeeded" if succeeded else "errored"
                    found.append((line["custom_id"], outcome, response["body"]))
        return found


def openai_line(custom_id: str, body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


@pytest.fixture
async def batching() -> AsyncIterator[Batching]:
    profile = Profile.read(
        {
            "default": {"batch_ms": 30, "price": {"input": 1, "output": 2}},
            "models": {"long": {"batch_ms": 3_600_000}, "halfway": {"batch_ms": 4000}, "staged": {"batch_ms": 300}},
        }
    )
    async with (
        Simulator(seed=5, profile=profile) as simulator,
        httpx.AsyncClient(base_url=simulator.url, trust_env=False) as client,
    ):
        yield Batching(simulator, client)


@both
async def test_every_line_comes_back_once_in_another_order_at_half_the_price(batching: Batching, wire: str) -> None:
    names = [f"attempt-{number}" for number in range(40)]
    batch = await batching.over(wire, await batching.create(wire, dict.fromkeys(names, "m")))
    results = await batching.results(wire, batch)
    assert sorted(name for name, _, _ in results) == sorted(names)
    assert [name for name, _, _ in results] != names
    assert {outcome for _, outcome, _ in results} == {"succeeded"}
    bill = batching.simulator.bill()
    assert sorted(entry["client_request_id"] for entry in bill["entries"]) == sorted(names)
    assert all(entry["batch"] and entry["completed"] for entry in bill["entries"])
    reported = [reply["usage"] for _, _, reply in results]
    output = sum(usage["completion_tokens" if wire == "openai" else "output_tokens"] for usage in reported)
    assert bill["output_tokens"] == output == 40 * 24
    full = Decimal(bill["input_tokens"] + 2 * bill["output_tokens"]) / 1_000_000
    assert Decimal(bill["cost_usd"]) == full / 2


@both
async def test_scripts_decide_the_fate_of_single_lines(batching: Batching, wire: str) -> None:
    batching.simulator.script(
        {"model": "errs", "kind": "overloaded_503"},
        {"model": "hangs", "kind": "hang"},
        {"model": "billed", "kind": "error_500", "bill_on_error": True},
        {"model": "page", "kind": "html_200"},
        {"model": "filtered", "kind": "content_filter"},
    )
    models = {name: name for name in ("fine", "errs", "hangs", "billed", "page", "filtered")}
    batch = await batching.over(wire, await batching.create(wire, models))
    outcomes = {name: outcome for name, outcome, _ in await batching.results(wire, batch)}
    assert outcomes == {
        "fine": "succeeded",
        "errs": "errored",
        "hangs": "expired",
        "billed": "errored",
        "page": "errored",
        "filtered": "succeeded",
    }
    billed = {entry["model"]: entry["completed"] for entry in batching.simulator.bill()["entries"]}
    assert billed == {"fine": True, "billed": False, "page": False, "filtered": True}
    if wire == "openai":
        assert batch["status"] == "expired"
        assert batch["request_counts"] == {"total": 6, "completed": 2, "failed": 4}
    else:
        counts = batch["request_counts"]
        assert (counts["succeeded"], counts["errored"], counts["expired"], counts["processing"]) == (2, 3, 1, 0)


@both
async def test_errors_in_results_have_the_formats_shape(batching: Batching, wire: str) -> None:
    batching.simulator.script({"kind": "insufficient_quota"})
    batch = await batching.over(wire, await batching.create(wire, {"a": "m"}))
    [(_, _, body)] = await batching.results(wire, batch)
    if wire == "openai":
        assert body["error"]["code"] == "insufficient_quota"
    else:
        assert body["error"]["details"]["error_code"] == "enforced_spend_limit_reached"


@both
async def test_a_request_that_cannot_be_read_fails_alone(batching: Batching, wire: str) -> None:
    batch = await batching.over(wire, await batching.create(wire, {"a": "m", "b": ""}))
    outcomes = {name: outcome for name, outcome, _ in await batching.results(wire, batch)}
    assert outcomes == {"a": "succeeded", "b": "errored"}


@both
async def test_a_malformed_line_of_the_results_is_cut(batching: Batching, wire: str) -> None:
    batching.simulator.script({"kind": "malformed_json"})
    batch = await batching.over(wire, await batching.create(wire, {"a": "m"}))
    with pytest.raises(json.JSONDecodeError):
        await batching.results(wire, batch)


@both
async def test_a_batch_that_is_cancelled_at_once_bills_nothing(batching: Batching, wire: str) -> None:
    batch = await batching.create(wire, {"a": "long", "b": "long"})
    cancelling = await batching.cancel(wire, batch)
    assert cancelling["processing_status" if wire == "anthropic" else "status"] in ("canceling", "cancelling")
    batch = await batching.over(wire, batch)
    assert batching.simulator.bill(entries=False)["requests"] == 0
    if wire == "openai":
        assert (batch["status"], batch["output_file_id"], batch["error_file_id"]) == ("cancelled", None, None)
        assert batch["cancelled_at"] is not None
    else:
        assert batch["request_counts"]["canceled"] == 2
        assert {outcome for _, outcome, _ in await batching.results(wire, batch)} == {"canceled"}
        assert batch["cancel_initiated_at"] is not None


@both
async def test_a_batch_that_is_cancelled_halfway_keeps_what_was_answered(batching: Batching, wire: str) -> None:
    batch = await batching.create(wire, {f"{number}": "halfway" for number in range(50)})
    async with asyncio.timeout(60):
        while batching.simulator.bill(entries=False)["requests"] < 5:  # noqa: ASYNC110 - the bill has no event
            await asyncio.sleep(0.005)
    await batching.cancel(wire, batch)
    results = await batching.results(wire, await batching.over(wire, batch))
    succeeded = [name for name, outcome, _ in results if outcome == "succeeded"]
    assert 5 <= len(succeeded) < 50
    assert len(succeeded) == batching.simulator.bill(entries=False)["requests"]


async def test_openai_batches_pass_through_their_stages(batching: Batching) -> None:
    batch = await batching.create("openai", {"a": "staged"})
    assert batch["status"] == "validating"
    assert batch["output_file_id"] is None
    seen = [batch["status"]]
    async with asyncio.timeout(60):
        while seen[-1] != "completed":
            batch = await batching.get("openai", batch)
            if batch["status"] != seen[-1]:
                seen.append(batch["status"])
            await asyncio.sleep(0.002)
    # A poll may come too late for a stage, never in another order.
    assert seen == [stage for stage in ("validating", "in_progress", "finalizing", "completed") if stage in seen]
    assert batch["created_at"] <= batch["in_progress_at"] <= batch["finalizing_at"] <= batch["completed_at"]
    assert [listed["id"] for listed in (await batching.client.get("/v1/batches")).json()["data"]] == [batch["id"]]


async def test_anthropic_batches_show_results_only_when_ended(batching: Batching) -> None:
    batch = await batching.create("anthropic", {"a": "long"})
    assert (batch["processing_status"], batch["results_url"]) == ("in_progress", None)
    assert batch["request_counts"]["processing"] == 1
    path = f"/v1/messages/batches/{batch['id']}/results"
    assert (await batching.client.get(path, headers=ANTHROPIC)).status_code == 404
    listed = (await batching.client.get("/v1/messages/batches", headers=ANTHROPIC)).json()["data"]
    assert [shown["id"] for shown in listed] == [batch["id"]]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "empty_file"),
        ("{", "invalid_json_line"),
        ('{"custom_id": "a"}', "invalid_request"),
        ("\n".join([openai_line("a", {})] * 2), "duplicate_custom_id"),
    ],
)
async def test_a_file_that_is_no_batch_fails_with_its_line(batching: Batching, content: str, code: str) -> None:
    file = await batching.upload(content)
    body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = (await batching.client.post("/v1/batches", json=body)).json()
    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["code"] == code
    assert (await batching.get("openai", batch))["status"] == "failed"


@pytest.mark.parametrize(
    "wrong", [{"input_file_id": "file-x"}, {"endpoint": "/v1/embeddings"}, {"completion_window": "1h"}]
)
async def test_an_openai_batch_that_is_asked_for_wrongly_names_the_parameter(
    batching: Batching, wrong: dict[str, str]
) -> None:
    file = await batching.upload(openai_line("a", {"model": "m", "messages": MESSAGES}))
    body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"} | wrong
    response = await batching.client.post("/v1/batches", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] in wrong


@pytest.mark.parametrize(
    "requests", [[], 3, [{"custom_id": "a"}], [{"custom_id": "a", "params": {}}] * 2, [{"custom_id": "", "params": {}}]]
)
async def test_an_anthropic_batch_that_is_none_is_refused(batching: Batching, requests: Any) -> None:
    response = await batching.client.post("/v1/messages/batches", json={"requests": requests}, headers=ANTHROPIC)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_what_does_not_exist_is_404(batching: Batching) -> None:
    for path in ("/v1/files/x", "/v1/files/x/content", "/v1/batches/x"):
        assert (await batching.client.get(path)).json()["error"]["type"] == "invalid_request_error"
    missing = await batching.client.get("/v1/messages/batches/x", headers=ANTHROPIC)
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")


async def test_an_upload_for_another_purpose_or_without_a_file_is_refused(batching: Batching) -> None:
    files = {"file": ("in.jsonl", b"x")}
    assert (await batching.client.post("/v1/files", data={"purpose": "vision"}, files=files)).status_code == 400
    assert (await batching.client.post("/v1/files", files={"purpose": (None, b"batch")})).status_code == 400
    assert (await batching.client.post("/v1/files", json={})).status_code == 400


async def test_a_reset_drops_running_batches_and_files(batching: Batching) -> None:
    batch = await batching.create("openai", {"a": "long"})
    batching.simulator.reset()
    assert (await batching.client.get(f"/v1/batches/{batch['id']}")).status_code == 404
    assert (await batching.client.get(f"/v1/files/{batch['input_file_id']}")).status_code == 404


async def test_the_official_client_runs_a_batch(batching: Batching) -> None:
    content = "\n".join(openai_line(name, {"model": "m", "messages": MESSAGES}) for name in ("a", "b"))
    async with openai.AsyncOpenAI(base_url=f"{batching.simulator.url}/v1", api_key="k", max_retries=0) as client:
        file = await client.files.create(file=("in.jsonl", content.encode()), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"run": "7"}
        )
        assert batch.metadata == {"run": "7"}
        await batching.over("openai", {"id": batch.id})
        batch = await client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert batch.output_file_id is not None
        output = await client.files.content(batch.output_file_id)
        assert {json.loads(line)["custom_id"] for line in output.text.splitlines()} == {"a", "b"}
        assert (await client.files.retrieve(file.id)).bytes == len(content)
