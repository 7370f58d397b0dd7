"""A request as it happens, over real sockets: nothing lost, nothing twice, whenever the client comes and goes."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.milestones import Milestones
from gateway.text import Shown
from holdfast.configuration import Configuration
from holdfast.contracts import Approval, EventKind, Status
from holdfast.errors import Unavailable
from holdfast.ledger import Ledger
from holdfast.settings import GatewaySettings
from tests.gateway.recorded import problem
from tests.gateway.streams import Event, Line, event, on_the_line


@pytest.fixture
async def line(configuration: Configuration, ledger: Ledger) -> AsyncIterator[Line]:
    async with on_the_line(configuration, ledger) as line:
        yield line


def text_of(events: list[Event]) -> str:
    """What a client that obeys every event shows at the end."""
    shown = ""
    for one in events:
        if one.kind == "restart":
            shown = ""
        elif one.kind == "text":
            shown += one.data["text"]
    return shown


async def until_followed(line: Line, request_id: str, readers: int = 1) -> None:
    """Wait until the run is followed."""
    async with asyncio.timeout(60):
        while line.edge.engine.followed.count(request_id) != readers:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.005)


async def test_milestones_and_text_come_as_they_happen_and_the_end_is_what_reading_shows(line: Line) -> None:
    request_id = await line.submitted()
    run = line.edge.engine.run(request_id)
    async with line.following(request_id) as events:
        run.tell(EventKind.STEP_FINISHED, "sanitize", "nothing to mask")
        first = await anext(events)
        assert (first.kind, first.data["sequence"], first.data["name"]) == ("step", 1, "sanitize")
        await line.publish(request_id, "Because")
        assert (await anext(events)).data == {"attempt": 1, "text": "Because"}
        await line.publish(request_id, "Because", " it is.", end=True)
        assert (await anext(events)).data == {"attempt": 1, "text": " it is."}
        await line.finish(request_id, "Because it is.")
        rest = [one async for one in events]
    assert [one.kind for one in rest] == ["done"]
    assert rest[0].data == (await line.http.get(f"/v1/requests/{request_id}")).json()
    assert rest[0].data["answer"]["text"] == "Because it is."
    assert line.edge.engine.followed == []


@pytest.mark.parametrize("cut", range(8))
async def test_a_client_that_comes_back_gets_the_rest_and_nothing_twice(line: Line, cut: int) -> None:
    request_id = await line.submitted()
    run = line.edge.engine.run(request_id)
    had: list[Event] = []
    reading = line.following(request_id)
    pieces = ["Be", "ca", "us", "e ", "it ", "is."]
    run.tell(EventKind.STEP_FINISHED, "sanitize")
    async with reading as events:
        had.append(await anext(events))
        for number in range(len(pieces)):
            if len(had) > cut:
                break
            await line.publish(request_id, *pieces[: number + 1])
            had.append(await anext(events))
    await line.publish(request_id, *pieces, end=True)
    run.tell(EventKind.STEP_FINISHED, "validate")
    last = had[-1].id
    async with line.following(request_id, last) as events:
        if cut < len(pieces):
            had.append(await anext(events))
    await line.finish(request_id, "Because it is.")
    had += await line.read_all(request_id, had[-1].id)
    assert text_of(had) == "Because it is."
    assert [one.data["sequence"] for one in had if one.kind == "step"] == [1, 2]
    assert [one.kind for one in had].count("done") == 1
    assert "restart" not in [one.kind for one in had]
    after = await line.http.get(f"/v1/requests/{request_id}/events", params={"last_event_id": had[-1].id})
    assert after.status_code == 204


async def test_a_new_attempt_takes_back_what_the_old_one_showed(line: Line) -> None:
    request_id = await line.submitted()
    async with line.following(request_id) as events:
        await line.publish(request_id, "Because of")
        had = [await anext(events)]
        await line.publish(request_id, "It is", attempt=2)
        had += [await anext(events), await anext(events)]
        assert had[1].kind == "restart"
        assert had[1].data == {"attempt": 2, "reason": "a newer attempt began"}
        await line.edge.relay.publish(event(request_id, 1, 10, "text", " late words of the dead"))
        await line.finish(request_id, "It is so.")
        had += [one async for one in events]
    assert text_of(had) == "It is so."
    assert [one.kind for one in had] == ["text", "restart", "text", "text", "done"]


async def test_a_client_of_a_lost_attempt_is_told_so_even_after_the_end(line: Line) -> None:
    request_id = await line.submitted()
    async with line.following(request_id) as events:
        await line.publish(request_id, "Because of")
        had = [await anext(events)]
    await line.finish(request_id, "It is so.")
    had += await line.read_all(request_id, had[-1].id)
    assert [one.kind for one in had] == ["text", "restart", "text", "done"]
    assert text_of(had) == "It is so."


async def test_an_answer_that_is_longer_than_what_was_shown_is_completed(line: Line) -> None:
    request_id = await line.submitted()
    async with line.following(request_id) as events:
        await line.publish(request_id, "Zoë 🙂")
        had = [await anext(events)]
    await line.finish(request_id, "Zoë 🙂 says so.")
    had += await line.read_all(request_id, had[-1].id)
    assert [one.data.get("text") for one in had[:-1]] == ["Zoë 🙂", " says so."]


async def test_personal_data_is_put_back_and_resumed_in_the_middle_of_it(line: Line) -> None:
    request_id = await line.submitted()
    await line.edge.ledger.vault.save("local", request_id, {"<EMAIL_1>": "ada@example.org"})
    async with line.following(request_id) as events:
        await line.publish(request_id, "Mail <EMA")
        had = [await anext(events)]
        assert had[0].data["text"] == "Mail "
        await line.publish(request_id, "Mail <EMA", "IL_1> or")
        had.append(await anext(events))
    async with line.following(request_id, had[-1].id) as events:
        await line.publish(request_id, "Mail <EMA", "IL_1> or", " <EMAIL_1>", end=True)
        had.append(await anext(events))
    await line.finish(request_id, "Mail ada@example.org or ada@example.org.")
    had += await line.read_all(request_id, had[-1].id)
    assert [one.data["text"] for one in had[:-1]] == ["Mail ", "ada@example.org or", " ada@example.org", "."]


async def test_what_might_have_been_a_placeholder_is_shown_when_its_attempt_is_complete(line: Line) -> None:
    request_id = await line.submitted()
    await line.edge.ledger.vault.save("local", request_id, {"<EMAIL_1>": "ada@example.org"})
    async with line.following(request_id) as events:
        await line.publish(request_id, "1 <EMAIL", end=True)
        assert [(await anext(events)).data["text"] for _ in range(2)] == ["1 ", "<EMAIL"]


async def test_personal_data_does_not_break_an_answer_in_json(line: Line) -> None:
    request_id = await line.submitted("form")
    await line.edge.ledger.vault.save("local", request_id, {"<EMAIL_1>": '"ada\\"@example.org'})
    async with line.following(request_id) as events:
        await line.publish(request_id, '{"mail": "<EMAIL_1>"}', end=True)
        had = [await anext(events)]
        restored = json.dumps({"mail": '"ada\\"@example.org'})
        await line.finish(request_id, restored)
        had += [one async for one in events]
    assert [one.kind for one in had] == ["text", "done"]
    assert text_of(had) == restored


async def test_no_placeholder_is_shown_when_what_it_stands_for_is_forgotten(line: Line) -> None:
    request_id = await line.submitted()
    run = line.edge.engine.run(request_id)
    await line.edge.ledger.vault.save("local", request_id, {"<EMAIL_1>": "ada@example.org"})
    running = line.edge.engine.executions[request_id]
    await line.publish(request_id, "Mail <EMAIL_1>", end=True)
    await line.finish(request_id, "Mail ada@example.org")
    ended = line.edge.engine.executions[request_id]
    # The engine still tells that it runs: it was delivered a moment ago.
    line.edge.engine.put(running)
    run.ended = False
    reading = asyncio.ensure_future(line.read_all(request_id))
    await until_followed(line, request_id)
    line.edge.engine.put(ended)
    run.end()
    had = await reading
    assert [one.data["text"] for one in had if one.kind == "text"] == ["Mail ada@example.org"]


async def test_text_that_the_relay_lost_comes_from_the_answer(line: Line) -> None:
    request_id = await line.submitted()
    async with line.following(request_id) as events:
        await line.publish(request_id, "Be")
        had = [await anext(events)]
        await line.edge.relay.publish(event(request_id, 1, 7, "text", " it is."))
        await line.finish(request_id, "Because it is.")
        had += [one async for one in events]
    assert [one.kind for one in had] == ["text", "text", "done"]
    assert text_of(had) == "Because it is."


async def test_a_question_to_people_is_shown_while_it_is_open(line: Line) -> None:
    request_id = await line.submitted("docs")
    [request] = line.edge.engine.submitted
    assert request.plan.approval is not None
    run = line.edge.engine.run(request_id)
    run.approval = Approval(
        request_id=request_id,
        content=request.input,
        rule=request.plan.approval,
        requested_by="local",
        opened_at=datetime(2026, 1, 1, tzinfo=UTC),
        deadline=datetime(2026, 1, 2, tzinfo=UTC),
        kind="budget",
    )
    async with line.following(request_id) as events:
        run.tell(EventKind.APPROVAL_OPENED, "approve", "waiting for bob")
        asked = await anext(events)
        run.approval = None
        run.tell(EventKind.DECISION_ACCEPTED, "approve", "approve by bob")
        decided = await anext(events)
    assert asked.kind == decided.kind == "approval"
    assert asked.data["approval"]["kind"] == "budget"
    assert asked.data["approval"]["approvers"] == ["bob"]
    assert "approval" not in decided.data


async def test_one_follower_serves_all_readers_and_ends_with_the_last(line: Line) -> None:
    request_id = await line.submitted()
    run = line.edge.engine.run(request_id)
    async with line.following(request_id) as one, line.following(request_id) as other:
        run.tell(EventKind.STEP_FINISHED, "sanitize")
        assert (await anext(one)).id == (await anext(other)).id
        assert line.edge.engine.followed == [request_id]
        # Once when it began to follow, and once for the line: never on a clock.
        assert run.asked <= 2
    await until_followed(line, request_id, readers=0)


async def test_a_follower_that_failed_is_not_handed_to_the_next_reader(line: Line) -> None:
    request_id = await line.submitted()
    execution = line.edge.engine.executions[request_id]
    run = line.edge.engine.run(request_id)
    run.broken = Unavailable("Temporal does not answer.")
    milestones = Milestones(line.edge.engine)
    async with milestones.following(execution) as failed:
        await failed.change()
        assert failed.failure is run.broken
        run.broken = None
        async with milestones.following(execution) as fresh:
            run.tell(EventKind.STEP_FINISHED, "sanitize")
            await fresh.change()
            assert [one.event.name for one in fresh.milestones] == ["sanitize"]
            assert fresh.failure is None
    await until_followed(line, request_id, readers=0)


async def test_silence_is_filled_with_comments(configuration: Configuration, ledger: Ledger) -> None:
    gateway = GatewaySettings(heartbeat=timedelta(milliseconds=20))
    async with on_the_line(configuration, ledger, gateway=gateway) as line:
        request_id = await line.submitted()
        async with line.http.stream("GET", f"/v1/requests/{request_id}/events") as reply:
            lines = reply.aiter_lines()
            assert await anext(lines) == "retry: 2000"
            assert [await anext(lines) for _ in range(5)] == ["", ":", "", ":", ""]


async def test_a_reader_is_let_go_when_the_server_stops(configuration: Configuration, ledger: Ledger) -> None:
    async with httpx.AsyncClient() as own:
        async with on_the_line(configuration, ledger) as line:
            line.http, closed = own, line.http
            own.base_url = closed.base_url
            request_id = await line.submitted()
            reading = asyncio.ensure_future(line.read_all(request_id))
            await until_followed(line, request_id)
        assert await reading == []


async def test_an_engine_that_falls_silent_is_told_and_the_stream_can_be_taken_up(line: Line) -> None:
    request_id = await line.submitted()
    run = line.edge.engine.run(request_id)
    run.broken = Unavailable("Temporal does not answer.")
    [failed] = await line.read_all(request_id)
    assert failed.kind == "error"
    assert failed.data["type"] == "urn:holdfast:problem:unavailable"
    run.broken = None
    async with line.following(request_id, failed.id or None) as events:
        run.tell(EventKind.STEP_FINISHED, "sanitize")
        assert (await anext(events)).kind == "step"
    await line.finish(request_id, "Because.")
    assert text_of(await line.read_all(request_id, failed.id or None)) == "Because."


async def test_a_request_that_ended_without_an_answer_is_done_without_text(line: Line) -> None:
    request_id = await line.submitted()
    await line.finish(request_id, status=Status.DENIED, reason="The budget is used up.", text="")
    [done] = await line.read_all(request_id)
    assert (done.kind, done.data["status"], done.data["reason"]) == ("done", "denied", "The budget is used up.")


async def test_a_request_that_the_engine_forgot_is_read_from_the_ledger(line: Line) -> None:
    request_id = await line.submitted()
    await line.finish(request_id, "Because.")
    line.edge.engine.executions.clear()
    had = await line.read_all(request_id)
    assert [one.kind for one in had] == ["text", "done"]
    assert "trace" not in had[-1].data["links"]


@pytest.mark.parametrize(
    "last",
    [
        "7",
        "m1.a1.o1",
        "m1.a1.o1.c0000000g",
        "m1.a1.o1.c00000000.done.done",
        "m-1.a1.o1.c0",
        f"m1.a1.o{10**20}.c00000000",
    ],
)
async def test_an_id_that_is_none_of_ours_is_refused(line: Line, last: str) -> None:
    request_id = await line.submitted()
    url = f"/v1/requests/{request_id}/events"
    problem(await line.http.get(url, headers={"Last-Event-ID": last}), 400, "Last-Event-ID")
    problem(await line.http.get(url, params={"last_event_id": last}), 400, "Last-Event-ID")


async def test_another_tenants_request_cannot_be_followed(configuration: Configuration, ledger: Ledger) -> None:
    async with on_the_line(configuration, ledger, api_keys="ka=acme/ann,ko=other/olga") as line:
        line.http.headers["Authorization"] = "Bearer ka"
        request_id = await line.submitted()
        line.http.headers["Authorization"] = "Bearer ko"
        problem(await line.http.get(f"/v1/requests/{request_id}/events"), 404, "id")


async def test_a_reader_that_does_not_read_holds_nobody_up(line: Line) -> None:
    request_id = await line.submitted()
    _reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(line.url).port or 0, limit=1)
    writer.write(f"GET /v1/requests/{request_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await writer.drain()
    await until_followed(line, request_id)
    # More than the sockets between them hold.
    pieces = ["x" * 65_536] * 300
    await line.publish(request_id, *pieces, end=True)
    text = "".join(pieces)
    await line.finish(request_id, text)
    async with asyncio.timeout(120):
        assert text_of(await line.read_all(request_id)) == text
    writer.close()


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_position_knows_whether_a_text_goes_on_from_it(shown: str, text: str) -> None:
    position = Shown(3).plus(shown[:5]).plus(shown[5:])
    assert Shown.read(str(position)) == position
    assert position.begins(shown + text)
    assert position.begins(text) is text.startswith(shown)
    assert replace(position, offset=0, check=0).begins(text)
