"""Deterministic answers: functions that reply to one kind of question, without a model.

A handler is a Python function `(question, parameters) -> str | None`, named in `models.toml` as `module:function`. It
gets the sanitized question and the deployment's `parameters`, and returns the whole answer, or `None` to leave the
question to a model after all. It must be quick, and the same arguments must give the same answer.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from holdfast.errors import ConfigurationError

Function = Callable[[str, Mapping[str, str]], str | None]

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_ONE_MATTER = 400
"""Characters beyond which a message is about more than one thing, so that a fixed answer would miss some of it."""


@dataclass(frozen=True)
class Accepts:
    """The parameters of a handler, so that a misspelt one is found at start."""

    required: frozenset[str]
    optional: frozenset[str]


_ACCEPTS: dict[Function, Accepts] = {}


def handler(*, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Declare which parameters a handler takes.

    Args:
        required: Keys that the deployment must give.
        optional: Keys that it may give.
    """

    def declare(function: Function) -> Function:
        _ACCEPTS[function] = Accepts(frozenset(required), frozenset(optional))
        return function

    return declare


def load_handler(reference: str, parameters: Mapping[str, str], *, where: str) -> Function:
    """Find a handler and check the parameters it will get.

    Args:
        reference: `module:function`, importable where the worker runs.
        parameters: The deployment's.
        where: File and key for messages, e.g. `config/models.toml: deployments.password-reset`.

    Raises:
        ConfigurationError: It cannot be found, is no handler, or a parameter is missing or unknown.
    """
    if not _REFERENCE.fullmatch(reference):
        raise ConfigurationError(
            f"{where}.model: a handler is named `module:function`, e.g. 'holdfast.handlers:password_reset', "
            f"not {reference!r}."
        )
    module_name, _, function_name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(
            f"{where}.model: module {module_name!r} cannot be imported ({type(error).__name__}: {error}). "
            "Install it where the worker runs."
        ) from None
    function: Function | None = getattr(module, function_name, None)
    if function is None or not callable(function) or not _takes_two(function):
        raise ConfigurationError(
            f"{where}.model: {module_name!r} has no function {function_name!r} that takes a question and parameters."
        )
    accepts = _ACCEPTS.get(function)
    if accepts is not None:
        if missing := sorted(accepts.required - set(parameters)):
            raise ConfigurationError(f"{where}.parameters: {missing[0]!r} is missing; {reference!r} needs it.")
        if unknown := sorted(set(parameters) - accepts.required - accepts.optional):
            known = ", ".join(sorted(accepts.required | accepts.optional)) or "none"
            raise ConfigurationError(f"{where}.parameters: {unknown[0]!r} is unknown to {reference!r}; known: {known}.")
    return function


@handler(required=("reset_url",), optional=("valid_for", "contact"))
def password_reset(question: str, parameters: Mapping[str, str]) -> str | None:
    """How to set a new password.

    Args:
        question: A long one is left to a model.
        parameters: `reset_url`: the page to start from. `valid_for`: how long its link works, e.g. `30 minutes`.
            `contact`: whom to ask when no e-mail arrives.
    """
    if len(question) > _ONE_MATTER:
        return None
    valid = f" It is valid for {parameters['valid_for']}." if parameters.get("valid_for") else ""
    steps = [
        f"Open {parameters['reset_url']} and enter the e-mail address of your account.",
        f"Open the link in the e-mail that you receive.{valid}",
        "Choose a new password and sign in with it.",
    ]
    if parameters.get("contact"):
        steps.append(
            f"If no e-mail arrives within a few minutes, look into the spam folder, then ask {parameters['contact']}."
        )
    lines = [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
    return "\n".join(["You can set a new password yourself:", *lines])


def _takes_two(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind("", {})
    except (TypeError, ValueError):
        return False
    return not inspect.iscoroutinefunction(function)
