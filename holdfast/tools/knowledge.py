"""`knowledge_search`: the model searches a collection of the tenant's documents when it wants to."""

from collections.abc import Mapping
from datetime import timedelta

from pydantic import Field, JsonValue, ValidationError

from holdfast.contracts.plan import Name
from holdfast.errors import ConfigurationError, ToolProblem
from holdfast.settings import Section, describe
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import Tool

MAX_QUERY = 2_000

_PARAMETERS: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "query": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_QUERY,
            "description": "What to look for, as a question or in key words.",
        }
    },
    "required": ["query"],
    "additionalProperties": False,
}


class KnowledgeSettings(Section):
    """Options of `use = "knowledge_search"`."""

    collection: Name
    passages: int = Field(default=6, ge=1, le=50)
    about: str = Field(default="", max_length=1_000)
    """What is in the collection, for the model."""


class KnowledgeSearch(Tool):
    """Searches one collection; the tenant comes from the request.

    Args:
        name: What models call it.
        settings: Which collection, and how much of it.
    """

    def __init__(self, name: str, settings: KnowledgeSettings) -> None:
        self._settings = settings
        about = f" In it: {settings.about}" if settings.about else ""
        super().__init__(
            name,
            f"Search the documents of the collection {settings.collection!r}.{about} "
            f"Returns at most {settings.passages} passages, each after the name of its document, best first.",
            _PARAMETERS,
            side_effects=False,
            idempotent=True,
            origin="documents",
            timeout=timedelta(seconds=30),
            output_tokens=4_000,
        )

    async def call(self, arguments: Mapping[str, JsonValue], context: ToolContext) -> str:
        """Search."""
        if context.knowledge is None:
            raise ToolProblem("The documents cannot be searched here.")
        found = await context.knowledge.retrieve(
            context.tenant, self._settings.collection, str(arguments["query"]), self._settings.passages
        )
        if not found:
            return "No passage was found."
        return "\n\n".join(f"{passage.source}:\n{passage.text.strip()}" for passage in found)


def build(name: str, options: Mapping[str, object], where: str) -> Tool:
    """A search of one collection.

    Raises:
        ConfigurationError: An option is missing, unknown or wrong.
    """
    try:
        settings = KnowledgeSettings.model_validate(dict(options))
    except ValidationError as error:
        raise ConfigurationError(f"{where}: {describe(error, KnowledgeSettings)}") from None
    return KnowledgeSearch(name, settings)
