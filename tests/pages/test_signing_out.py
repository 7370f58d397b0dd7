"""Signing out ends a session: its copies, what it has open, at every gateway; and what happens when nobody can tell."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, expect

from tests.pages.browsers import Window, window
from tests.pages.staged import Stage, staged
from tests.pages.test_sessions import cookie_of, sign_in, token

PATIENCE = 30
"""Seconds in which a stream has to say or do what it should."""


@asynccontextmanager
async def person(stage: Stage, key: str = "ka") -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who is signed in."""
    headers = {"Origin": stage.url, "Accept": "text/html"}
    async with httpx.AsyncClient(base_url=stage.url, headers=headers, timeout=PATIENCE) as http:
        assert (await sign_in(http, key)).status_code == 303
        yield http


async def sign_out(http: httpx.AsyncClient) -> httpx.Response:
    return await http.post("/inbox/logout", data={"csrf": await token(http)})


async def until(lines: AsyncIterator[str], wanted: str) -> None:
    """Read a stream up to a line."""
    async with asyncio.timeout(PATIENCE):
        async for line in lines:
            if line == wanted:
                return
    pytest.fail(f"The stream ended without {wanted!r}.")


async def rest(lines: AsyncIterator[str]) -> list[str]:
    """Read a stream to its end."""
    async with asyncio.timeout(PATIENCE):
        return [line async for line in lines if line]


async def test_a_copied_cookie_opens_nothing_after_signing_out(keyed: Stage) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    async with person(keyed) as http:
        copied = {"Cookie": cookie_of(http)}
        assert (await http.get("/inbox", headers=copied)).status_code == 200
        of_page = await token(http)
        reply = await sign_out(http)
        assert (reply.status_code, reply.headers["location"]) == (303, "/inbox/login")
        assert not http.cookies
        for path in ("/inbox", f"/inbox/{request_id}", "/requests", f"/requests/{request_id}"):
            reply = await http.get(path, headers=copied)
            assert reply.status_code == 303
            assert reply.headers["location"].startswith("/inbox/login")
        events = {**copied, "Accept": "text/event-stream"}
        for path in ("/inbox/events", f"/requests/{request_id}/events"):
            assert (await http.get(path, headers=events)).status_code == 401
        sha = (await keyed.text("Pay.", "acme")).sha256
        reply = await http.post(
            f"/inbox/{request_id}/decisions",
            json={"decision": "approve", "content_sha256": sha},
            headers={**copied, "X-Holdfast-CSRF": of_page, "Accept": "application/json"},
        )
        assert reply.status_code == 401
        assert keyed.engine.decisions == []


async def test_signing_out_leaves_the_persons_other_sessions_alone(keyed: Stage) -> None:
    async with person(keyed) as first, person(keyed) as second:
        await sign_out(first)
        assert (await second.get("/inbox")).status_code == 200


async def test_signing_in_anew_ends_the_session_that_the_browser_had(keyed: Stage) -> None:
    async with person(keyed) as http:
        earlier = {"Cookie": cookie_of(http)}
        await sign_in(http, "kb")
        assert "bob" in (await http.get("/requests")).text
        http.cookies.clear()
        assert (await http.get("/requests", headers=earlier)).status_code == 303


async def test_signing_out_twice_leads_to_the_login_like_once(keyed: Stage) -> None:
    async with person(keyed) as http:
        copied, of_page = {"Cookie": cookie_of(http)}, await token(http)
        await sign_out(http)
        reply = await http.post("/inbox/logout", data={"csrf": of_page}, headers=copied)
        assert (reply.status_code, reply.headers["location"]) == (303, "/inbox/login")


async def test_without_keys_a_session_ends_too(stage: Stage) -> None:
    async with httpx.AsyncClient(base_url=stage.url, headers={"Origin": stage.url, "Accept": "text/html"}) as http:
        await http.post("/inbox/login", data={"name": "ann"})
        copied = {"Cookie": cookie_of(http)}
        await sign_out(http)
        assert (await http.get("/inbox", headers=copied)).status_code == 303


@pytest.mark.parametrize("path", ["/inbox/events", "/requests/{}/events"])
async def test_an_open_stream_ends_when_its_session_is_signed_out_of(keyed: Stage, path: str) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    async with (
        person(keyed) as http,
        person(keyed) as other,
        http.stream("GET", path.format(request_id)) as stream,
        other.stream("GET", path.format(request_id)) as kept,
    ):
        lines, others = stream.aiter_lines(), kept.aiter_lines()
        await until(lines, "")
        await until(others, "")
        await sign_out(http)
        assert "event: signed-out" in await rest(lines)
        await sign_out(other)
        assert "event: signed-out" in await rest(others)


async def test_a_stream_at_another_gateway_ends_too(keyed: Stage, tmp_path: Any) -> None:
    proxied = {"Host": "holdfast.example", "Origin": "http://holdfast.example"}
    keys = "ka=acme/ann"
    async with (
        staged(tmp_path / "other", ledger_file=keyed.ledger_file, api_keys=keys) as other,
        httpx.AsyncClient(base_url=keyed.url, headers={**proxied, "Accept": "text/html"}, timeout=PATIENCE) as http,
    ):
        await sign_in(http, "ka")
        async with http.stream("GET", f"{other.url}/inbox/events") as stream:
            lines = stream.aiter_lines()
            await until(lines, "event: inbox")
            await sign_out(http)
            assert "event: signed-out" in await rest(lines)


