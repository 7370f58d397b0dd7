"""The form of an agent's file: its tables and keys, each checked by itself. What they refer to is checked elsewhere."""

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator, model_validator

from holdfast.contracts import ApprovalRule, EscalationStage, Guards, Limits, Strategy
from holdfast.contracts.plan import Name
from holdfast.limit_choices import ChosenLimits, chosen
from holdfast.routing.intents import Intent
from holdfast.settings import Duration, Section


class StageSettings(Section):
    """`[[approval.escalation]]`: who is asked next."""

    approvers: tuple[str, ...] = Field(min_length=1)
    within: Duration = Field(default="24h", validate_default=True)


class ApprovalSettings(Section):
    """`[approval]` of an agent file."""

    approvers: tuple[str, ...] = Field(min_length=1)
    """Users, roles (`role:finance`), or `*` for everyone of the tenant."""
    within: Duration = Field(default="24h", validate_default=True)
    quorum: int = Field(default=1, ge=1, le=10)
    escalation: tuple[StageSettings, ...] = Field(default=(), max_length=5)
    reminders: tuple[Duration, ...] = Field(default=(), max_length=5)
    """How long before a deadline those who may decide are reminded."""
    default: Literal["reject", "approve"] = "reject"
    requester_may_decide: bool = False
    why: str = Field(default="", max_length=300)
    """A sentence for those who are asked."""

    @field_validator("why")
    @classmethod
    def _in_one_line(cls, why: str) -> str:
        if not why.isprintable():
            raise ValueError("holds a line break or a character that nobody sees; write one line of plain text")
        return why.strip()

    @model_validator(mode="after")
    def _can_be_met(self) -> "ApprovalSettings":
        for stage, approvers in enumerate((self.approvers, *(stage.approvers for stage in self.escalation))):
            where = "approvers" if stage == 0 else f"escalation.{stage - 1}.approvers"
            if any(not name.strip() or name == "role:" for name in approvers):
                raise ValueError(f"`{where}` holds an empty name; name a user, a role as 'role:finance', or '*'")
            users_only = not any(name == "*" or name.startswith("role:") for name in approvers)
            if users_only and len(set(approvers)) < self.quorum:
                raise ValueError(
                    f"`quorum` asks for {self.quorum} different people, but `{where}` names {len(set(approvers))}; "
                    "name more, or lower it"
                )
        asked = self.approvers
        for place, later in enumerate(self.escalation):
            if "*" in asked or set(later.approvers) <= set(asked):
                raise ValueError(
                    f"`escalation.{place}.approvers` names nobody who has not been asked before; name somebody else, "
                    "or give those who are asked more time with `within`"
                )
            asked = later.approvers
        longest = max((self.within, *(stage.within for stage in self.escalation)))
        for reminder in self.reminders:
            if reminder >= longest:
                raise ValueError(
                    f"`reminders`: {_spelt(reminder)} before the deadline is before the question is asked; "
                    "a reminder is shorter than `within`"
                )
        return self

    @property
    def rule(self) -> ApprovalRule:
        """What a run is pinned to."""
        return ApprovalRule(
            approvers=self.approvers,
            within=self.within,
            default=self.default,
            requester_may_decide=self.requester_may_decide,
            quorum=self.quorum,
            escalation=tuple(
                EscalationStage(approvers=stage.approvers, within=stage.within) for stage in self.escalation
            ),
            reminders=tuple(sorted(set(self.reminders), reverse=True)),
            # What is unset is left out of a history.
            **({"why": self.why} if self.why else {}),
        )


class OutputApprovalSettings(ApprovalSettings):
    """`[approval]`: the rule on the final answer."""

    when: str = ""
    """CEL condition; empty is always."""


class PolicySettings(OutputApprovalSettings):
    """`[[approvals]]`: a rule on the output, or on the tools that a name or pattern matches; the first decides."""

    on: str = Field(min_length=1, max_length=128)
    """`output`, a tool as the agent lists it, or a pattern such as `files.delete_*`."""


