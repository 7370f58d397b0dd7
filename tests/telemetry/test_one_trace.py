"""One request is one trace: gateway, workflow, steps and model call, on the real engine."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from temporalio.client import Client
from temporalio.contrib.opentelemetry import TracingInterceptor

import workflows.connection
from gateway.tracing import TELEMETRY
from holdfast.telemetry import ModelSpan
from tests.house import House, open_house
from tests.telemetry.conftest import Spans
from tests.workflows.recorded import PERSON, QUESTION, readable
from tests.workflows.test_replay import replayer
from workflows.connection import tracing_interceptors


@pytest.fixture(params=[True, False], ids=["sandboxed", "unsandboxed"])
async def house(
    request: pytest.FixtureRequest,
    spans: Spans,
    temporal_client: Client,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    """A house whose every part writes to the test's spans, as one provider for the process would have it."""
    monkeypatch.setitem(TELEMETRY, "tracer_provider", spans.provider)
    monkeypatch.setattr(
        workflows.connection, "TracingInterceptor", lambda: TracingInterceptor(spans.provider.get_tracer("temporal"))
    )
    config = temporal_client.config()
    config["interceptors"] = [*config["interceptors"], *tracing_interceptors("http://127.0.0.1:4318")]
    client = Client(**config)
    async with open_house(tmp_path_factory.mktemp("house"), client, sandbox=request.param) as opened:
        monkeypatch.setattr(opened.services.caller, "_span", ModelSpan(provider=spans.provider))
        yield opened


async def trace_of(spans: Spans, request_id: str) -> dict[str, ReadableSpan]:
    """The spans of the trace that holds the request's model call or workflow, by name."""
    async with asyncio.timeout(60):
        while True:
            finished = spans.finished()
            ids = {
                span.context.trace_id
                for span in finished
                if request_id in (span.attributes or {}).values() and span.name == "StartWorkflow:RequestWorkflow"
            }
            found = {span.name: span for span in finished if span.context.trace_id in ids}
            if "POST /v1/requests" in found and "RunActivity:deliver" in found:
                assert len(ids) == 1
                return found
            await asyncio.sleep(0.01)


def parents(found: dict[str, ReadableSpan], name: str) -> list[str]:
    """The names above a span, nearest first."""
    by_id = {span.context.span_id: span for span in found.values()}
    path = []
    span = found[name]
    while span.parent is not None:
        span = by_id[span.parent.span_id]
        path.append(span.name)
    return path


async def test_spans_from_gateway_to_model_call_share_one_trace(house: House, spans: Spans) -> None:
    reply = await house.ask("plain", f"What is {QUESTION}? Ask {PERSON}.")
    assert reply["status"] == "completed"
    found = await trace_of(spans, reply["id"])
    assert parents(found, "chat sim-large") == [
        "RunActivity:generate",
        "StartActivity:generate",
        "StartWorkflow:RequestWorkflow",
        "POST /v1/requests",
    ]
    assert parents(found, "RunWorkflow:RequestWorkflow") == ["StartWorkflow:RequestWorkflow", "POST /v1/requests"]
    for step in ("sanitize", "route", "validate", "deliver"):
        assert parents(found, f"RunActivity:{step}")[-1] == "POST /v1/requests"
    assert QUESTION not in spans.text()
    assert PERSON not in spans.text()


async def test_a_history_recorded_with_tracing_replays_without_it(house: House, spans: Spans) -> None:
    reply = await house.ask("plain", "What is recorded?")
    history = await house.history(reply["id"])
    assert "_tracer-data" in readable(history)
    await replayer().replay_workflow(history)
    await replayer(traced=True).replay_workflow(history)


async def test_an_unexpected_exception_puts_no_message_on_a_span(
    house: House, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*arguments: object) -> None:
        raise TypeError(f"cannot read {QUESTION!r}")

    monkeypatch.setattr(house.services.caller, "call", broken)
    reply = await house.ask("plain", "Break.")
    assert reply["status"] == "failed"
    found = await trace_of(spans, reply["id"])
    assert "TypeError" in (found["RunActivity:generate"].status.description or "")
    assert QUESTION not in spans.text()
