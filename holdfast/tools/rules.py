"""Which rules of an agent apply to which tools of a run, and whether their conditions fit these tools."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from holdfast.conditions import ON_TOOL, check_condition
from holdfast.contracts import CatalogEntry, ToolPolicy
from holdfast.errors import ConfigurationError
from holdfast.shapes import Shape


def rule_names(entry: CatalogEntry) -> frozenset[str]:
    """The names under which rules may speak of a tool.

    That of an MCP server's tool may be offered as another: models may not write every name that a server gives.
    """
    kind, _, server = entry.source.partition(":")
    own = {f"{server}.{entry.tool}", f"{server}__{entry.tool}"} if kind == "mcp" else set()
    return frozenset({entry.offer.name} | own)


def applies(policy: ToolPolicy, entry: CatalogEntry) -> bool:
    """Whether a rule is on a tool."""
    return any(fnmatchcase(name, policy.on) for name in rule_names(entry))


def unmet_names(policies: Sequence[ToolPolicy], catalog: Sequence[CatalogEntry]) -> list[str]:
    """Conditions that name parameters which none of their tools has, where tools of MCP servers are among these.

    What their tools take is known with a server's list only; of all others it was checked when the agent was loaded.

    Args:
        policies: The agent's rules.
        catalog: The tools of a run.

    Returns:
        A sentence for each.
    """
    told = []
    for policy in policies:
        on = [entry for entry in catalog if policy.when and applies(policy, entry)]
        if any(entry.source.startswith("mcp:") for entry in on):
            shapes = {"args": Shape.of("args", *(entry.offer.parameters for entry in on))}
            try:
                check_condition(policy.when, ON_TOOL, f"the rule on {policy.on}", shapes)
            except ConfigurationError as error:
                told.append(f"{error} Until it is corrected, the condition counts as met.")
    return told
