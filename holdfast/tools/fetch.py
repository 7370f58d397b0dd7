"""`fetch_url`: reads a page from the web, only where the project's list allows, only as text.

Where it may go is decided in `holdfast.addresses`, for the URL and again for every redirect. What it brings is text
that others wrote, so it taints the run as `web`.
"""

import asyncio
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import Self

from pydantic import Field, JsonValue, ValidationError

from holdfast.addresses import Resolver, check_hosts, system_resolver
from holdfast.errors import ConfigurationError, ToolProblem
from holdfast.settings import Duration, Section, describe
from holdfast.tools.context import ToolContext
from holdfast.tools.fetch_body import Reach, fetch
from holdfast.tools.fetch_text import page_text
from holdfast.tools.tool import Tool

_READ_AT_ONCE = 4
_MARGIN = timedelta(seconds=5)
"""What the tool's own timeout leaves for reading and for the answer to be written down."""


class FetchSettings(Section):
    """Options of `use = "fetch_url"`."""

    hosts: tuple[str, ...] = Field(min_length=1)
    """Where it may go: `docs.example.org`, `*.example.com`, `example.org:8443`."""
    private_hosts: tuple[str, ...] = ()
    """Those of them that may be at private addresses."""
    http: bool = False
    """Whether `http://` is admitted beside `https://`."""
    types: tuple[str, ...] = (
        "text/html",
        "application/xhtml+xml",
        "text/plain",
        "text/markdown",
        "text/csv",
        "application/json",
        "application/xml",
        "text/xml",
    )
    """Media types that are read."""
    max_bytes: int = Field(default=2_000_000, ge=1_024, le=50_000_000)
    """Largest page, as it is sent and unpacked."""
    page_characters: int = Field(default=6_000, ge=500, le=200_000)
    """How much of a page's text one call returns."""
    within: Duration = timedelta(seconds=20)
    """Longest a page may take to come, redirects included, and again to be read."""
    about: str = Field(default="", max_length=1_000)
    """What there is to read, for the model."""


class FetchUrl(Tool):
    """The tool.

    Args:
        name: What models call it.
        settings: Where it may go and how much it may bring.
        resolve: Replaces the operating system's resolver, in tests.
    """

    def __init__(self, name: str, settings: FetchSettings, *, resolve: Resolver = system_resolver) -> None:
        self._settings = settings
        self._reach = Reach(
            hosts=settings.hosts,
            private_hosts=settings.private_hosts,
            schemes=("https", "http") if settings.http else ("https",),
            types=settings.types,
            max_bytes=settings.max_bytes,
            silence=settings.within,
            resolve=resolve,
        )
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        about = f" {settings.about}" if settings.about else ""
        super().__init__(
            name,
            f"Read a page from the web as text.{about} It can reach: {', '.join(settings.hosts)}.",
            {
                "type": "object",
                "properties": {
                    "url": {"type": "string", "minLength": 1, "description": "Absolute URL of the page."},
                    "start": {
                        "type": "integer",
                        "minimum": 0,
                        "description": "Where in the page's text to begin, to read on in a long page. 0 by default.",
                    },
                },
                "required": ["url"],
                "additionalProperties": False,
            },
            side_effects=False,
            idempotent=True,
            origin="web",
            timeout=2 * settings.within + _MARGIN,
            output_tokens=4_000,
        )

    def moved(self, host: str, to: str) -> Self:
        """The same tool, which reaches a host of its list at another place; itself if the host is not on the list.

        Args:
            host: As it is listed: `127.0.0.1:8093`.
            to: Written likewise.
        """
        if host not in self._settings.hosts:
            return self
        hosts = tuple(to if listed == host else listed for listed in self._settings.hosts)
        follower = copy(self)
        follower._settings = self._settings.model_copy(update={"hosts": hosts})
        follower._reach = replace(self._reach, hosts=hosts)
        follower.description = self.description.replace(host, to)
        return follower

    async def call(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> str:  # noqa: ARG002 - any caller
        """Fetch and read."""
        url, start = str(arguments["url"]), int(float(str(arguments.get("start", 0))))
        try:
            async with asyncio.timeout(self._settings.within.total_seconds()):
                page = await fetch(url, self._reach)
        except TimeoutError:
            raise ToolProblem("The page did not come in time.") from None
        async with self._reading:
            read = await page_text(page.body, page.content_type, within=self._settings.within)
        if not read.text:
            raise ToolProblem("The page holds no text; it may need a browser that runs its scripts.")
        if start >= len(read.text):
            raise ToolProblem(f"The page's text ends at character {len(read.text)}; start before that.")
        end = min(start + self._settings.page_characters, len(read.text))
        head = [f"Source: {page.url}"]
        if read.title:
            head.insert(0, f"Title: {read.title}")
        if start or end < len(read.text):
            on = f"; to read on, call again with start={end}" if end < len(read.text) else ""
            head.append(f"Characters {start} to {end} of {len(read.text)}{on}.")
        return "\n".join(head) + "\n\n" + read.text[start:end]


def build(name: str, options: Mapping[str, object], where: str) -> Tool:
    """A reader of the web.

    Raises:
        ConfigurationError: An option is missing, unknown or wrong.
    """
    try:
        settings = FetchSettings.model_validate(dict(options))
    except ValidationError as error:
        raise ConfigurationError(f"{where}: {describe(error, FetchSettings)}") from None
    hosts = check_hosts(settings.hosts, f"{where}: hosts")
    private = check_hosts(settings.private_hosts, f"{where}: private_hosts")
    return FetchUrl(name, settings.model_copy(update={"hosts": hosts, "private_hosts": private}))
