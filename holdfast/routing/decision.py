"""What routing decided, with every reason, and how that reads."""

from dataclasses import dataclass
from typing import Literal

from holdfast.routing.candidate import Candidate

Effect = Literal["dropped", "last", "passed", "preferred"]
"""`dropped`: may not be called. `last`: only when the others are gone. `passed`: not chosen. `preferred`: chosen."""


@dataclass(frozen=True)
class Reason:
    """What one policy found."""

    policy: str
    candidate: str | None
    """`None`: about the request."""
    text: str
    """Continues the candidate's name: `is not enabled`."""
    effect: Effect

    def __str__(self) -> str:
        return f"{self.candidate} {self.text}" if self.candidate else self.text


@dataclass(frozen=True)
class Decision:
    """The deployment to call, and what to call when it fails."""

    chosen: Candidate | None
    """`None`: nothing meets the request's hard constraints."""
    alternatives: tuple[Candidate, ...] = ()
    """The rest, best first."""
    reasons: tuple[Reason, ...] = ()
    """In the order of the policies."""
    sole: bool = False
    """Whether no healthy alternative is left, so that the breaker should probe rather than refuse."""

    def one_line(self) -> str:
        """For a trace: what was chosen, and what was skipped for which reason."""
        skipped = "; ".join(
            str(reason)
            for reason in self.reasons
            if reason.effect != "preferred" and (self.chosen is None or reason.candidate != self.chosen.name)
        )
        if self.chosen is None:
            return f"no deployment is left: {skipped or 'none is listed'}"
        why = "; ".join(
            reason.text
            for reason in self.reasons
            if reason.effect == "preferred" and reason.candidate in (None, self.chosen.name)
        )
        return f"{self.chosen.name}: {why or 'the first choice'}" + (f"; skipped: {skipped}" if skipped else "")


def explain(decision: Decision) -> str:
    """Several lines for a person: the choice, the order behind it, and what each policy said."""
    lines = [decision.one_line()]
    if decision.alternatives:
        lines.append(f"then: {', '.join(candidate.name for candidate in decision.alternatives)}")
    if decision.reasons:
        width = max(len(reason.policy) for reason in decision.reasons)
        lines.append("")
        lines += [f"{reason.policy:<{width}}  {_MARKS[reason.effect]} {reason}" for reason in decision.reasons]
    return "\n".join(lines)


_MARKS: dict[Effect, str] = {"dropped": "-", "last": "v", "passed": " ", "preferred": "+"}
