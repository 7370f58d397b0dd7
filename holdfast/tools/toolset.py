"""The tools of an installation: `config/tools.toml`, a project's own modules, and what installed packages offer."""

import difflib
import hashlib
import importlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from pydantic import ValidationError

from holdfast.errors import ConfigurationError, Unavailable
from holdfast.mcp import McpServerSettings, check_server_name
from holdfast.project import importable
from holdfast.settings import describe
from holdfast.tools import calculator
from holdfast.tools.function import FunctionTool
from holdfast.tools.tool import LONGEST_CALL, PolicySettings, Tool, checked_name

GROUP = "holdfast.tools"
"""Entry points of installed packages: each names a tool, or a module with tools."""

_BUILDERS = {
    "calculator": "holdfast.tools.calculator",
    "knowledge_search": "holdfast.tools.knowledge",
    "sql_query": "holdfast.tools.sql",
    "fetch_url": "holdfast.tools.fetch",
}


class Build(Protocol):
    """What a module of a built-in tool has under the name `build`."""

    def __call__(self, name: str, options: Mapping[str, object], where: str) -> Tool:
        """A tool made of the options of its table."""
        ...


@dataclass(frozen=True)
class Toolset:
    """Everything that an agent may name."""

    tools: Mapping[str, Tool] = field(default_factory=dict)
    servers: Mapping[str, McpServerSettings] = field(default_factory=dict)

    def check(self, names: Sequence[str], where: str) -> None:
        """Check what an agent's file lists.

        Args:
            names: Tools as `refund`, tools of MCP servers as `files.read_file` or `files.read_*`.
            where: File and key.

        Raises:
            ConfigurationError: A name that nothing provides; suggests the nearest.
        """
        for name in names:
            server, dot, pattern = name.partition(".")
            if not dot and name not in self.tools:
                raise ConfigurationError(
                    f"{where} names tool {name!r}, which no tool module or MCP server provides."
                    f"{_hint(name, [*self.tools, *(f'{known}.*' for known in self.servers)])}"
                    " A module with tools of your own is listed in `modules` of config/tools.toml."
                )
            if dot and server not in self.servers:
                raise ConfigurationError(
                    f"{where} names {name!r}, but there is no MCP server {server!r}.{_hint(server, self.servers)}"
                )
            if dot and pattern and not _admitted(pattern, self.servers[server].tools):
                raise ConfigurationError(
                    f"{where} names {name!r}, which `mcp.{server}.tools` of tools.toml does not admit; it admits "
                    f"{', '.join(self.servers[server].tools)}."
                )
            if dot and not pattern:
                raise ConfigurationError(f"{where} names {name!r} without a tool; write `{server}.*` for all of them.")
        repeated = [name for position, name in enumerate(names) if name in names[:position]]
        if repeated:
            raise ConfigurationError(f"{where} names tool {repeated[0]!r} twice; take one out.")

    def digest(self, names: Sequence[str]) -> str:
        """What an agent's version knows of its tools: 16 hexadecimal digits that change when one of them does.

        Args:
            names: Checked.
        """
        parts = []
        for name in names:
            server, dot, _ = name.partition(".")
            settled = self.servers[server] if dot else self.tools[name].entry(self.tools[name].description)
            parts += [name, settled.model_dump_json()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def unready(self, names: Iterable[str]) -> list[str]:
        """What tools lack that may still come, such as a database's file; a sentence with its remedy for each.

        Args:
            names: Checked. Of an MCP server it is only seen whether its program is there.

        Raises:
            ConfigurationError: A tool lacks what only another start can bring, such as a variable.
        """
        told = []
        names = tuple(names)
        for name in dict.fromkeys(name for name in names if "." not in name):
            try:
                self.tools[name].ready()
            except Unavailable as error:
                told.append(str(error))
        for server in dict.fromkeys(name.partition(".")[0] for name in names if "." in name):
            if lacking := self.servers[server].lacking():
                told.append(f"tools.toml: mcp.{server}.command: {lacking}. Until then, runs begin without its tools.")
        return told

    async def aclose(self) -> None:
        """Close every tool."""
        for tool in self.tools.values():
            await tool.aclose()


def load_toolset(directory: Path) -> Toolset:
    """Read `tools.toml`, import what it names, and check all of it.

    Args:
        directory: The `config` directory; the file may be absent.

    Raises:
        ConfigurationError: With file, key and remedy.
    """
    file = directory / "tools.toml"
    table = _toml(file)
    if unknown := sorted(set(table) - {"modules", "tools", "mcp"}):
        raise ConfigurationError(
            f"{file}: unknown key {unknown[0]!r}; expected `modules`, `[tools.<name>]` and `[mcp.<server>]`."
        )
    tools: dict[str, Tool] = {}
    sources: dict[str, str] = {}

    def add(tool: Tool, source: str) -> None:
        if tool.name in tools and tools[tool.name] is not tool:
            raise ConfigurationError(
                f"{file}: tool {tool.name!r} comes from {source} and from {sources[tool.name]}; rename one of them."
            )
        tools[tool.name], sources[tool.name] = tool, source

    add(calculator.build("calculator", {}, "calculator"), "Holdfast")
    for provided, source in _installed():
        add(provided, source)
    modules = table.get("modules", [])
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        raise ConfigurationError(f'{file}: `modules` must be a list of modules, e.g. `modules = ["shop.tools"]`.')
    if modules:
        importable(directory)
    for name in modules:
        for provided in _module(name, file):
            add(provided, f"module {name!r}")
    for name, options in _tables(table, "tools", file):
        tool, replaces = _configured(name, options, tools, file)
        if not replaces:
            add(tool, f"`tools.{name}`")
        tools[name] = tool
    return Toolset(tools, {name: _server(name, options, file) for name, options in _tables(table, "mcp", file)})


def _configured(name: str, options: dict[str, object], tools: Mapping[str, Tool], file: Path) -> tuple[Tool, bool]:
    """The tool of one `[tools.<name>]` table, and whether it takes the place of one that is there."""
    where = f"{file}: tools.{name}"
    try:
        checked_name(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    used = options.pop("use", name)
    given = {key: options.pop(key) for key in PolicySettings.model_fields if key in options}
    try:
        policy = PolicySettings.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {describe(error, PolicySettings, f'tools.{name}.')}") from None
    if not isinstance(used, str):
        raise ConfigurationError(f'{where}.use: must be the name of a tool, e.g. `use = "sql_query"`.')
    known = tools.get(used)
    if isinstance(known, FunctionTool) or (known is not None and used not in _BUILDERS):
        if options:
            raise ConfigurationError(
                f"{where}: {sorted(options)[0]!r} is unknown; of a function's tool only `use` and "
                f"{', '.join(f'`{key}`' for key in PolicySettings.model_fields)} can be set."
            )
        return _checked(known.adapted(policy, name=name), where), name == used
    if used not in _BUILDERS:
        hint = _hint(used, {**_BUILDERS, **tools})
        raise ConfigurationError(f"{where}: `use` names {used!r}, which is no tool.{hint}")
    # Imported when a file asks for it: what reads pages and what parses SQL take a second to load.
    build = cast(Build, importlib.import_module(_BUILDERS[used]).build)
    built = build(name, options, where)
    return _checked(built.adapted(policy), where), name == "calculator" == used


def _checked(tool: Tool, where: str) -> Tool:
    if tool.timeout > LONGEST_CALL:
        raise ConfigurationError(f"{where}.timeout: a call may take an hour at most.")
    return tool


def _installed() -> Iterable[tuple[Tool, str]]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        source = f"entry point {point.name!r} of {point.dist.name if point.dist else 'an installed package'}"
        try:
            loaded = point.load()
        except ConfigurationError as error:
            raise ConfigurationError(f"The {source}: {error}") from None
        except (Exception, SystemExit) as error:
            raise ConfigurationError(f"The {source} cannot be loaded ({type(error).__name__}: {error}).") from None
        if isinstance(loaded, Tool):
            yield loaded, source
        elif isinstance(loaded, ModuleType) and (found := _tools_in(loaded)):
            yield from ((one, source) for one in found)
        else:
            raise ConfigurationError(f"The {source} is neither a tool nor a module with tools; decorate with `@tool`.")


def _module(name: str, file: Path) -> list[Tool]:
    try:
        module = importlib.import_module(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: `modules` names {name!r}: {error}") from None
    except SyntaxError as error:
        raise ConfigurationError(
            f"{file}: `modules` names {name!r}, but {error.filename}, line {error.lineno}, is not valid Python "
            f"({error.msg}). Mend it."
        ) from None
    except ModuleNotFoundError as error:
        missing = error.name or name
        remedy = (
            f"Put it beside {file.parent}, or install it where the worker runs."
            if f"{name}.".startswith(f"{missing}.")
            else f"It imports {missing!r}: install that where the worker runs."
        )
        raise ConfigurationError(
            f"{file}: `modules` names {name!r}, which cannot be imported ({type(error).__name__}: {error}). {remedy}"
        ) from None
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{file}: `modules` names {name!r}, which cannot be imported ({type(error).__name__}: {error}). Mend it."
        ) from None
    found = _tools_in(module)
    if not found:
        raise ConfigurationError(f"{file}: `modules` names {name!r}, which holds no tool; decorate one with `@tool`.")
    return found


def _tools_in(module: ModuleType) -> list[Tool]:
    return list({id(value): value for value in vars(module).values() if isinstance(value, Tool)}.values())


def _server(name: str, options: dict[str, object], file: Path) -> McpServerSettings:
    check_server_name(name, f"{file}: mcp.{name}")
    try:
        return McpServerSettings.model_validate(options)
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {describe(error, McpServerSettings, f'mcp.{name}.')}") from None


def _tables(table: Mapping[str, Any], key: str, file: Path) -> list[tuple[str, dict[str, object]]]:
    tables = table.get(key, {})
    if not isinstance(tables, dict) or not all(isinstance(one, dict) for one in tables.values()):
        raise ConfigurationError(f"{file}: `{key}` must hold tables, `[{key}.<name>]`.")
    return [(name, dict(options)) for name, options in tables.items()]


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{file}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}.") from None


def _admitted(name: str, patterns: Sequence[str]) -> bool:
    """Whether a server's list can admit a name; of a pattern that is not known before the server has answered."""
    return any(mark in name for mark in "*?[") or any(fnmatchcase(name, pattern) for pattern in patterns)


def _hint(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" There are: {', '.join(names)}." if names else " None is configured; add it to `config/tools.toml`."
