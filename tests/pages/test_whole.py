"""The pages of a whole installation: real engine, real worker, simulated model, and a person at a real browser."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from temporalio.client import Client

from gateway.app import create_app
from gateway.server import base_url, serving
from tests.house import House, open_house
from tests.pages.browsers import window
from tests.workflows.workshop import TOOLS, WORKSHOP

_PLAIN = 'deployments = ["sim"]\nprompt = "plain.md"\nrecall = false\n'
AGENTS = {
    "plain": _PLAIN,
    "held": _PLAIN + '[approval]\napprovers = ["ann", "bob"]\nwithin = "4h"\n',
    "heldjson": _PLAIN + 'output_schema = "point.json"\n[approval]\napprovers = ["ann"]\n',
    "careful": (
        _PLAIN + 'tools = ["lookup_order", "refund"]\n[[approvals]]\non = "refund"\nwhen = "args.amount > 10"\n'
        'approvers = ["role:finance"]\nquorum = 2\nwithin = "4h"\n'
        '[[approvals.escalation]]\napprovers = ["boss", "chief"]\nwithin = "1h"\n'
    ),
}
PEOPLE = '[tenants.pages.roles]\nfinance = ["ann", "bob", "cleo"]\n'
KEYS = ",".join(f"{name}=pages/{name}" for name in ("ann", "bob", "cleo", "boss", "carl"))
"""Each key is its user's name, in a tenant of its own: what other tests leave on the engine is in no inbox here."""
REFUND = {"kind": "tool_calls", "tool_calls": [{"name": "refund", "arguments": {"order": "A7", "amount": 30}}]}


@dataclass
class Served:
    """A house and the address of its pages."""

    house: House
    url: str

    def script(self, *replies: dict[str, Any]) -> None:
        """What the model says, one after the other."""
        self.house.simulator.script(*replies)


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory, temporal_client: Client) -> AsyncIterator[Served]:
    directory = tmp_path_factory.mktemp("pages")
    async with open_house(
        directory,
        temporal_client,
        agents=AGENTS,
        tools=TOOLS,
        people=PEOPLE,
        sandbox=False,
        settings={"api_keys": KEYS},
    ) as house:
        house.http.headers["Authorization"] = "Bearer carl"
        app = create_app(
            house.settings, house.configuration, house.services.ledger, house.engine, relay=house.services.relay
        )
        async with serving(app, "127.0.0.1", 0) as port:
            yield Served(house, base_url("127.0.0.1", port))


@pytest.fixture(autouse=True)
def unscripted(served: Served) -> None:
    """Let no test find what another has left."""
    served.house.reset()
    WORKSHOP.reset()


async def test_an_answer_is_asked_for_approved_and_delivered_without_a_reload(served: Served, browser: Browser) -> None:
    served.script({"kind": "ok", "content": "We are sorry."})
    async with window(browser, served.url) as manager, window(browser, served.url) as asker:
        await manager.sign_in("ann")
        await expect(manager.page.locator("#list")).to_contain_text("Nothing waits for you.")
        request = await served.house.submit("held", "My lamp is broken, write to me@example.org.")
        await asker.sign_in("carl", f"/requests/{request['id']}")
        await expect(asker.page.locator("section.banner")).to_contain_text("ann, bob may decide")
        await expect(manager.page.locator("article .content .prose")).to_have_text("We are sorry.")
        await expect(manager.page.locator("details.block .prose")).to_contain_text("My lamp is broken, write to")
        assert "me@example.org" not in await manager.page.inner_text("main")
        await manager.page.keyboard.press("a")
        await manager.page.keyboard.press("Enter")
        await expect(manager.page.locator("#list")).to_contain_text("Nothing waits for you.")
        await expect(asker.page.locator(".status").first).to_have_text("completed")
        await expect(asker.page.locator("section.content .prose")).to_have_text("We are sorry.")
        await expect(asker.page.locator(".votes")).to_contain_text("ann approved the answer")


async def test_an_edit_that_breaks_the_schema_is_refused_with_the_place(served: Served, browser: Browser) -> None:
    served.script({"kind": "ok", "content": '{"x": 1, "note": "fine"}'})
    request = await served.house.ask("heldjson", "Where?")
    async with window(browser, served.url) as shown:
        shown.allowed = ("422",)
        await shown.sign_in("ann", f"/inbox/{request['id']}")
        await shown.page.keyboard.press("e")
        await shown.page.fill("#payload", '{"x": "one", "note": "fine"}')
        await shown.page.keyboard.press("Control+Enter")
        await expect(shown.page.locator(".decide .problem")).to_contain_text("/x")
        await shown.page.fill("#payload", '{"x": 2, "note": "fine"}')
        await shown.page.keyboard.press("Control+Enter")
        await expect(shown.page.locator(".toast")).to_contain_text("Edited and approved.")
    final = await served.house.show(request["id"])
    assert final["answer"]["text"] == '{"x": 2, "note": "fine"}'


