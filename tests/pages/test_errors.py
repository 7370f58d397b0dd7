"""What goes wrong is a page for whoever navigates, and a problem document for a program."""

import httpx
import pytest
from playwright.async_api import Browser, expect

from gateway.pages.rendering import POLICY
from holdfast.errors import DecisionRefused
from tests.pages.browsers import window
from tests.pages.staged import Stage
from tests.pages.test_sessions import sign_in, token
from tests.pages.test_signing_out import person

NAVIGATION = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
"""What Chromium sends when somebody opens an address."""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def is_page(reply: httpx.Response, status: int, *said: str) -> None:
    assert reply.status_code == status
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"] == POLICY
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-request-id"] in reply.text
    assert 'href="/inbox"' in reply.text
    for text in said:
        assert text in reply.text


def is_document(reply: httpx.Response, status: int) -> None:
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.json()
    assert document["status"] == status
    assert document["remedy"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/nowhere", 404, "There is no page at this address"),
        ("/inbox/req_none", 404, "There is nothing here"),
        ("/requests/req_none", 404, "choose from the list of requests"),
        ("/requests/" + "x" * 5000, 404, "There is nothing here"),
        ("/inbox?page=none", 400, "This address is not right"),
        ("/inbox?page=0", 400, "use the links there"),
        ("/requests/req_none/cancel", 405, "This is not a page"),
        ("/inbox/req_none/decisions", 405, "Use the button in the inbox"),
        ("/inbox/logout", 404, "There is nothing here"),
    ],
)
async def test_an_address_that_leads_nowhere_is_a_page_to_a_browser_and_a_document_to_a_program(
    keyed: Stage, path: str, status: int, said: str
) -> None:
    async with person(keyed) as http:
        is_page(await http.get(path, headers={"Accept": NAVIGATION}), status, said)
        for accept in ("application/json", "*/*", "", "text/event-stream"):
            is_document(await http.get(path, headers={"Accept": accept}), status)


@pytest.mark.parametrize(
    "accept", ["application/json, text/html", "text/html;q=0.5, application/json", "text/html;q=0"]
)
async def test_who_wants_json_at_least_as_much_gets_a_document(keyed: Stage, accept: str) -> None:
    async with person(keyed) as http:
        is_document(await http.get("/nowhere", headers={"Accept": accept}), 404)


@pytest.mark.parametrize("accept", ["text/html", "text/html, application/json;q=0.9", "*/*;q=0.1, TEXT/HTML;q=0.2"])
async def test_who_wants_html_more_gets_a_page(keyed: Stage, accept: str) -> None:
    async with person(keyed) as http:
        is_page(await http.get("/nowhere", headers={"Accept": accept}), 404)


async def test_the_api_answers_with_documents_whatever_is_accepted(keyed: Stage) -> None:
    async with person(keyed) as http:
        for path, status in (("/v1/requests", 401), ("/v1/nowhere", 404), ("/v1/approvals", 401), ("/static/x", 404)):
            is_document(await http.get(path, headers={"Accept": NAVIGATION}), status)


async def test_a_decision_that_a_form_posts_is_refused_on_a_page(keyed: Stage) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    address = f"/inbox/{request_id}/decisions"
    async with person(keyed) as http:
        is_page(await http.post(address, data={"decision": "approve"}), 403, "Stale page", "Reload the page")
        good = {"X-Holdfast-CSRF": await token(http)}
        is_page(await http.post(address, data={"decision": "approve"}, headers=good), 415, "This cannot be read")
        is_page(await http.post(address, json={"decision": "burn"}, headers=good), 422, "This does not fit")
        many = {"decision": "approve", "reason": "x" * 2_000_000}
        is_page(await http.post(address, json=many, headers=good), 413, "That was too much")
        body = {"decision": "approve", "content_sha256": "0" * 64}
        keyed.engine.refusal = DecisionRefused("<b>bob</b> already decided.", code="already_decided")
        reply = await http.post(address, json=body, headers=good)
        is_page(reply, 409, "This has changed meanwhile", "the page of the request shows its outcome")
        assert "<b>" not in reply.text
        refused = await http.post(address, json=body, headers={**good, "Accept": "application/json"})
        is_document(refused, 409)
        assert "GET /v1" not in refused.text
        http.cookies.clear()
        is_page(await http.post(address, json=body, headers=good), 401, "not signed in any longer")


async def test_a_form_that_is_too_large_is_refused_on_a_page(keyed: Stage) -> None:
    async with httpx.AsyncClient(base_url=keyed.url, headers={"Origin": keyed.url, "Accept": NAVIGATION}) as http:
        is_page(await sign_in(http, "k" * 10_000), 413, "That was too much")


async def test_a_fault_of_our_own_is_a_page_without_any_detail_of_it(keyed: Stage) -> None:
    keyed.engine.broken = RuntimeError("a secret in a stack trace")
    async with person(keyed) as http:
        reply = await http.get("/requests", headers={"Accept": NAVIGATION})
        is_page(reply, 500, "Something broke here", "tell whoever runs Holdfast the reference")
        assert "secret" not in reply.text
        is_document(await http.get("/requests", headers={"Accept": "application/json"}), 500)


@pytest.mark.parametrize("path", ["/%3Cscript%3Ealert(1)%3C/script%3E", "/inbox/%22%3E%3Cscript%3E", "//evil.example/"])
async def test_nothing_of_an_address_gets_into_the_page(keyed: Stage, path: str) -> None:
    async with person(keyed) as http:
        for broken in (None, RuntimeError("broken")):
            keyed.engine.broken = broken
            reply = await http.get(f"{keyed.url}{path}", headers={"Accept": NAVIGATION})
            is_page(reply, 500 if broken and "inbox" in path else 404)
            assert "<script" not in reply.text
            assert "evil.example" not in reply.text


async def test_while_the_engine_is_away_a_page_tries_again_and_a_decision_is_not_sent_again_by_itself(
    keyed: Stage,
) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    async with person(keyed) as http:
        good = {"X-Holdfast-CSRF": await token(http), "Accept": NAVIGATION}
        keyed.engine.away = True
        reply = await http.get("/requests", headers=good)
        is_page(reply, 503, "The engine does not answer", 'content="5; url=/requests"')
        assert reply.headers["retry-after"]
        body = {"decision": "approve", "content_sha256": "0" * 64}
        reply = await http.post(f"/inbox/{request_id}/decisions", json=body, headers=good)
        is_page(reply, 503, "try again shortly")
        assert "http-equiv" not in reply.text


async def test_a_browser_that_is_lost_finds_its_way_back_to_the_inbox(keyed: Stage, browser: Browser) -> None:
    async with window(browser, keyed.url) as shown:
        shown.allowed = ("404",)
        await shown.sign_in("ka")
        await shown.goto("/inbox/req_none")
        await expect(shown.page.locator("main")).to_contain_text("There is nothing here")
        await shown.goto("/nowhere")
        await expect(shown.page.get_by_role("alert")).to_contain_text("There is nothing here")
        await shown.page.click("text=To the inbox")
        await expect(shown.page.locator("#list")).to_contain_text("Nothing waits for you.")
