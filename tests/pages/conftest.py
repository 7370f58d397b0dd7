"""One Chromium for all tests of pages, and stages to look at: an open one, and one that asks for keys."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.pages.browsers import PATIENCE_MS, Window, chromium, window
from tests.pages.staged import Stage, staged

KEYS = "ka=acme/ann,kb=acme/bob,ko=other/olga"


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A browser without any page."""
    expect.set_options(timeout=PATIENCE_MS)
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A gateway without API keys."""
    async with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
async def keyed(tmp_path: Path) -> AsyncIterator[Stage]:
    """A gateway with the keys `ka` (acme/ann), `kb` (acme/bob) and `ko` (other/olga)."""
    async with staged(tmp_path, api_keys=KEYS) as stage:
        yield stage


@pytest.fixture
async def shown(browser: Browser, stage: Stage) -> AsyncIterator[Window]:
    """A desktop window on the open stage."""
    async with window(browser, stage.url) as shown:
        yield shown


@pytest.fixture
async def phone(browser: Browser, stage: Stage) -> AsyncIterator[Window]:
    """A window as wide as a phone."""
    async with window(browser, stage.url, width=390, height=844) as shown:
        yield shown
