"""What every response has, what the log has not, and what happens when we are wrong."""

import logging

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.execution import Execution
from gateway.tracing import TELEMETRY
from holdfast.configuration import Configuration
from holdfast.contracts import Request
from holdfast.errors import Unavailable
from holdfast.ledger import Ledger
from tests.gateway.recorded import Edge, opened, problem, text_of

GOOD = {"agent": "writer", "input": "the text of a request"}


async def test_responses_are_hardened_and_named(edge: Edge) -> None:
    response = await edge.ask(GOOD, X_Request_Id="trace-7")
    assert response.headers["x-request-id"] == "trace-7"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    other = await edge.ask(GOOD, X_Request_Id="line\x0bbreak <script>")
    assert other.headers["x-request-id"].isalnum()


async def test_an_unknown_address_and_a_wrong_method_are_problems(edge: Edge) -> None:
    problem(await edge.http.get("/v1/reqests"), 404, None)
    response = await edge.http.delete("/v1/requests")
    problem(response, 405, None)
    assert "POST" in response.headers["allow"]


async def test_our_own_fault_shows_a_reference_and_nothing_else(
    edge: Edge, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(request: Request) -> Execution:
        raise RuntimeError("secret internals")

    monkeypatch.setattr(edge.engine, "submit", broken)
    response = await edge.ask(GOOD)
    document = problem(response, 500, None)
    assert "secret" not in text_of(response)
    assert response.headers["x-content-type-options"] == "nosniff"
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert document["reference"] in record.getMessage()
    assert record.exc_info is not None


async def test_an_engine_that_does_not_answer_is_told_with_a_remedy(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(request: Request) -> Execution:
        raise Unavailable("Temporal does not answer: could not submit the request.")

    monkeypatch.setattr(edge.engine, "submit", unreachable)
    response = await edge.ask(GOOD)
    problem(response, 503, None)
    assert response.headers["retry-after"] == "1"


async def test_the_access_log_has_no_query_and_no_text(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="holdfast.gateway.access"):
        await edge.http.post("/v1/requests", params={"wait": "1", "secret": "q"}, json=GOOD)
    [line] = [record.getMessage() for record in caplog.records if record.name == "holdfast.gateway.access"]
    assert line.startswith("POST /v1/requests 202 ")
    assert "secret" not in line
    assert "text of a request" not in caplog.text


async def test_readiness_names_everything_that_is_missing(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreachable(tenant: str, *, limit: int) -> None:
        raise Unavailable("The ledger does not answer.")

    assert (await edge.http.get("/readyz")).json() == {"status": "ready"}
    edge.engine.lacks = ["worker: none polls task queue 'holdfast'"]
    monkeypatch.setattr(edge.ledger.requests, "list", unreachable)
    document = problem(await edge.http.get("/readyz"), 503, None)
    assert [line.split(":")[0] for line in document["missing"]] == ["worker", "ledger"]
    assert (await edge.http.get("/healthz")).json() == {"status": "ok"}


async def test_the_api_describes_its_bodies(edge: Edge) -> None:
    described = (await edge.http.get("/openapi.json")).json()
    body = described["paths"]["/v1/requests"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"agent", "input", "session", "limits", "batch", "not_before"}
    assert "tokens" in body["properties"]["limits"]["properties"]


async def test_a_request_is_one_span_named_by_its_route(
    configuration: Configuration, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setitem(TELEMETRY, "tracer_provider", provider)
    inner: list[int] = []
    async with opened(configuration, ledger) as edge:
        submit = edge.engine.submit

        async def traced(request: Request) -> Execution:
            inner.append(trace.get_current_span().get_span_context().span_id)
            return await submit(request)

        monkeypatch.setattr(edge.engine, "submit", traced)
        await edge.ask(GOOD)
        await edge.http.get("/healthz")
    [span] = exporter.get_finished_spans()
    assert span.name == "POST /v1/requests"
    assert span.context is not None
    assert inner == [span.context.span_id]
    assert "text of a request" not in str(span.attributes)