async def test_two_people_of_a_role_release_a_tool_call(served: Served, browser: Browser) -> None:
    served.script(REFUND, {"kind": "ok", "content": "Refunded."})
    request = await served.house.ask("careful", "Refund A7.")
    async with window(browser, served.url) as first, window(browser, served.url) as second:
        await first.sign_in("ann", f"/inbox/{request['id']}")
        await expect(first.page.locator("#title")).to_have_text("Call refund?")
        await expect(first.page.locator("table.arguments tbody td")).to_have_text(["30", "A7"])
        await first.page.keyboard.press("a")
        await first.page.keyboard.press("Enter")
        await expect(first.page.locator(".toast")).to_contain_text("1 more needed")
        assert WORKSHOP.refunds == []
        await second.sign_in("bob", f"/inbox/{request['id']}")
        await expect(second.page.locator(".votes")).to_contain_text("ann approved")
        await second.page.keyboard.press("a")
        await second.page.keyboard.press("Enter")
        await expect(second.page.locator(".toast")).to_contain_text("Approved.")
        await second.goto(f"/requests/{request['id']}")
        await expect(second.page.locator(".status").first).to_have_text("completed")
        await expect(second.page.locator(".call")).to_contain_text("refund")
        await expect(second.page.locator(".votes li")).to_have_count(2)
    assert [(order, amount) for order, amount, _ in WORKSHOP.refunds] == [("A7", 30)]


async def test_an_escalated_question_leaves_the_inbox_and_reaches_the_next_people(
    served: Served, browser: Browser
) -> None:
    served.script(REFUND, {"kind": "ok", "content": "Not refunded."})
    request = await served.house.ask("careful", "Refund A7.")
    async with window(browser, served.url) as clerk, window(browser, served.url) as boss:
        await boss.sign_in("boss")
        await expect(boss.page.locator(".row")).to_have_count(0)
        await clerk.sign_in("cleo", f"/inbox/{request['id']}")
        await clerk.page.keyboard.press("x")
        await clerk.page.keyboard.type("above my limit")
        await clerk.page.keyboard.press("Enter")
        await expect(clerk.page.locator(".toast")).to_contain_text("Escalated.")
        await expect(boss.page.locator(".row")).to_have_count(1)
        await expect(boss.page.locator(".note")).to_contain_text("Escalated")
        await expect(boss.page.locator(".votes, .facts").first).to_contain_text("boss, chief")
        await boss.page.keyboard.press("r")
        await boss.page.keyboard.type("no receipt")
        await boss.page.keyboard.press("Enter")
        await expect(boss.page.locator(".toast")).to_contain_text("Rejected.")
    final = await served.house.show(request["id"])
    assert final["status"] == "completed"
    assert WORKSHOP.refunds == []
    events = await served.house.services.ledger.approval_events.list("pages", request_id=request["id"])
    told = [(one.round, one.stage, one.actor, one.reason) for one in events if one.happening == "escalated"]
    assert told == [(1, 1, "cleo", "above my limit")]


async def test_a_late_click_is_told_who_was_faster(served: Served, browser: Browser) -> None:
    served.script({"kind": "ok", "content": "We are sorry."})
    request = await served.house.ask("held", "My lamp is broken.")
    async with window(browser, served.url) as shown:
        shown.allowed = ("409",)
        await shown.sign_in("ann", f"/inbox/{request['id']}")
        await shown.page.keyboard.press("r")
        decision = {
            "decision": "approve",
            "content_sha256": (await served.house.waiting(request["id"]))["content_sha256"],
        }
        address = f"/v1/approvals/{request['id']}/decisions"
        taken = await served.house.http.post(address, headers={"Authorization": "Bearer bob"}, json=decision)
        assert taken.status_code == 200, taken.text
        await shown.page.keyboard.press("Enter")
        problem = shown.page.locator(".decide .problem")
        await expect(problem).to_be_visible()
        await shown.page.keyboard.press("Escape")
        await expect(shown.page.locator("article.settled")).to_contain_text("bob approved the answer")


async def test_a_reply_is_read_while_it_is_written(served: Served, browser: Browser) -> None:
    counted = "One two three four five six seven eight nine ten. " * 6
    served.script({"kind": "ok", "content": counted, "token_ms": 150})
    async with window(browser, served.url) as shown:
        await shown.sign_in("carl")
        request = await served.house.submit("plain", "Count.")
        await shown.page.goto(f"{served.url}/requests/{request['id']}")
        await expect(shown.page.locator("#text")).to_contain_text("One two")
        await expect(shown.page.locator(".status").first).to_have_text("completed", timeout=120_000)
        await expect(shown.page.locator("section.content .prose")).to_have_text(counted.strip())
        await expect(shown.page.locator(".timeline li.end")).to_have_count(1)


async def test_a_request_is_cancelled_from_its_page(served: Served, browser: Browser) -> None:
    request = await served.house.ask("held", "My lamp is broken.")
    async with window(browser, served.url) as shown:
        await shown.sign_in("carl", f"/requests/{request['id']}")
        await shown.page.click("#cancel-open")
        await shown.page.click("[data-cancel]")
        await expect(shown.page.locator(".status").first).to_have_text("cancelled")
