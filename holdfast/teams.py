"""Which agents may give work to which: checked as a graph when the configuration is read. Pure.

A team whose agents could hand work round in a circle, or down a longer chain than a run admits, is refused before
anything is served.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.contracts import MAX_DEPTH
from holdfast.errors import ConfigurationError


def check_teams(delegates: Mapping[str, Sequence[str]], directory: Path) -> None:
    """Check every agent's `delegates`.

    Args:
        delegates: Of each agent, the agents it lists.
        directory: Where the agents' files are, for messages.

    Raises:
        ConfigurationError: A name is no agent's, the delegations form a circle, or a chain is too long.
    """
    for agent, listed in delegates.items():
        for name in listed:
            if name not in delegates:
                near = difflib.get_close_matches(name, delegates, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else f" Agents: {', '.join(sorted(delegates))}."
                raise ConfigurationError(
                    f"{directory / agent}.toml: `delegates` names {name!r}, which no file defines.{hint}"
                )
    depths: dict[str, int] = {}
    for agent in sorted(delegates):
        _depth(agent, delegates, directory, (), depths)


def _depth(
    agent: str,
    delegates: Mapping[str, Sequence[str]],
    directory: Path,
    above: tuple[str, ...],
    known: dict[str, int],
) -> int:
    """Agents in the longest chain that begins with this one."""
    chain = (*above, agent)
    if agent in above:
        circle = " -> ".join(chain[chain.index(agent) :])
        raise ConfigurationError(
            f"{directory / above[-1]}.toml: `delegates` closes a circle, {circle}, in which work would never end; "
            "take one of them out."
        )
    if agent not in known:
        below = [_depth(name, delegates, directory, chain, known) for name in delegates[agent]]
        known[agent] = 1 + max(below, default=0)
        if known[agent] > MAX_DEPTH:
            raise ConfigurationError(
                f"{directory / agent}.toml: `delegates` begins a chain of {known[agent]} agents, and a run admits "
                f"{MAX_DEPTH}; let fewer agents pass work on."
            )
    return known[agent]
