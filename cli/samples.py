"""The small shop under `samples/`, made ready for the demo agents: its database, and its pages on a loopback port."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from gateway.server import base_url, serving
from holdfast.configuration import Configuration
from holdfast.errors import ConfigurationError
from holdfast.tools.fetch import FetchUrl

HOST = "127.0.0.1"
PORT = 8093
"""Where `config/tools.toml` expects the pages."""
SAMPLES = Path("samples")
DATABASE = Path("var/samples/shop.db")
"""Where `config/tools.toml` expects it."""


def prepare(root: Path) -> bool:
    """Make the shop's database, unless it is there.

    Returns:
        Whether there is a shop: `root` has the samples.
    """
    source, database = root / SAMPLES / "shop.sql", root / DATABASE
    if not source.exists():
        return False
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        unfinished = database.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(unfinished)) as connection:
            connection.executescript(source.read_text(encoding="utf-8"))
        # In one step, so that a process that dies here leaves no half of a shop.
        unfinished.replace(database)
    return True


@asynccontextmanager
async def pages(root: Path, port: int = PORT) -> AsyncIterator[str]:
    """Serve the shop's pages for the duration of the block, at a free port if theirs is taken.

    Yields:
        Their base address.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.mount("/", StaticFiles(directory=root / SAMPLES / "pages"))
    async with AsyncExitStack() as stack:
        try:
            bound = await stack.enter_async_context(serving(app, HOST, port))
        except ConfigurationError:
            bound = await stack.enter_async_context(serving(app, HOST, 0))
        yield base_url(HOST, bound)


def at_pages(configuration: Configuration, url: str) -> Configuration:
    """The configuration with tools that read the pages at their usual address sent to where they are.

    The file names one port and not every one of this machine, where the gateway and the engine answer too. When that
    port was taken, another program answers there, and nobody meant its pages.

    Args:
        configuration: As it is in the files.
        url: The pages' base address.
    """
    tools = {
        name: tool.moved(f"{HOST}:{PORT}", urlsplit(url).netloc) if isinstance(tool, FetchUrl) else tool
        for name, tool in configuration.toolset.tools.items()
    }
    return replace(configuration, toolset=replace(configuration.toolset, tools=tools))
