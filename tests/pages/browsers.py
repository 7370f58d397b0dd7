"""Chromium for tests: where it is, what happens without it, and what every page of ours must not do."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


LINGER = """{ const wait = window.setTimeout;
window.setTimeout = (act, ms, ...given) => wait(act, ms === 6000 ? 120000 : ms, ...given); }"""
"""A message that goes away after six seconds stays for two minutes: a busy machine may look at it late."""
START_MS = 120_000
"""How long the browser may take to start; the first start reads hundreds of megabytes."""
PATIENCE_MS = 60_000
"""How long a page may take to show what it should; a shared machine pauses at any time."""


def chromium_path() -> str:
    """The browser; without one the test is skipped, or fails where `CI` is set."""
    path = os.environ.get("HOLDFAST_TEST_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
    if not os.access(path, os.X_OK):
        reason = f"There is no Chromium at {path}: install it, or set HOLDFAST_TEST_CHROMIUM to its path"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser for the duration of the block."""
    path = chromium_path()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(FLAGS), timeout=START_MS)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Window:
    """A page, and what it did that it must not: errors, violations of its policy, requests to elsewhere."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)
    allowed: tuple[str, ...] = ()
    """Parts of messages that a test provokes."""

    def hear(self, message: ConsoleMessage) -> None:
        """Note what the console reports."""
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    async def goto(self, path: str) -> None:
        """Open a path."""
        await self.page.goto(self.url + path)

    async def sign_in(self, name: str, path: str = "/inbox") -> None:
        """Say who one is and land on a path."""
        await self.goto(path)
        await self.page.fill("input[name=name], input[name=key]", name)
        await self.page.click("main button")
        await self.page.wait_for_url(self.url + path)

    def check(self) -> None:
        """Fail for everything that it must not have done."""
        found = [fault for fault in self.faults if not any(part in fault for part in self.allowed)]
        assert not found, found


@asynccontextmanager
async def window(
    browser: Browser, url: str, *, width: int = 1280, height: int = 860, dark: bool = False, scale: float = 1
) -> AsyncIterator[Window]:
    """A window with cookies of its own, which is checked at the end."""
    context: BrowserContext = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        device_scale_factor=scale,
        has_touch=width < 600,
        is_mobile=width < 600,
    )
    context.set_default_timeout(PATIENCE_MS)
    await context.add_init_script(LINGER)
    try:
        page = await context.new_page()
        opened = Window(page, url)
        page.on("console", opened.hear)
        page.on("pageerror", lambda error: opened.faults.append(f"script: {error}"))
        page.on("dialog", lambda dialog: opened.faults.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((url, "data:", "about:"))
                else opened.faults.append(f"asked {request.url}")
            ),
        )
        yield opened
        opened.check()
    finally:
        await context.close()
