"""What `agents` reads and shows of the files under `config/`; loads much, so the verbs import it when they run."""

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

from cli.output import span
from holdfast.configuration import Agent, Configuration, load_configuration
from holdfast.contracts import ApprovalRule, EscalationStage
from holdfast.settings import load_settings


def read() -> tuple[Path, Configuration]:
    """The directory of the configuration, and what it says.

    Raises:
        ConfigurationError: Something in it is wrong.
    """
    settings = load_settings()
    return settings.config_dir, load_configuration(settings.config_dir)


def prompt_file(directory: Path, name: str) -> Path:
    """Where the prompt of an agent is, whose file has been read and found right."""
    file = directory / "agents" / f"{name}.toml"
    return directory / "prompts" / str(tomllib.loads(file.read_text(encoding="utf-8"))["prompt"])


def rules(agent: Agent) -> list[tuple[str, str, ApprovalRule]]:
    """Who is asked when: what a rule is on, its condition, and the rule."""
    plan = agent.plan
    on_output = [("output", plan.approval_when, plan.approval)] if plan.approval else []
    return on_output + [(policy.on, policy.when, policy.rule) for policy in agent.toolbox.policies]


def row(agent: Agent) -> dict[str, Any]:
    """What an agent uses, and who is asked when."""
    plan, toolbox = agent.plan, agent.toolbox
    asked = [{"on": on, "when": when, **rule.model_dump(mode="json")} for on, when, rule in rules(agent)]
    return {
        "agent": agent.name,
        "version": plan.version,
        "description": agent.description,
        "deployments": list(plan.deployments),
        "tools": list(toolbox.tools),
        "delegates": [delegate.agent for delegate in toolbox.delegates],
        "approvals": asked,
    }


def rule_lines(agent: Agent) -> list[str]:
    """The rules in words, one a line, with their times as files write them, and below it what those asked are told."""
    lines = []
    for on, when, rule in rules(agent):
        lines.append(f"approval on {on}{f' when {when}' if when else ''}: {_asked(rule)}")
        if rule.why:
            lines.append(f"  why: {rule.why}")
    return lines


def taint_line(agent: Agent) -> str:
    """What text from outside may lead to, by the keys of `[taint]`."""
    taint = agent.plan.taint
    skips = str(taint.skip_approvals).lower()
    return f"taint: trust {', '.join(taint.trust) or '-'}, side_effects {taint.side_effects}, skip_approvals {skips}"


def limits_line(agent: Agent) -> str:
    """The limits that are set, with times as files write them."""
    given = agent.limits.model_dump(exclude_none=True)
    return ", ".join(f"{key} {span(value) if isinstance(value, timedelta) else value}" for key, value in given.items())


def _asked(rule: ApprovalRule) -> str:
    stages: tuple[ApprovalRule | EscalationStage, ...] = (rule, *rule.escalation)
    chain = ", then ".join(f"{' or '.join(stage.approvers)} within {span(stage.within)}" for stage in stages)
    quorum = f"{rule.quorum} of " if rule.quorum > 1 else ""
    return f"{quorum}{chain}, then {rule.default}"
