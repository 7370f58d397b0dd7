"""Signing in and out, and what keeps other people, other tenants and other sites out of the pages."""

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, expect

from gateway import browser as sessions
from gateway.pages.rendering import POLICY
from tests.pages.browsers import Window, window
from tests.pages.staged import Stage, staged


@pytest.fixture
async def http(keyed: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """A client with cookies of its own that calls as a browser does."""
    headers = {"Origin": keyed.url, "Accept": "text/html"}
    async with httpx.AsyncClient(base_url=keyed.url, headers=headers) as http:
        yield http


async def sign_in(http: httpx.AsyncClient, key: str) -> httpx.Response:
    return await http.post("/inbox/login", data={"key": key})


async def token(http: httpx.AsyncClient) -> str:
    """What the pages of the session send back."""
    return (await http.get("/requests")).text.partition('data-token="')[2].partition('"')[0]


def cookie_of(http: httpx.AsyncClient) -> str:
    """What somebody who can read the browser's disk copies, as a header."""
    ((name, cookie),) = http.cookies.items()
    return f"{name}={cookie}"


async def decide(http: httpx.AsyncClient, request_id: str, sha: str, **headers: str) -> httpx.Response:
    return await http.post(
        f"/inbox/{request_id}/decisions",
        json={"decision": "approve", "content_sha256": sha},
        headers={"Accept": "application/json", **headers},
    )


@pytest.mark.parametrize(("fields", "size", "status"), [(21, 1, 400), (1, 9_000, 413)])
async def test_a_form_that_no_page_here_has_is_refused(
    http: httpx.AsyncClient, fields: int, size: int, status: int
) -> None:
    form = {f"field{number}": "x" * size for number in range(fields)}
    refused = await http.post("/inbox/login", data=form)
    assert refused.status_code == status


async def test_a_person_signs_in_with_a_key_and_out_again(keyed: Stage, browser: Browser) -> None:
    await keyed.ask("Pay.", tenant="acme")
    async with window(browser, keyed.url) as shown:
        shown.allowed = ("401",)
        await shown.goto("/inbox")
        await shown.page.fill("[name=key]", "wrong")
        await shown.page.click("main button")
        await expect(shown.page.get_by_role("alert")).to_contain_text("not known here")
        await shown.page.fill("[name=key]", "ka")
        await shown.page.click("main button")
        await expect(shown.page.locator(".who .name")).to_have_text("ann")
        await expect(shown.page.locator(".row")).to_have_count(1)
        await shown.page.click("text=Sign out")
        await expect(shown.page.locator("h1")).to_have_text("Sign in")
        await shown.goto("/inbox")
        await expect(shown.page.locator("h1")).to_have_text("Sign in")


async def test_after_signing_in_the_page_that_was_asked_for_opens(keyed: Stage, browser: Browser) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    async with window(browser, keyed.url) as shown:
        await shown.sign_in("kb", f"/inbox/{request_id}")
        await expect(shown.page.locator("article")).to_have_attribute("data-id", request_id)


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "/v1/requests", "x"])
async def test_signing_in_leads_to_pages_of_this_site_only(http: httpx.AsyncClient, target: str) -> None:
    reply = await http.post("/inbox/login", data={"key": "ka", "next": target})
    assert (reply.status_code, reply.headers["location"]) == (303, "/inbox")


async def test_a_key_is_never_in_the_cookie_and_scripts_cannot_read_it(http: httpx.AsyncClient) -> None:
    cookie = (await sign_in(http, "ka")).headers["set-cookie"]
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "ka" not in cookie.partition("=")[2].split(".")
    assert "secure" not in cookie.lower()


async def test_the_cookie_is_kept_to_encrypted_connections_where_the_public_address_is(tmp_path: Any) -> None:
    gateway = {"public_url": "https://holdfast.example"}
    headers = {"Origin": "https://holdfast.example"}
    async with (
        staged(tmp_path, api_keys="ka=acme/ann", gateway=gateway) as stage,
        httpx.AsyncClient(base_url=stage.url, headers=headers) as http,
    ):
        reply = await sign_in(http, "ka")
    assert reply.status_code == 303
    assert "Secure" in reply.headers["set-cookie"]


