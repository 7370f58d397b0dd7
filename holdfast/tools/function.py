"""`@tool`: a Python function with type hints and a docstring becomes a tool."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Generic, ParamSpec, TypeVar, get_args, get_origin, get_type_hints, overload

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from holdfast.contracts import Origin
from holdfast.errors import ConfigurationError, ToolProblem
from holdfast.settings import parse_duration
from holdfast.tools.arguments import canonical, complain, without_values
from holdfast.tools.context import ToolContext
from holdfast.tools.threads import in_thread
from holdfast.tools.tool import LONGEST_CALL, Tool
from holdfast.validation import known_pointer

P = ParamSpec("P")
R = TypeVar("R")

_CONFIG = ConfigDict(extra="forbid", hide_input_in_errors=True, populate_by_name=False)


class FunctionTool(Tool, Generic[P, R]):
    """A tool made of a function. Called like the function, it is the function.

    Args:
        function: Synchronous ones run in a thread of their own.
        name: Instead of the function's.
        policy: As for `Tool`.

    Raises:
        ConfigurationError: The function's signature or docstring does not say enough.
    """

    def __init__(self, function: Callable[P, R], *, name: str | None = None, **policy: Any) -> None:
        self._function = function
        self._signature = _read(function)
        super().__init__(
            name or str(getattr(function, "__name__", "")),
            self._signature.description,
            self._signature.schema,
            **policy,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self._function(*args, **kwargs)

    def check(self, arguments: Mapping[str, JsonValue]) -> None:
        """Check against the schema, then as the types demand."""
        super().check(arguments)
        self._parsed(arguments)

    async def call(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> str:
        """Call the function with typed arguments and turn what it returns into text."""
        parsed = self._parsed(arguments)
        values: dict[str, Any] = {name: getattr(parsed, field) for name, field in self._signature.fields.items()}
        values |= dict.fromkeys(self._signature.contexts, context)
        function: Callable[..., Any] = self._function
        if inspect.iscoroutinefunction(function):
            returned = await function(**values)
        else:
            returned = await in_thread(lambda: function(**values))
        return _text(returned)

    def _parsed(self, arguments: Mapping[str, JsonValue]) -> BaseModel:
        try:
            return self._signature.model.model_validate_json(canonical(arguments))
        except ValidationError as error:
            problems = error.errors(include_input=False, include_url=False, include_context=False)
            schema = self._signature.schema
            given = dict(arguments)
            complain([(known_pointer(one["loc"], schema), without_values(one["msg"], given)) for one in problems])
            raise AssertionError("A validation error names at least one problem.") from None
        except Exception as error:
            # A check of the tool's own that does not say what is wrong by `ValueError`.
            raise ToolProblem(
                f"The arguments could not be checked: the tool's own check failed ({type(error).__name__})."
            ) from None


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    side_effects: bool = True,
    idempotent: bool = False,
    origin: Origin | None = "tools",
    personal_data: bool = False,
    timeout: str | timedelta = "30s",
    output_tokens: int = 2_000,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    side_effects: bool = True,
    idempotent: bool = False,
    origin: Origin | None = "tools",
    personal_data: bool = False,
    timeout: str | timedelta = "30s",
    output_tokens: int = 2_000,
) -> FunctionTool[..., Any] | Callable[[Callable[..., Any]], FunctionTool[..., Any]]:
    """Make a tool of a function: `@tool`, or `@tool(idempotent=True, ...)`.

    Parameters and their types become the schema, the docstring becomes the description, and its `Args` section those of
    the parameters. A parameter of type `ToolContext` is filled in by Holdfast. What the function returns - text, a
    pydantic model, or what JSON can hold - is shown to the model. It may raise `ToolProblem` to tell the model why not.

    Args:
        function: The function, when the decorator is used without parentheses.
        name: Instead of the function's name.
        side_effects: Whether a call changes anything anywhere.
        idempotent: Whether a call may be made again when nobody knows whether it was made.
        origin: What results taint a run with; `None` if they hold no text that others wrote.
        personal_data: Whether masked values in the arguments are restored for the call.
        timeout: Longest one call may take, e.g. `"30s"`.
        output_tokens: Longest result that the model is shown.

    Raises:
        ConfigurationError: The function cannot be a tool; names it and says what is missing.
    """

    def decorate(decorated: Callable[..., Any]) -> FunctionTool[..., Any]:
        return FunctionTool(
            decorated,
            name=name,
            side_effects=side_effects,
            idempotent=idempotent,
            origin=origin,
            personal_data=personal_data,
            timeout=_duration(timeout, decorated),
            output_tokens=output_tokens,
        )

    return decorate if function is None else decorate(function)


@dataclass(frozen=True)
class _Signature:
    """What is read off a function once."""

    description: str
    model: type[BaseModel]
    schema: dict[str, JsonValue]
    fields: dict[str, str]
    """The model's field for each parameter."""
    contexts: tuple[str, ...]
    """Parameters that take the context."""


