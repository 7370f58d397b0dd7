"""What a server lists becomes what a model is shown: names that fit, words of bounded length, a digest that pins it.

Everything here is pure. What a server says of its tools is text from outside: it is cut, cleaned of characters that
cannot be seen, and marked as the server's own words. A tool that cannot be shown is left out with the reason.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import jsonschema_rs
from pydantic import JsonValue

from holdfast.contracts.conversation import ToolOffer
from holdfast.contracts.tools import CatalogEntry
from holdfast.errors import ConfigurationError
from holdfast.mcp.settings import McpServerSettings
from holdfast.validation import can_be_counted

SERVER_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_(?!_)){0,23}")
"""A server's name stands before the two underscores in its tools' names, so it holds no two itself."""

MAX_DESCRIPTION = 1_024
"""Most characters of one description; the rest is cut off and the cut is told."""
MAX_SCHEMA = 16_384
"""Most characters of one tool's parameters as JSON. A larger schema cannot be cut without changing its meaning."""
MAX_DEPTH = 32
"""Most levels of one tool's parameters."""
_MAX_NAME = 64
_DIGEST_DIGITS = 16
_WORDS = frozenset({"description", "title", "$comment"})
_VALUES = frozenset({"const", "default", "enum", "examples"})
"""Keywords that hold values of arguments, which are not words about them."""
_ARGUMENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What Anthropic accepts as an argument's name; another one would have the whole call refused."""


@dataclass(frozen=True)
class ListedTool:
    """One tool as its server lists it."""

    name: str
    description: str
    parameters: Mapping[str, JsonValue]
    read_only: bool = False
    """What the server says."""


@dataclass(frozen=True)
class Listing:
    """A server's tools as they may be used."""

    entries: Mapping[str, CatalogEntry]
    """By the server's own name; only what the allow-list allows."""
    left_out: tuple[str, ...] = ()
    """One line for each allowed tool that cannot be offered, with the reason."""
    listed: int = 0
    """How many the server listed."""

    def matching(self, pattern: str) -> tuple[CatalogEntry, ...]:
        """The entries whose own name the pattern matches, in the server's order."""
        return tuple(entry for name, entry in self.entries.items() if fnmatchcase(name, pattern))


def check_server_name(name: str, where: str) -> None:
    """Refuse a name that tools' names cannot begin with.

    Raises:
        ConfigurationError: It does not fit.
    """
    if SERVER_NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{where}: an MCP server's name has at most 24 letters, digits, dashes and single underscores, and begins "
            f"with a letter or digit; {name[:40]!r} does not. Rename the table."
        )


def read_listing(server: str, settings: McpServerSettings, tools: Iterable[ListedTool]) -> Listing:
    """Turn a server's list into a catalog of what may be used of it."""
    entries: dict[str, CatalogEntry] = {}
    left_out: list[str] = []
    offered: set[str] = set()
    listed = 0
    for tool in tools:
        listed += 1
        if not any(fnmatchcase(tool.name, pattern) for pattern in settings.tools):
            continue
        problem = _problem(tool, twice=tool.name in entries)
        name = offered_name(server, tool.name)
        if not problem and name in offered:
            problem = "its name is that of another of its tools once both are written as models may write them"
        if problem:
            left_out.append(f"{shown_name(tool.name)}: {problem}")
            continue
        offered.add(name)
        entries[tool.name] = _entry(server, settings, tool, name)
    return Listing(entries, tuple(left_out), listed)


def offered_name(server: str, tool: str) -> str:
    """How a model names a tool: `<server>__<tool>`.

    A name that models may not write, or that is too long, is rewritten and ends with six digits of its own digest, so
    that two such names stay two.
    """
    plain = f"{server}__{tool}"
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", plain):
        return plain
    tail = "_" + hashlib.sha256(tool.encode("utf-8", "replace")).hexdigest()[:6]
    return re.sub(r"[^A-Za-z0-9_-]", "_", plain)[: _MAX_NAME - len(tail)] + tail