@pytest.mark.parametrize("change", ["seal", "expiry", "nonce", "kind", "cut", "empty"])
async def test_a_forged_session_is_none(http: httpx.AsyncClient, change: str) -> None:
    await sign_in(http, "ka")
    ((name, cookie),) = http.cookies.items()
    kind, nonce, expires, seal = cookie.split(".")
    forged = {
        "seal": f"{kind}.{nonce}.{expires}.{'0' * len(seal)}",
        "expiry": f"{kind}.{nonce}.{int(expires) + 1}.{seal}",
        "nonce": f"{kind}.x{nonce}.{expires}.{seal}",
        "kind": "name.x.YW5u",
        "cut": f"{kind}.{nonce}",
        "empty": "",
    }[change]
    http.cookies.clear()
    reply = await http.get("/inbox", headers={"Cookie": f"{name}={forged}"})
    assert (reply.status_code, reply.headers.get("location")) == (303, "/inbox/login")


async def test_a_session_ends_after_a_working_day(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    await sign_in(http, "ka")
    assert (await http.get("/inbox")).status_code == 200
    monkeypatch.setattr(sessions, "LASTS", timedelta(seconds=-1))
    over = (await sign_in(http, "ka")).headers["set-cookie"].partition(";")[0]
    http.cookies.clear()  # a browser forgets it by itself; whoever copied it does not
    assert (await http.get("/inbox", headers={"Cookie": over})).status_code == 303


async def test_a_withdrawn_key_takes_its_sessions_along(keyed: Stage, http: httpx.AsyncClient, tmp_path: Any) -> None:
    http.headers["Host"] = "holdfast.example"
    http.headers["Origin"] = "http://holdfast.example"
    await sign_in(http, "ka")
    async with staged(tmp_path / "later", ledger_file=keyed.ledger_file, api_keys="kb=acme/bob") as later:
        reply = await http.get(f"{later.url}/inbox")
    assert (reply.status_code, reply.headers["location"]) == (303, "/inbox/login")


async def test_another_gateway_with_the_same_keys_knows_the_session_and_that_it_ended(
    keyed: Stage, http: httpx.AsyncClient, tmp_path: Any
) -> None:
    http.headers["Host"] = "holdfast.example"
    http.headers["Origin"] = "http://holdfast.example"
    await sign_in(http, "ka")
    keys = "x=acme/x,ka=acme/ann"
    async with staged(tmp_path / "other", ledger_file=keyed.ledger_file, api_keys=keys) as other:
        assert (await http.get(f"{other.url}/inbox")).status_code == 200
        copied = cookie_of(http)
        await http.post("/inbox/logout", data={"csrf": await token(http)})
        assert (await http.get(f"{other.url}/inbox", headers={"Cookie": copied})).status_code == 303


async def test_a_key_that_is_given_to_someone_else_does_not_give_away_the_session(
    keyed: Stage, http: httpx.AsyncClient, tmp_path: Any
) -> None:
    http.headers["Host"] = "holdfast.example"
    http.headers["Origin"] = "http://holdfast.example"
    await sign_in(http, "ka")
    async with staged(tmp_path / "later", ledger_file=keyed.ledger_file, api_keys="ka=acme/eve") as later:
        assert (await http.get(f"{later.url}/inbox")).status_code == 303


async def test_two_installations_on_one_host_do_not_sign_each_other_out(
    keyed: Stage, browser: Browser, tmp_path: Any
) -> None:
    async with (
        staged(tmp_path / "other", api_keys="ka=acme/ann") as other,
        window(browser, keyed.url) as shown,
    ):
        await shown.sign_in("ka")
        beside = Window(await shown.page.context.new_page(), other.url)
        await beside.sign_in("ka")
        await beside.page.click("text=Sign out")
        await expect(beside.page.locator("h1")).to_have_text("Sign in")
        await shown.page.reload()
        await expect(shown.page.locator(".who .name")).to_have_text("ann")
        names = {cookie.get("name") for cookie in await shown.page.context.cookies()}
        assert len(names) == 1


async def test_another_tenant_sees_nothing(keyed: Stage, http: httpx.AsyncClient) -> None:
    request_id = await keyed.ask("The secret plan.", tenant="acme", approvers=("*",))
    await sign_in(http, "ko")
    for path in ("/inbox", f"/inbox/{request_id}", f"/requests/{request_id}", "/requests", "/inbox?part=list"):
        reply = await http.get(path)
        assert "secret" not in reply.text
        assert request_id not in reply.text.replace(path, "")
        assert reply.status_code == (404 if request_id in path else 200)
    assert (await http.get(f"/requests/{request_id}/events")).status_code == 404
    sha = (await keyed.text("The secret plan.", "acme")).sha256
    reply = await decide(http, request_id, sha, **{sessions.TOKEN_HEADER: await token(http)})
    assert reply.status_code == 404
    assert keyed.engine.decisions == []


async def test_a_decision_without_the_pages_token_or_from_elsewhere_is_refused(
    keyed: Stage, http: httpx.AsyncClient
) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    sha = (await keyed.text("Pay.", "acme")).sha256
    await sign_in(http, "ka")
    good = {sessions.TOKEN_HEADER: await token(http)}
    refused = [
        await decide(http, request_id, sha),
        await decide(http, request_id, sha, **{sessions.TOKEN_HEADER: "0" * 64}),
        await decide(http, request_id, sha, **good, Origin="https://evil.example"),
        await decide(http, request_id, sha, **good, Origin="null"),
        await decide(http, request_id, sha, **good, **{"Sec-Fetch-Site": "cross-site"}),
        await decide(http, request_id, sha, **good, **{"Sec-Fetch-Site": "same-site"}),
    ]
    assert [reply.status_code for reply in refused] == [403] * len(refused)
    assert keyed.engine.decisions == []
    assert (await decide(http, request_id, sha, **good)).status_code == 200
    http.cookies.clear()
    assert (await decide(http, request_id, sha, **good)).status_code == 401


async def test_a_call_that_does_not_say_where_it_comes_from_is_refused(keyed: Stage, http: httpx.AsyncClient) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    await sign_in(http, "ka")
    good = {sessions.TOKEN_HEADER: await token(http)}
    del http.headers["Origin"]
    sha = (await keyed.text("Pay.", "acme")).sha256
    assert (await decide(http, request_id, sha, **good)).status_code == 403


@pytest.mark.parametrize("path", ["/inbox/login", "/inbox/logout"])
async def test_forms_are_taken_from_this_site_only(http: httpx.AsyncClient, path: str) -> None:
    await sign_in(http, "ka")
    data = {"key": "kb", "csrf": await token(http)}
    reply = await http.post(path, data=data, headers={"Origin": "https://evil.example"})
    assert reply.status_code == 403
    assert "set-cookie" not in reply.headers


async def test_the_token_of_another_session_is_refused(keyed: Stage, http: httpx.AsyncClient) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    await sign_in(http, "kb")
    of_bob = await token(http)
    await sign_in(http, "ka")
    sha = (await keyed.text("Pay.", "acme")).sha256
    reply = await decide(http, request_id, sha, **{sessions.TOKEN_HEADER: of_bob})
    assert reply.status_code == 403
    assert "Reload the page" in reply.json()["remedy"]


async def test_a_page_of_another_site_can_neither_decide_nor_read_nor_frame(keyed: Stage, browser: Browser) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    sha = (await keyed.text("Pay.", "acme")).sha256
    async with window(browser, keyed.url) as shown:
        shown.allowed = (
            "evil.example",
            "403",
            "401",
            "405",
            "CORS",
            "Failed to load resource",
            "frame",
            "X-Frame-Options",
        )
        await shown.sign_in("ka")
        await shown.page.route(
            "http://evil.example/**",
            lambda route: route.fulfill(
                content_type="text/html",
                body=f"""<iframe src="{keyed.url}/inbox"></iframe>
                <form method=post action="{keyed.url}/inbox/{request_id}/decisions" enctype="text/plain">
                <input name='{{"decision":"approve","content_sha256":"{sha}","reason":"' value='"}}'></form>""",
            ),
        )
        await shown.page.goto("http://evil.example/")
        said = await shown.page.evaluate(
            """async (url) => {
              const body = "x", ways = [{}, { mode: "no-cors", method: "POST", credentials: "include", body }];
              const tries = ways.map((way) => fetch(url, way).then((reply) => reply.type, () => "failed"));
              return Promise.all(tries);
            }""",
            f"{keyed.url}/inbox/{request_id}/decisions",
        )
        assert set(said) <= {"failed", "opaque"}
        frame = next(frame for frame in shown.page.frames if frame is not shown.page.main_frame)
        assert "Waiting for you" not in await frame.content()
        await shown.page.evaluate("document.forms[0].submit()")
        await shown.page.wait_for_url(f"{keyed.url}/**")
        await expect(shown.page.locator("main")).to_contain_text("nothing was done")
        assert keyed.engine.decisions == []


async def test_every_page_forbids_what_it_does_not_need(keyed: Stage, http: httpx.AsyncClient) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    pages = [await http.get("/inbox/login"), await sign_in(http, "wrong")]
    await sign_in(http, "ka")
    for path in ("/inbox", f"/inbox/{request_id}", "/requests", f"/requests/{request_id}", "/inbox/req_none"):
        pages.append(await http.get(path))
    for page in pages:
        assert page.headers["content-security-policy"] == POLICY
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "<script>" not in page.text
        assert " style=" not in page.text
        assert " onclick=" not in page.text
    assert "unsafe" not in POLICY
    assert "http" not in POLICY


async def test_files_beside_the_pages_are_named_and_nothing_else_is_served(http: httpx.AsyncClient) -> None:
    reply = await http.get("/static/inbox.js")
    assert reply.headers["content-type"].startswith("text/javascript")
    assert (await http.get("/static/inbox.js", headers={"If-None-Match": reply.headers["etag"]})).status_code == 304
    for name in ("../templates/base.html", "..%2Frendering.py", "none.js", ".", "%2e%2e"):
        assert (await http.get(f"/static/{name}")).status_code == 404


async def test_without_keys_a_name_is_enough_on_this_machine_and_nowhere_else(stage: Stage, shown: Window) -> None:
    await shown.sign_in("ann")
    await expect(shown.page.locator(".who .name")).to_have_text("ann")
    async with httpx.AsyncClient(base_url=stage.url) as http:
        for headers in ({"Host": "holdfast.example"}, {"Origin": "https://evil.example"}):
            assert (await http.get("/inbox", headers=headers)).status_code in (403, 421)
            assert (await http.post("/inbox/login", data={"name": "ann"}, headers=headers)).status_code in (403, 421)


async def test_a_name_that_cannot_be_is_refused_kindly(stage: Stage) -> None:
    async with httpx.AsyncClient(base_url=stage.url, headers={"Origin": stage.url}) as http:
        for name in ("", 'a"b', "x" * 200, "naïve"):
            reply = await http.post("/inbox/login", data={"name": name})
            assert reply.status_code == 400
            assert "plain user name" in reply.text


async def test_an_expired_session_is_told_to_a_page_that_was_open(keyed: Stage, browser: Browser) -> None:
    await keyed.ask("Pay.", tenant="acme")
    async with window(browser, keyed.url) as shown:
        shown.allowed = ("401",)
        await shown.sign_in("ka")
        await shown.page.keyboard.press("r")
        await shown.page.context.clear_cookies()
        await shown.page.keyboard.type("too much")
        await shown.page.keyboard.press("Enter")
        await expect(shown.page.locator(".decide .problem")).to_contain_text("You are not signed in any longer")
        await expect(shown.page.locator("[name=reason]")).to_have_value("too much")


async def test_the_address_alone_leads_a_browser_to_the_inbox_and_a_program_nowhere(http: httpx.AsyncClient) -> None:
    reply = await http.get("/")
    assert (reply.status_code, reply.headers["location"]) == (303, "/inbox")
    for accept in ("application/json", "*/*"):
        refused = await http.get("/", headers={"Accept": accept})
        assert refused.status_code == 404
        assert refused.headers["content-type"].startswith("application/problem+json")


def cookie_name(url: str) -> str:
    return f"{sessions.COOKIE}_{hashlib.sha256(url.removeprefix('http://').encode()).hexdigest()[:8]}"


async def test_a_cookie_with_a_name_that_cannot_be_is_nobodys(stage: Stage) -> None:
    async with httpx.AsyncClient(base_url=stage.url, cookies={cookie_name(stage.url): "name.x.Kg=="}) as client:
        assert (await client.get("/inbox")).status_code == 401
        assert (await client.get("/inbox/login")).status_code == 200
