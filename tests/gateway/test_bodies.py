"""Bad bodies are named with field and remedy, never repeated, and start nothing."""

from typing import Any

import pytest

from gateway.body import MAX_DEPTH
from tests.gateway.recorded import Edge, problem, text_of

GOOD = {"agent": "writer", "input": "Why?"}
SECRET = "4111-secret"


@pytest.mark.parametrize(
    ("body", "status", "field", "says"),
    [
        ({"input": "Why?"}, 422, "agent", "missing"),
        ({"agent": "writer"}, 422, "input", "missing"),
        (GOOD | {"input": " \n\t"}, 422, "input", "empty"),
        (GOOD | {"input": 7}, 422, "input", "string"),
        (GOOD | {"agent": "wrter"}, 422, "agent", "Did you mean 'writer'?"),
        (GOOD | {"agent": "zzz"}, 422, "agent", "Known agents: docs, form, writer"),
        (GOOD | {"imput": SECRET}, 422, "imput", "Did you mean `input`?"),
        (GOOD | {"zzz": SECRET}, 422, "zzz", "`agent`, `input`, `session`, `limits`"),
        (GOOD | {"session": ""}, 422, "session", "at least 1"),
        (GOOD | {"session": "a\nb"}, 422, "session", "pattern"),
        (GOOD | {"session": "s" * 129}, 422, "session", "at most 128"),
        (GOOD | {"limits": {"tokens": -1}}, 422, "limits.tokens", "greater than 0"),
        (GOOD | {"limits": {"tokens": 0}}, 422, "limits.tokens", "greater than 0"),
        (GOOD | {"limits": {"tokens": True}}, 422, "limits.tokens", "integer"),
        (GOOD | {"limits": {"tokens": 1001}}, 422, "limits.tokens", "1000"),
        (GOOD | {"limits": {"tokns": 5}}, 422, "limits.tokns", "Did you mean `tokens`?"),
        (GOOD | {"limits": {"cost_usd": "0.51"}}, 422, "limits.cost_usd", "0.50"),
        (GOOD | {"limits": {"cost_usd": "-0.01"}}, 422, "limits.cost_usd", "greater than or equal to 0"),
        (GOOD | {"limits": {"cost_usd": "cheap"}}, 422, "limits.cost_usd", "0.50"),
        (GOOD | {"limits": {"attempts": 7}}, 422, "limits.attempts", "6"),
        (GOOD | {"limits": {"repairs": -1}}, 422, "limits.repairs", "greater than or equal to 0"),
        (GOOD | {"limits": {"deadline": 30}}, 422, "limits.deadline", "unit"),
        (GOOD | {"limits": {"deadline": "soon"}}, 422, "limits.deadline", "duration"),
        (GOOD | {"limits": {"deadline": "9" * 30 + "d"}}, 422, "limits.deadline", "may not be longer"),
        (GOOD | {"limits": {"deadline": "0s"}}, 422, "limits.deadline", "greater than"),
        (GOOD | {"limits": {"deadline": "3d"}}, 422, "limits.deadline", "2 days"),
        (GOOD | {"limits": []}, 422, "limits", "dictionary"),
        ([GOOD], 400, "body", "not an object"),
    ],
)
async def test_a_body_that_does_not_fit_is_named_and_starts_no_workflow(
    edge: Edge, body: Any, status: int, field: str, says: str
) -> None:
    response = await edge.ask(body)
    problem(response, status, field)
    assert says in text_of(response)
    assert SECRET not in text_of(response)
    assert edge.engine.submitted == []


@pytest.mark.parametrize(
    ("body", "slug", "field", "says"),
    [
        (b'{"agent": "writer", "input": "\xff"}', "not-utf-8", "body", "byte 30"),
        (b"\xef\xbb\xbf{}", "not-json", "body", "BOM"),
        (b"", "not-json", "body", "line 1, column 1"),
        (b'{"agent": "writer"', "not-json", "body", "line 1"),
        (b'{"agent": NaN}', "not-json", "body", "NaN"),
        (b'{"agent": -Infinity}', "not-json", "body", "-Infinity"),
        (b'{"agent": 1e-9999999999999999999}', "not-json", "body", "exponent"),
        (b'{"agent": "writer", "agent": "docs"}', "duplicate-key", "agent", "twice"),
        (b'{"limits": {"tokens": 1, "tokens": 2}}', "duplicate-key", "tokens", "twice"),
        (b'{"input": "\\ud800"}', "invalid-character", "input", "U+D800"),
        (b'{"\\ud800": 1}', "invalid-character", "body", "U+D800"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "duplicate-key", "?", "twice"),
        (b'{"agent": ' + b"9" * 5_000 + b"}", "number-too-long", "body", "5000"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "too-deep", "body", str(MAX_DEPTH)),
        (b'{"a":' + b"[" * 9_000 + b"]" * 9_000 + b"}", "too-deep", "body", str(MAX_DEPTH)),
        (b'"text"', "not-an-object", "body", "object"),
    ],
)
async def test_bytes_that_are_no_clean_json_object_are_refused(
    edge: Edge, body: bytes, slug: str, field: str, says: str
) -> None:
    response = await edge.ask_raw(body)
    document = problem(response, 400, field)
    assert document["type"].endswith(f":{slug}")
    assert says in document["detail"]
    assert edge.engine.submitted == []


async def test_the_deepest_allowed_nesting_is_read(edge: Edge) -> None:
    inner = MAX_DEPTH - 1
    response = await edge.ask_raw(b'{"zzz":' + b"[" * inner + b"]" * inner + b"}")
    problem(response, 422, "agent")


async def test_every_problem_of_a_body_is_listed(edge: Edge) -> None:
    document = problem(await edge.ask({"imput": "x", "limits": {"tokens": "5"}}), 422, "agent")
    assert {error["field"] for error in document["errors"]} == {"agent", "input", "limits.tokens", "imput"}
    assert all(error["remedy"] for error in document["errors"])


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/json; charset=latin-1", "multipart/form-data"])
async def test_a_body_that_does_not_say_it_is_json_is_refused(edge: Edge, content_type: str) -> None:
    problem(await edge.ask_raw(b'{"agent": "writer", "input": "x"}', content_type), 415, "Content-Type")
    assert edge.engine.submitted == []


async def test_a_compressed_body_is_refused(edge: Edge) -> None:
    problem(await edge.ask(GOOD, Content_Encoding="gzip"), 415, "Content-Encoding")


async def test_an_oversize_body_is_refused_by_its_declared_length(edge: Edge) -> None:
    response = await edge.ask(GOOD | {"input": "x" * 20_000})
    problem(response, 413, "body")
    assert edge.engine.submitted == []


async def test_an_oversize_body_without_a_length_is_refused_before_it_is_read_whole(edge: Edge) -> None:
    sent = 0

    async def chunks() -> Any:
        nonlocal sent
        for _ in range(1_000):
            sent += 1
            yield b"x" * 1_000

    response = await edge.http.post("/v1/requests", content=chunks(), headers={"Content-Type": "application/json"})
    problem(response, 413, "body")
    assert sent < 30


async def test_a_body_may_be_spelt_in_any_valid_way(edge: Edge) -> None:
    response = await edge.ask_raw(
        b'{ "input": "Gr\\u00fc\\u00dfe \xf0\x9f\x91\x8b", "agent": "writer", "limits": {"cost_usd": 0.25} }',
        "Application/JSON; charset=UTF-8",
    )
    assert response.status_code == 202
    [request] = edge.engine.submitted
    assert await edge.ledger.contents.get("local", request.input) == "Grüße 👋"
    assert str(request.limits.cost_usd) == "0.25"
