"""Guessing keys at the sign-in form is slow, and disturbs nobody who is signed in."""

import httpx
from playwright.async_api import Browser, expect

from gateway.sign_in_brake import PER_ADDRESS
from tests.pages.browsers import window
from tests.pages.staged import Stage
from tests.pages.test_sessions import sign_in, token
from tests.pages.test_signing_out import person


async def guess(stage: Stage) -> list[httpx.Response]:
    """Try unknown keys until one is not looked at."""
    replies: list[httpx.Response] = []
    async with httpx.AsyncClient(base_url=stage.url, headers={"Origin": stage.url, "Accept": "text/html"}) as http:
        while not replies or replies[-1].status_code == 401:
            replies.append(await sign_in(http, f"guess {len(replies)}"))
            assert len(replies) < 10 * PER_ADDRESS.burst
    return replies


async def test_a_stranger_who_guesses_is_held_up_and_whoever_is_signed_in_is_not(keyed: Stage) -> None:
    request_id = await keyed.ask("Pay.", tenant="acme")
    async with person(keyed) as http:
        replies = await guess(keyed)
        assert len(replies) > PER_ADDRESS.burst
        held = replies[-1]
        assert held.status_code == 429
        assert 0 < int(held.headers["retry-after"]) <= PER_ADDRESS.every
        assert "Too many keys were tried" in held.text
        async with httpx.AsyncClient(base_url=keyed.url, headers={"Origin": keyed.url}) as other:
            refused = await sign_in(other, "ka")
            assert refused.status_code == 429
            assert refused.headers["content-type"] == "application/problem+json"
            assert "set-cookie" not in refused.headers
            assert refused.headers["retry-after"]
        assert (await http.get("/inbox")).status_code == 200
        sha = (await keyed.text("Pay.", "acme")).sha256
        reply = await http.post(
            f"/inbox/{request_id}/decisions",
            json={"decision": "approve", "content_sha256": sha},
            headers={"Accept": "application/json", "X-Holdfast-CSRF": await token(http)},
        )
        assert reply.status_code == 200
        api = await http.get("/v1/requests", headers={"Authorization": "Bearer ka"})
        assert api.status_code == 200


async def test_signing_in_often_with_a_known_key_is_never_held_up(keyed: Stage) -> None:
    for _ in range(3 * PER_ADDRESS.burst):
        async with person(keyed):
            pass


async def test_the_form_says_how_long_to_wait(keyed: Stage, browser: Browser) -> None:
    await guess(keyed)
    async with window(browser, keyed.url) as shown:
        shown.allowed = ("429",)
        await shown.goto("/inbox")
        await shown.page.fill("[name=key]", "ka")
        await shown.page.click("main button")
        await expect(shown.page.get_by_role("alert")).to_contain_text("seconds and try again")
