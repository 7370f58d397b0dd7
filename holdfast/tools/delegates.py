"""Other agents as tools: what a model is told of them, and what it has to give them."""

from pydantic import JsonValue

from holdfast.contracts import CatalogEntry, Delegate, ToolOffer
from holdfast.tools.tool import digest_of_offer

TASK: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "task": {
            "type": "string",
            "minLength": 1,
            "maxLength": 20_000,
            "description": "All that is needed to do the work; the agent sees nothing else of this conversation.",
        }
    },
    "required": ["task"],
    "additionalProperties": False,
}
"""Parameters of every delegate."""


def delegate_entry(delegate: Delegate) -> CatalogEntry:
    """Another agent as a tool. What it does is bounded by its own file; what it says is text from outside."""
    described = f"Give a piece of work to the agent {delegate.agent!r} and get its answer. {delegate.description}"
    offer = ToolOffer(name=delegate.tool, description=described.strip()[:8_192], parameters=TASK)
    return CatalogEntry(
        offer=offer,
        source=f"delegate:{delegate.agent}",
        tool=delegate.agent,
        digest=digest_of_offer(offer),
        side_effects=False,
        idempotent=True,
        origin="delegates",
    )
