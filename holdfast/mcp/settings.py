"""One `[mcp.<server>]` table of `config/tools.toml`: how a server is reached, and what of it may be used."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from holdfast.errors import ConfigurationError
from holdfast.mcp.programs import find_program, not_found
from holdfast.settings import Duration, Section

VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""A tool's name as its server has it, or a pattern of it with `*`, `?` and `[...]`."""

_ABOUT_THE_PROCESS = ("args", "env", "directory", "stderr")


class McpServerSettings(Section):
    """A server: either a `command` that speaks over its standard streams, or the `url` of one that speaks HTTP."""

    command: str = ""
    """Program to start, found on `PATH` or beside the Python that runs, or named with its path."""
    args: tuple[str, ...] = ()
    env: tuple[VariableName, ...] = ()
    """Names of variables that are handed to the program. Besides them it gets `PATH` and a UTF-8 locale, nothing
    else."""
    directory: Path | None = None
    """Where it is started."""
    stderr: Path | None = None
    """File for its standard error, at most 1 MB for each start. Without one it is thrown away, for servers print
    secrets there."""
    url: str = ""
    """Address of its streamable HTTP endpoint, such as `https://mcp.example.org/mcp`."""
    headers: dict[HeaderName, VariableName] = Field(default_factory=dict)
    """Header to the variable that holds its whole value, e.g. `Authorization = "FILES_AUTHORIZATION"`."""
    tools: tuple[Pattern, ...] = Field(default=(), validate_default=True)
    """What may be used of it. Nothing else is shown to any model, or called."""
    side_effects: bool = True
    """Whether its tools change something; a tainted run may not call those that do."""
    read_only: tuple[Pattern, ...] = ()
    """Those of its tools that change nothing, by your own word."""
    read_only_hint: bool = False
    """Whether the server itself is believed when it says that a tool changes nothing."""
    idempotent: tuple[Pattern, ...] = ()
    """Those of its tools that may be called twice for one call whose outcome is unknown."""
    personal_data: bool = False
    """Whether placeholders in arguments are restored before a call."""
    timeout: Duration = Field(default=timedelta(seconds=30), le=timedelta(hours=1))
    """Longest one call may take."""
    connect_timeout: Duration = timedelta(seconds=60)
    """Longest a start may take, download of the program included."""
    discover_every: Duration = timedelta(minutes=10)
    """How long a list of tools is believed without asking again."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Calls that are under way at the same time."""
    output_tokens: int = Field(default=2_000, ge=1, le=100_000)
    """Longest result that a model is shown."""

    @field_validator("tools")
    @classmethod
    def _names_tools(cls, tools: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
        if not tools:
            raise ValueError('list what may be used of the server: `tools = ["read_*"]`, or `["*"]` for all of it')
        return tools

    @model_validator(mode="after")
    def _reachable_in_one_way(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("give either `command` or `url`")
        if self.command and self.headers:
            raise ValueError("`headers` belong to a server with `url`; a program is given variables by `env`")
        if self.url:
            if given := [name for name in _ABOUT_THE_PROCESS if getattr(self, name)]:
                raise ValueError(f"`{given[0]}` belongs to a server with `command`, not to one with `url`")
            _check_url(self.url)
        return self

    def lacking(self, environment: Mapping[str, str] = os.environ) -> str:
        """That its `command` is not there, with the remedy; empty if it is, or if there is none.

        Args:
            environment: Of the process that would start it.
        """
        if not self.command or find_program(self.command, environment.get("PATH", os.defpath)):
            return ""
        return not_found(self.command)

    def handed(self, environment: Mapping[str, str], where: str) -> dict[str, str]:
        """The variables that a program gets, or the headers that a server is sent, with their values.

        Args:
            environment: Where variables are looked up.
            where: Names the table in a message.

        Raises:
            ConfigurationError: A variable is not set, or its value cannot be sent in a header.
        """
        wanted = {name: name for name in self.env} if self.command else self.headers
        found: dict[str, str] = {}
        for name, variable in wanted.items():
            value = environment.get(variable)
            if value is None:
                raise ConfigurationError(f"{where} hands on the variable {variable!r}, which is not set. Set it.")
            if self.url and not (value.isascii() and value.isprintable()):
                raise ConfigurationError(
                    f"{where}: the variable {variable!r} holds characters that an HTTP header cannot carry; set it "
                    "again, without line breaks."
                )
            found[name] = value
        return found


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("`url` must be an address like 'https://mcp.example.org/mcp'")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "`url` must hold no user, password, query or fragment; name the variable with the secret in `headers`"
        )
