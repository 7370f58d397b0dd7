"""Checks a parsed body against a model and says what is wrong in the caller's terms, without repeating values."""

import difflib
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from gateway.problems import Problem

BodyT = TypeVar("BodyT", bound="Body")


class Body(BaseModel):
    """A request body; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def _refuse_nul(value: Any) -> Any:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("U+0000 is not allowed here")
    return value


Line = Annotated[str, BeforeValidator(_refuse_nul)]
"""Text that is stored in a text column; PostgreSQL's cannot hold U+0000."""


def validate(kind: type[BodyT], body: dict[str, Any]) -> BodyT:
    """Check a body.

    Raises:
        Problem: 422, naming every field that does not fit, and the nearest name of one that is unknown.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise problem_of_validation(error, kind) from None


def problem_of_validation(error: ValidationError, kind: type[BaseModel], *, prefix: str = "") -> Problem:
    """A validation error as a problem document.

    Args:
        error: What pydantic found.
        kind: The model that was checked; its field names make the hints.
        prefix: Path of the model in the body, with a trailing dot.
    """
    found = [_finding(problem, kind, prefix) for problem in error.errors(include_input=False, include_url=False)]
    first = found[0]
    others = f" ({len(found) - 1} more in `errors`.)" if len(found) > 1 else ""
    return Problem(
        422,
        "invalid-input",
        "Invalid input",
        first["detail"] + others,
        remedy=first["remedy"],
        field=first["field"],
        extra={"errors": found[:20]} if len(found) > 1 else None,
    )


def _finding(problem: Any, kind: type[BaseModel], prefix: str) -> dict[str, str]:
    location = tuple(problem["loc"])
    field = prefix + ".".join(str(part)[:80] for part in location)
    if problem["type"] == "extra_forbidden":
        known = list(_model_at(kind, location[:-1]).model_fields)
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        names = ", ".join(f"`{name}`" for name in known)
        remedy = f"Did you mean `{near[0]}`?" if near else f"Leave it out; the fields here are {names}."
        return {"field": field, "detail": f"`{field}` is not a field of this body.", "remedy": remedy}
    if problem["type"] == "missing":
        return {"field": field, "detail": f"`{field}` is missing.", "remedy": f"Send `{field}`."}
    message = str(problem["msg"]).removeprefix("Value error, ")
    expected = message.replace("Input should", "It should")
    return {
        "field": field,
        "detail": f"`{field}` is not acceptable: {message}.",
        "remedy": f"Correct `{field}`: {expected}.",
    }


def _model_at(kind: type[BaseModel], location: tuple[Any, ...]) -> type[BaseModel]:
    """The model whose field a location names."""
    for part in location:
        field = kind.model_fields.get(str(part))
        if field is not None and (inner := _model_in(field.annotation)):
            kind = inner
    return kind


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for argument in get_args(annotation) if (inner := _model_in(argument))), None)
