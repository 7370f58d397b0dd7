"""Reads a JSON body without trusting it: size, encoding, shape and depth are checked before anything is believed."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from starlette.requests import Request

from gateway.problems import Problem

MAX_DEPTH = 64
"""Deepest nesting of arrays and objects."""

MAX_DIGITS = 100
"""Most characters of one number; the parser is quadratic in them."""


async def read_object(request: Request, limit: int) -> dict[str, Any]:
    """Read the body as one JSON object (RFC 8259), fractions as `Decimal`.

    Args:
        request: The request; its body must not have been read.
        limit: Most bytes to accept. Reading stops at the first byte beyond.

    Raises:
        Problem: 413 too large; 415 not JSON by its type; 400 not UTF-8, not JSON, NaN or Infinity, a key twice, too
            deep, or not an object.
    """
    _check_type(request)
    try:
        text = (await _read(request, limit)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(
            "not-utf-8",
            f"The body is not valid UTF-8: {error.reason} at byte {error.start}.",
            "Encode the body as UTF-8.",
        ) from None
    return parse_object(text)


def parse_object(text: str) -> dict[str, Any]:
    """Parse one JSON object; see `read_object`."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_fraction,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        raise _invalid(
            "not-json",
            f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
            "Send one JSON object.",
        ) from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(value, dict):
        raise _invalid("not-an-object", "The body is JSON, but not an object.", 'Send an object: {"name": value, ...}.')
    _check_tree(value)
    return value


def _check_type(request: Request) -> None:
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    media_type = media_type.strip().lower()
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    if not is_json or charset not in ("", "utf-8", "utf8"):
        raise Problem(
            415,
            "unsupported-media-type",
            "Unsupported media type",
            "The body must be JSON in UTF-8, and say so.",
            remedy="Send `Content-Type: application/json`.",
            field="Content-Type",
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            415,
            "unsupported-media-type",
            "Unsupported media type",
            "The body is compressed, which the gateway does not read.",
            remedy="Send the body as it is, without Content-Encoding.",
            field="Content-Encoding",
        )


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1).encode("utf-8", "replace").decode()
        raise _invalid(
            "duplicate-key",
            f"The body gives the key {twice[:80]!r} twice in one object.",
            "Give every key once.",
            field=twice[:80],
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise _invalid("not-json", f"{name} is not a JSON number.", "Send a finite number, or leave the field out.")


def _fraction(literal: str) -> Decimal:
    _check_digits(literal)
    try:
        return Decimal(literal)
    except InvalidOperation:  # an exponent beyond what decimal arithmetic can hold
        raise _invalid("not-json", "A number of the body has an exponent out of range.", "Write it shorter.") from None


def _integer(literal: str) -> int:
    _check_digits(literal)
    return int(literal)


def _check_digits(literal: str) -> None:
    if len(literal) > MAX_DIGITS:
        raise _invalid(
            "number-too-long",
            f"The body holds a number of {len(literal)} characters; at most {MAX_DIGITS} are read.",
            "Send a shorter number, or a string.",
        )


def _check_tree(value: dict[str, Any]) -> None:
    """Refuse what is nested too deep, and lone surrogates, which JSON can spell but UTF-8 cannot."""
    stack: list[tuple[Any, int, str]] = [(value, 1, "")]
    while stack:
        node, depth, path = stack.pop()
        if isinstance(node, str):
            _check_characters(node, path)
            continue
        if not isinstance(node, dict | list):
            continue
        if depth > MAX_DEPTH:
            raise _too_deep()
        prefix = f"{path}." if path else ""
        if isinstance(node, dict):
            for name, child in node.items():
                _check_characters(name, path)
                stack.append((child, depth + 1, f"{prefix}{name[:80]}"))
        else:
            stack.extend((child, depth + 1, f"{prefix}{position}") for position, child in enumerate(node))


def _check_characters(text: str, path: str) -> None:
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise _invalid(
            "invalid-character",
            f"`{path or 'body'}` contains the lone surrogate U+{ord(text[error.start]):04X}, which is not text.",
            "Remove the character, or send the text in valid Unicode.",
            field=path or None,
        ) from None


def _invalid(slug: str, detail: str, remedy: str, *, field: str | None = None) -> Problem:
    return Problem(400, slug, "Unreadable body", detail, remedy=remedy, field=field or "body")


def _too_deep() -> Problem:
    return _invalid(
        "too-deep", f"The body nests arrays and objects deeper than {MAX_DEPTH} levels.", "Send a flatter body."
    )


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        "too-large",
        "Body too large",
        f"The body is larger than {limit} bytes.",
        remedy="Send less, or raise `gateway.max_body_bytes` (HOLDFAST_GATEWAY__MAX_BODY_BYTES).",
        field="body",
        headers={"Connection": "close"},
    )