class TaintSettings(Section):
    """`[taint]`: what text from outside may lead a run to."""

    trust: tuple[Literal["documents", "tools", "web", "mcp", "delegates"], ...] = ()
    side_effects: Literal["refuse", "allow"] = "refuse"
    skip_approvals: bool = False


class LimitSettings(ChosenLimits, Section):
    """`[limits]` of an agent file; absent keys keep the product's defaults."""

    deadline: Duration | None = chosen("deadline")


class FallbackSettings(Section):
    """`[fallbacks]` of an agent file: deployments beside the listed ones, by what stood in the way."""

    outage: tuple[Name, ...] = ()
    context_window: tuple[Name, ...] = ()
    content_policy: tuple[Name, ...] = ()
    budget: tuple[Name, ...] = ()


class EscalationSettings(Section):
    """`[escalation]` of an agent file: who is asked when a valid reply is not sure enough."""

    below: float = Field(gt=0, le=1)
    to: tuple[Name, ...] = Field(min_length=1)
    field: str = Field(default="", pattern=r"^(/.+)?$")
    """JSON Pointer to a number in the reply; empty takes the mean probability of its tokens."""


class AgentFile(Section):
    """One file of `config/agents`."""

    description: str = ""
    deployments: tuple[Name, ...] = Field(min_length=1)
    prompt: str
    """File in `config/prompts`."""
    output_schema: str = ""
    """File in `config/schemas`."""
    collection: Name | None = None
    passages: int = Field(default=6, ge=1, le=50)
    recall: bool | None = None
    """Absent: true, but for an agent with tools or delegates."""
    tools: tuple[str, ...] = ()
    """Tools by name, and those of MCP servers as `server.tool` or `server.pattern*`."""
    delegates: tuple[Name, ...] = ()
    """Agents that may be given a part of the work."""
    approval: OutputApprovalSettings | None = None
    approvals: tuple[PolicySettings, ...] = ()
    taint: TaintSettings = TaintSettings()
    limits: LimitSettings = LimitSettings()
    guards: Guards = Guards()
    routing: Strategy = "ordered"
    regions: tuple[str, ...] = ()
    """Regions that may see the requests; empty admits all."""
    fallbacks: FallbackSettings = FallbackSettings()
    escalation: EscalationSettings | None = None
    intents: tuple[Intent, ...] = ()
    """Questions that a handler answers instead of a model."""
    budget_approval: ApprovalSettings | None = None
    """Who may let a request go past a budget whose `at_limit` is `ask`."""
    on_disconnect: Literal["finish", "cancel"] = "finish"
    history: int = Field(default=10, ge=0, le=100)
    """Earlier exchanges of the same session that the model is shown."""

    @field_validator("tools", "delegates")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"names {twice!r} twice")
        return names

    @model_validator(mode="after")
    def _fits_together(self) -> "AgentFile":
        on_output = [policy for policy in self.approvals if policy.on == "output"]
        if len(on_output) + (self.approval is not None) > 1:
            raise ValueError('the output has two rules; keep `[approval]` or one `[[approvals]]` with `on = "output"`')
        answering = set(self.deployments)
        if self.escalation and len(answering) == 1 and answering <= set(self.escalation.to):
            raise ValueError(
                f"`escalation.to` names {self.deployments[0]!r}, which gave the answer that is not sure enough; name "
                "another deployment"
            )
        if self.recall and self.acts:
            raise ValueError(
                "`recall = true` would repeat an answer that tools helped to write; leave it out, or the tools"
            )
        return self

    @property
    def acts(self) -> bool:
        """Whether the agent does more than answer."""
        return bool(self.tools or self.delegates)

    @property
    def output_approval(self) -> OutputApprovalSettings | None:
        """The rule on the final answer."""
        return self.approval or next((policy for policy in self.approvals if policy.on == "output"), None)

    @property
    def model_calls(self) -> int | None:
        """`limits.attempts`, which for an agent with tools grows with its iterations: each of them is a call."""
        if self.limits.attempts is not None or not self.acts:
            return self.limits.attempts
        return min(50, 2 * (self.limits.iterations or Limits.model_fields["iterations"].default))


def _spelt(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"
