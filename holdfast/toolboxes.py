"""What an agent's file says of tools, delegates and their approvals: checked against what there is, and pinned.

A tool of an MCP server is listed as `server.tool`; a model sees it as `server__tool`, because providers accept no dots
in a name. Approvals may name it either way.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import JsonValue

from holdfast.agent_file import AgentFile
from holdfast.conditions import ON_OUTPUT, ON_TOOL, check_condition
from holdfast.contracts import Delegate, Toolbox, ToolPolicy
from holdfast.deployments import Deployment
from holdfast.errors import ConfigurationError
from holdfast.shapes import Shape
from holdfast.tools import Toolset
from holdfast.tools.delegates import TASK


def shown_name(listed: str) -> str:
    """The name, or pattern of names, under which a model sees what an agent lists."""
    return listed.replace(".", "__", 1)


def check_toolbox(
    spec: AgentFile,
    file: Path,
    toolset: Toolset,
    deployments: Mapping[str, Deployment],
    output_schema: Mapping[str, JsonValue] | None,
) -> None:
    """Check that everything an agent lists is there, and that every rule can apply to something and be evaluated.

    Args:
        spec: The agent.
        file: For messages.
        toolset: Every tool there is.
        deployments: By name.
        output_schema: Of its answers; none if they are text.

    Raises:
        ConfigurationError: Names the file, the key and what is wrong with it.
    """
    toolset.check(spec.tools, where=f"{file}: `tools`")
    if spec.acts and all(deployments[name].in_process for name in spec.deployments):
        raise ConfigurationError(
            f"{file}: `deployments` names only what answers without a model, and nothing that could call "
            "`tools` or `delegates`; add a deployment of a model."
        )
    names = [shown_name(name) for name in spec.tools] + [_delegate(name).tool for name in spec.delegates]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"{file}: two of `tools` and `delegates` are called {twice!r}; rename one.")
    output = {"output": Shape.of("output", {"type": "string"} if output_schema is None else dict(output_schema))}
    for position, policy in enumerate(spec.approvals):
        where = f"{file}: approvals.{position} (the rule on {policy.on!r})"
        if policy.on != "output" and not any(_overlap(shown_name(policy.on), name) for name in names):
            raise ConfigurationError(
                f"{where}: `on` names {policy.on!r}, which this agent cannot call; it has "
                f"{', '.join(['output', *names])}."
            )
        if policy.when and policy.on != "output":
            arguments = _arguments(shown_name(policy.on), spec, toolset)
            check_condition(policy.when, ON_TOOL, f"{where}: `when`", {"args": arguments})
        elif policy.when:
            check_condition(policy.when, ON_OUTPUT, f"{where}: `when`", output)
    if spec.approval is not None and spec.approval.when:
        check_condition(spec.approval.when, ON_OUTPUT, f"{file}: `approval.when`", output)


def toolbox_of(spec: AgentFile, descriptions: Mapping[str, str], file: Path) -> Toolbox:
    """What a run of the agent is pinned to.

    Args:
        spec: The agent.
        descriptions: Of its delegates.
        file: For messages.

    Raises:
        ConfigurationError: A delegate has no description, which is all that a model is told of it.
    """
    for name in spec.delegates:
        if not descriptions[name].strip():
            raise ConfigurationError(
                f"{file.with_name(name)}.toml: agent {name!r} is a delegate of {file.stem!r} and has no "
                "`description`, which is all that a model is told of it; add one."
            )
    return Toolbox(
        tools=spec.tools,
        delegates=tuple(Delegate(agent=name, description=descriptions[name]) for name in spec.delegates),
        policies=tuple(
            ToolPolicy(on=shown_name(policy.on), when=policy.when, rule=policy.rule)
            for policy in spec.approvals
            if policy.on != "output"
        ),
    )


def _arguments(pattern: str, spec: AgentFile, toolset: Toolset) -> Shape:
    """What the tools that a rule is on take, together; anything where a server has not told yet."""
    listed = [name for name in spec.tools if _overlap(pattern, shown_name(name))]
    if any("." in name for name in listed):
        return Shape("args", anything=True)
    delegates = [TASK for name in spec.delegates if _overlap(pattern, _delegate(name).tool)]
    return Shape.of("args", *(toolset.tools[name].parameters for name in listed), *delegates)


def _delegate(agent: str) -> Delegate:
    return Delegate(agent=agent, description="")


def _overlap(one: str, other: str) -> bool:
    """Whether two patterns can match the same name."""
    if fnmatchcase(one, other) or fnmatchcase(other, one):
        return True
    if "*" not in one or "*" not in other:
        return False
    first, second = one.split("*", 1)[0], other.split("*", 1)[0]
    return first.startswith(second) or second.startswith(first)
