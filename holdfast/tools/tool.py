"""A tool as Holdfast sees it, whatever is behind: name, description, parameters, and how its calls are handled."""

import copy
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import Self

from pydantic import Field, JsonValue, ValidationError

from holdfast.contracts import CatalogEntry, Origin, ToolOffer
from holdfast.errors import ConfigurationError
from holdfast.settings import Duration, Section
from holdfast.tools.arguments import check_arguments, read_arguments
from holdfast.tools.context import ToolContext
from holdfast.validation import check_schema

NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]|_(?!_)){0,63}", re.ASCII)
"""Names of native tools. Two underscores part the server from the tool in the names of MCP's."""


LONGEST_CALL = timedelta(hours=1)
"""Longest timeout that a tool can have."""


class PolicySettings(Section):
    """How calls of a tool are handled, as `[tools.<name>]` may change it; what is absent stays as the tool has it."""

    timeout: Duration | None = None
    output_tokens: int | None = Field(default=None, ge=1, le=100_000)
    side_effects: bool | None = None
    idempotent: bool | None = None
    personal_data: bool | None = None


class Tool(ABC):
    """One tool. Subclasses implement `call`, and must be safe for concurrent calls.

    Args:
        name: What models call it.
        description: What models are told of it.
        parameters: JSON Schema of the arguments, an object.
        side_effects: Whether a call changes anything anywhere. A tainted run may not make such a call unasked.
        idempotent: Whether a call of unknown outcome may be repeated.
        origin: What results taint a run with; `None` for a tool that returns no text of others.
        personal_data: Whether placeholders in the arguments are restored before a call.
        timeout: Longest one call may take.
        output_tokens: Longest result that a model is shown.

    Raises:
        ConfigurationError: Name, description or parameters cannot be offered to a model.
    """

    def __init__(
        self,
        name: str,
        description: str,
        parameters: Mapping[str, JsonValue],
        *,
        side_effects: bool = True,
        idempotent: bool = False,
        origin: Origin | None = "tools",
        personal_data: bool = False,
        timeout: timedelta = timedelta(seconds=30),
        output_tokens: int = 2_000,
    ) -> None:
        self.name = checked_name(name)
        self.description = description
        self.parameters = dict(parameters)
        self.side_effects = side_effects
        self.idempotent = idempotent
        self.origin: Origin | None = origin
        self.personal_data = personal_data
        self.timeout = timeout
        self.output_tokens = output_tokens
        check_schema(self.parameters, where=f"Tool {name!r}")
        self.entry(description)

    def validate(self, arguments_json: str) -> dict[str, JsonValue]:
        """Read and check the arguments that a model wrote.

        Raises:
            ToolProblem: Which argument is wrong and how, without its value.
        """
        arguments = read_arguments(arguments_json)
        self.check(arguments)
        return arguments

    def check(self, arguments: Mapping[str, JsonValue]) -> None:
        """Check arguments against the parameters; a subclass may check more.

        Raises:
            ToolProblem: As `validate`.
        """
        check_arguments(arguments, self.parameters)

    @abstractmethod
    async def call(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> str:
        """Make one call.

        Args:
            arguments: Checked.
            context: Whose call it is.

        Returns:
            The result, in full.

        Raises:
            ToolProblem: What the model should hear instead of a result.
        """

    async def describe(self) -> str:
        """What models are told of the tool by a run that begins now."""
        return self.description

    def ready(self) -> None:
        """See that a process that starts here could call the tool; nothing is sent.

        Raises:
            ConfigurationError: It lacks what only another start can bring, such as a variable of the environment.
            Unavailable: It lacks what may still come, such as a file.
        """
        return

    async def aclose(self) -> None:
        """Release what the tool holds open."""
        return

    def entry(self, description: str) -> CatalogEntry:
        """The tool as a run's catalog has it.

        Args:
            description: From `describe`.

        Raises:
            ConfigurationError: It cannot be offered to a model.
        """
        try:
            offer = ToolOffer(name=self.name, description=description, parameters=self.parameters)
            return CatalogEntry(
                offer=offer,
                source="function",
                tool=self.name,
                digest=digest_of_offer(offer),
                side_effects=self.side_effects,
                # What changes nothing can be repeated.
                idempotent=self.idempotent or not self.side_effects,
                origin=self.origin,
                personal_data=self.personal_data,
                timeout=self.timeout,
                output_tokens=self.output_tokens,
            )
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            what = f"`{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}"
            raise ConfigurationError(f"Tool {self.name!r} cannot be offered to a model: {what}.") from None

    def adapted(self, policy: PolicySettings, *, name: str | None = None) -> Self:
        """The same tool, handled as `policy` says.

        Raises:
            ConfigurationError: The name is not lawful.
        """
        other = copy.copy(self)
        other.name = checked_name(name or self.name)
        for key, value in policy.model_dump(exclude_none=True).items():
            setattr(other, key, value)
        return other


def checked_name(name: str) -> str:
    """A name that models and files can use.

    Raises:
        ConfigurationError: It cannot be used.
    """
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"A tool cannot be named {name!r}: take at most 64 letters, digits, `-` and single `_`, a letter first."
        )
    return name


def digest_of_offer(offer: ToolOffer) -> str:
    """What `CatalogEntry.digest` holds."""
    shown = json.dumps([offer.name, offer.description, offer.parameters], sort_keys=True)
    return hashlib.sha256(shown.encode()).hexdigest()[:16]