async def test_an_open_stream_ends_when_the_time_of_its_session_is_over(keyed: Stage) -> None:
    async with person(keyed) as http, http.stream("GET", "/inbox/events") as stream:
        lines = stream.aiter_lines()
        await until(lines, "event: inbox")
        keyed.sql("UPDATE browser_sessions SET expires_at = '2026-01-01 00:00:00.000000'")
        assert "event: signed-out" in await rest(lines)


async def test_while_the_ledger_cannot_tell_nobody_is_signed_in_and_the_page_says_why(keyed: Stage) -> None:
    request_id = await keyed.ask("The secret plan.", tenant="acme")
    async with person(keyed) as http, http.stream("GET", "/inbox/events") as stream:
        lines = stream.aiter_lines()
        await until(lines, "event: inbox")
        with keyed.no_sessions():
            assert "event: signed-out" not in await rest(lines)
            for path in ("/inbox", f"/inbox/{request_id}", f"/requests/{request_id}", "/requests"):
                reply = await http.get(path)
                assert reply.status_code == 503
                assert "The ledger does not answer" in reply.text
                assert "secret" not in reply.text
                assert str(keyed.ledger_file) not in reply.text
            reply = await http.post("/inbox/login", data={"key": "ka"})
            assert reply.status_code == 503
            assert "not signed in yet" in reply.text
            assert "set-cookie" not in reply.headers
        assert (await http.get("/inbox")).status_code == 200


async def test_a_sign_out_that_is_not_on_record_says_so_and_can_be_repeated(keyed: Stage) -> None:
    async with person(keyed) as http:
        of_page = await token(http)
        with keyed.no_sessions():
            reply = await http.post("/inbox/logout", data={"csrf": of_page})
            assert reply.status_code == 503
            assert "set-cookie" not in reply.headers
        assert (await sign_out(http)).status_code == 303


async def test_a_page_in_another_tab_says_that_the_session_is_over_and_leads_to_the_login(
    keyed: Stage, browser: Browser
) -> None:
    request_id = await keyed.ask("The secret plan.", tenant="acme")
    async with window(browser, keyed.url) as shown:
        shown.allowed = ("401",)
        await shown.sign_in("ka", f"/inbox/{request_id}")
        await expect(shown.page.locator(".live")).to_have_text("live")
        beside = Window(await shown.page.context.new_page(), keyed.url)
        await beside.goto(f"/requests/{request_id}")
        await expect(beside.page.locator("#live")).to_have_text("live")
        third = Window(await shown.page.context.new_page(), keyed.url)
        await third.goto("/requests")
        await third.page.click("text=Sign out")
        for left in (shown, beside):
            await expect(left.page.locator(".notice")).to_contain_text("no longer signed in")
            await expect(left.page.locator("body")).not_to_contain_text("secret")
        await shown.page.fill("[name=key]", "ka")
        await shown.page.click("main button")
        await expect(shown.page.locator("article")).to_have_attribute("data-id", request_id)


async def test_whoever_is_writing_keeps_the_text_signs_in_beside_and_sends_it(keyed: Stage, browser: Browser) -> None:
    await keyed.ask("Pay.", tenant="acme")
    async with window(browser, keyed.url) as shown:
        shown.allowed = ("401", "403")
        await shown.sign_in("ka")
        await shown.page.keyboard.press("r")
        await shown.page.keyboard.type("too much")
        keyed.sql("UPDATE browser_sessions SET ended_at = opened_at")
        await expect(shown.page.locator("#ended")).to_contain_text("What you have written stays here")
        await expect(shown.page.locator("[name=reason]")).to_have_value("too much")
        await expect(shown.page.locator("#live")).to_have_text("signed out")
        await expect(shown.page.locator(".row")).to_have_count(1)
        await shown.page.keyboard.press("Enter")
        await expect(shown.page.locator(".decide .problem")).to_contain_text("not signed in any longer")
        async with shown.page.context.expect_page() as opened:
            await shown.page.click("#ended a")
        login = await opened.value
        await login.fill("[name=key]", "ka")
        await login.click("main button")
        await expect(login.locator(".who .name")).to_have_text("ann")
        await shown.page.click(".sure")
        await expect(shown.page.locator(".toast")).to_contain_text("Rejected.")
        await expect(shown.page.locator("#ended")).to_be_hidden()
        assert [(decision.actor, decision.reason) for _, decision, _ in keyed.engine.decisions] == [("ann", "too much")]
        await keyed.ask("Live again.", tenant="acme")
        await expect(shown.page.locator(".row .head")).to_have_text("Live again.")


async def test_somebody_else_who_signs_in_beside_does_not_decide_with_the_page_of_the_first(
    keyed: Stage, browser: Browser
) -> None:
    await keyed.ask("Pay.", tenant="acme")
    async with window(browser, keyed.url) as shown:
        shown.allowed = ("401", "403")
        await shown.sign_in("ka")
        await shown.page.keyboard.press("r")
        await shown.page.keyboard.type("too much")
        beside = Window(await shown.page.context.new_page(), keyed.url)
        await beside.goto("/requests")
        await beside.page.click("text=Sign out")
        await beside.page.fill("[name=key]", "kb")
        await beside.page.click("main button")
        await expect(beside.page.locator(".who .name")).to_have_text("bob")
        await shown.page.click(".sure")
        await expect(shown.page.locator(".decide .problem")).to_contain_text("from another session")
        assert keyed.engine.decisions == []