def _read(function: Callable[..., Any]) -> _Signature:
    name = getattr(function, "__qualname__", repr(function))
    where = f"Tool function `{name}` in {getattr(function, '__module__', '?')}"
    if inspect.isclass(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{where} is no function that returns its result; decorate one that does.")
    documented = docstring_parser.parse(inspect.getdoc(function) or "")
    parts = [documented.short_description, documented.long_description]
    if documented.returns is not None and documented.returns.description:
        parts.append(f"Returns: {documented.returns.description}")
    description = "\n\n".join(part.strip() for part in parts if part)
    if not description:
        raise ConfigurationError(f"{where} has no docstring; say in it what the tool does, for the model to read.")
    told = {parameter.arg_name: parameter.description or "" for parameter in documented.params}
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigurationError(f"{where} has a type hint that cannot be resolved: {error}.") from None
    fields: dict[str, str] = {}
    definitions: dict[str, Any] = {}
    contexts: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigurationError(f"{where}: parameter `{parameter}` cannot be named by a model; give it a name.")
        if parameter.name not in hints:
            raise ConfigurationError(f"{where}: parameter {parameter.name!r} has no type hint; add one.")
        if hints[parameter.name] is ToolContext:
            contexts.append(parameter.name)
            continue
        field = fields[parameter.name] = f"argument_{len(fields)}"
        default = ... if parameter.default is parameter.empty else parameter.default
        words = told.get(parameter.name, "")
        if words and not _is_described(hints[parameter.name]):
            given = Field(default, alias=parameter.name, description=words)
        else:
            given = Field(default, alias=parameter.name)
        definitions[field] = (hints[parameter.name], given)
    if unknown := set(told) - set(fields) - set(contexts):
        raise ConfigurationError(f"{where}: its docstring describes {sorted(unknown)[0]!r}, which is no parameter.")
    try:
        model = create_model("Arguments", __config__=_CONFIG, **definitions)
        schema = _without_titles(model.model_json_schema(by_alias=True))
    except (PydanticUserError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ConfigurationError(f"{where}: its parameters cannot be written as a JSON Schema: {first}") from None
    return _Signature(description, model, schema, fields, tuple(contexts))


def _is_described(hint: Any) -> bool:
    if get_origin(hint) is not Annotated:
        return False
    return any(isinstance(extra, FieldInfo) and extra.description for extra in get_args(hint)[1:])


def _without_titles(schema: dict[str, Any]) -> dict[str, JsonValue]:
    """Pydantic titles every field after itself, which tells a model nothing and costs tokens."""

    def within(value: Any, *, names: bool = False) -> Any:
        if isinstance(value, list):
            return [within(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: within(item, names=not names and key in ("properties", "$defs"))
            for key, item in value.items()
            if names or key != "title" or not isinstance(item, str)
        }

    reduced: dict[str, JsonValue] = within(schema)
    return reduced | {"type": "object", "properties": reduced.get("properties", {})}


def _text(returned: object) -> str:
    if isinstance(returned, str):
        return returned
    # What JSON has no form for is written as Python prints it: the call was made, so its result must not be lost.
    return to_json(returned, fallback=str, inf_nan_mode="strings").decode()


def _duration(timeout: str | timedelta, function: Callable[..., Any]) -> timedelta:
    try:
        span = parse_duration(timeout)
    except ValueError as error:
        raise ConfigurationError(f"Tool function {function.__qualname__!r}: `timeout`: {error}.") from None
    if not isinstance(span, timedelta) or span <= timedelta(0):
        raise ConfigurationError(f"Tool function {function.__qualname__!r}: `timeout` must be a span like '30s'.")
    if span > LONGEST_CALL:
        raise ConfigurationError(f"Tool function {function.__qualname__!r}: a `timeout` may be an hour at most.")
    return span