def digest_of(tool: ListedTool) -> str:
    """Names exactly what the server said of a tool, beyond what is shown of it."""
    said = [tool.name, tool.description, tool.parameters, tool.read_only]
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_DIGITS]


def clean(text: str, most: int) -> str:
    """A server's words without characters that cannot be seen, at most `most` of them, the cut told."""
    seen = "".join(character for character in text if character in "\n\t" or not _unseen(character))
    if len(seen) <= most:
        return seen
    ending = " [cut]"
    return seen[: most - len(ending)] + ending


def shown_name(name: str) -> str:
    """A foreign name for a message: short, and without anything that acts on a terminal."""
    return repr(clean(name, 60))


def _unseen(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn")


def _problem(tool: ListedTool, *, twice: bool) -> str:
    if not tool.name.strip() or len(tool.name) > 256:
        return "its name is empty or longer than 256 characters"
    if twice:
        return "the server lists the name twice"
    if _deeper(tool.parameters, MAX_DEPTH):
        return f"its parameters are nested more than {MAX_DEPTH} levels deep"
    if len(json.dumps(tool.parameters)) > MAX_SCHEMA:
        return f"its parameters take more than {MAX_SCHEMA} characters"
    if tool.parameters.get("type", "object") != "object":
        return "its parameters are not an object"
    arguments = tool.parameters.get("properties", {})
    if not isinstance(arguments, Mapping) or not all(_ARGUMENT.fullmatch(name) for name in arguments):
        return "an argument's name is not made of 1 to 64 letters, digits, underscores, dots and dashes"
    try:
        # Offline, because a reference to an address in a foreign schema would be fetched from here.
        jsonschema_rs.validator_for(dict(tool.parameters), offline=True)
    except (ValueError, jsonschema_rs.ReferencingError):
        return "its parameters are not a JSON Schema that can be used without fetching others"
    if not can_be_counted(dict(tool.parameters)):
        return "a reference in its parameters is not written as a pointer such as `#/$defs/name`"
    return ""


def _deeper(value: object, levels: int) -> bool:
    if levels < 0:
        return True
    if isinstance(value, Mapping):
        return any(_deeper(child, levels - 1) for child in value.values())
    return isinstance(value, list) and any(_deeper(child, levels - 1) for child in value)


def _entry(server: str, settings: McpServerSettings, tool: ListedTool, name: str) -> CatalogEntry:
    side_effects = settings.side_effects and not (
        _any(tool.name, settings.read_only) or (settings.read_only_hint and tool.read_only)
    )
    said = clean(tool.description, MAX_DESCRIPTION).strip()
    words = f" The server says of it: {said}" if said else ""
    return CatalogEntry(
        offer=ToolOffer(
            name=name,
            description=f"Tool {shown_name(tool.name)} of the MCP server {server!r}.{words}",
            parameters={"type": "object"} | {key: _bounded(value, key) for key, value in tool.parameters.items()},
        ),
        source=f"mcp:{server}",
        tool=tool.name,
        digest=digest_of(tool),
        side_effects=side_effects,
        idempotent=not side_effects or _any(tool.name, settings.idempotent),
        origin="mcp",
        personal_data=settings.personal_data,
        timeout=settings.timeout,
        output_tokens=settings.output_tokens,
    )


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _bounded(value: JsonValue, key: str) -> JsonValue:
    """A schema with its words bounded; what decides validity is left as it is."""
    if key in _VALUES:
        return value
    if isinstance(value, str):
        return clean(value, MAX_DESCRIPTION) if key in _WORDS else value
    if isinstance(value, list):
        return [_bounded(item, "") for item in value]
    if isinstance(value, dict):
        # Below these two, keys are names of arguments and not keywords.
        named = key in ("properties", "$defs")
        return {name: _bounded(child, "" if named else name) for name, child in value.items()}
    return value
