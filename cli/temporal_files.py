"""The files of `temporal-dev/`, read and checked whole before a server is started with them."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from holdfast.errors import ConfigurationError

SearchAttributeType = Literal["Text", "Keyword", "Int", "Double", "Bool", "Datetime", "KeywordList"]
Port = Annotated[int, Field(ge=0, le=65_535)]
ParsedT = TypeVar("ParsedT")

DIRECTORY = Path(__file__).resolve().parent.parent / "temporal-dev"
"""The files of this checkout."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _Ports(_Table):
    grpc: Port
    ui: Port


class _Server(_Table):
    log_level: Literal["debug", "info", "warn", "error", "never"]
    namespace: str = Field(min_length=1)
    ports: _Ports
    sqlite: dict[str, str]


class _SearchAttribute(_Table):
    type: SearchAttributeType
    reason: str = Field(min_length=1)


class _DynamicValue(_Table):
    value: JsonValue


@dataclass(frozen=True)
class ServerFiles:
    """What `temporal-dev/` says about the development server."""

    port: int
    """Port of the frontend (gRPC)."""
    ui_port: int
    """Port of the Web UI."""
    namespace: str
    log_level: str
    sqlite_pragmas: dict[str, str]
    dynamic_config: dict[str, JsonValue]
    """Key of Temporal's dynamic configuration to its one value."""
    search_attributes: dict[str, SearchAttributeType]


def read_server_files(directory: Path = DIRECTORY) -> ServerFiles:
    """Read `server.toml`, `dynamicconfig.yaml` and `search-attributes.toml`.

    Args:
        directory: Where they are.

    Raises:
        ConfigurationError: A file is missing or malformed. Names file, key and remedy.
    """
    server_file = directory / "server.toml"
    server = _checked(TypeAdapter(_Server), _toml(server_file), server_file)
    attributes_file = directory / "search-attributes.toml"
    attributes = _checked(TypeAdapter(dict[str, _SearchAttribute]), _toml(attributes_file), attributes_file)
    for name in attributes:
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise ConfigurationError(f"{attributes_file}: `{name}` is not a search attribute name; use letters.")
    return ServerFiles(
        port=server.ports.grpc,
        ui_port=server.ports.ui,
        namespace=server.namespace,
        log_level=server.log_level,
        sqlite_pragmas=server.sqlite,
        dynamic_config=_dynamic_config(directory / "dynamicconfig.yaml"),
        search_attributes={name: attribute.type for name, attribute in attributes.items()},
    )


def _dynamic_config(file: Path) -> dict[str, JsonValue]:
    try:
        content = yaml.safe_load(_text(file))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    entries = _checked(TypeAdapter(dict[str, list[_DynamicValue]]), content or {}, file)
    for key, values in entries.items():
        if len(values) != 1:
            raise ConfigurationError(f"{file}: `{key}` has {len(values)} values; the development server takes one.")
    return {key: values[0].value for key, values in entries.items()}


def _toml(file: Path) -> object:
    try:
        return tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: not valid TOML: {error}") from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{file}: does not exist; run Holdfast from a checkout of its repository.") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: not valid UTF-8: {error.reason} at byte {error.start}.") from None


def _checked(kind: TypeAdapter[ParsedT], content: object, file: Path) -> ParsedT:
    try:
        return kind.validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise ConfigurationError(f"{file}: `{key}`: {problem['msg']}.") from None
