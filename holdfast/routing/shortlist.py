"""The candidates on their way through the policies: levels of equal preference, best first.

A policy may drop a candidate, put it last, or order candidates *within* a level. None can lift a candidate over one
that an earlier policy has put before it; that is what makes the order of the policies their precedence.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from holdfast.routing.candidate import Candidate, Demand
from holdfast.routing.decision import Effect, Reason


@dataclass(frozen=True)
class Shortlist:
    """Who is left, in which order, and why."""

    levels: tuple[tuple[Candidate, ...], ...]
    reasons: tuple[Reason, ...] = ()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All that are left, best first."""
        return tuple(candidate for level in self.levels for candidate in level)

    def drop(self, policy: str, faults: Mapping[str, str]) -> "Shortlist":
        """Take candidates out for good.

        Args:
            policy: Who says so.
            faults: Text by name; names that are not listed any more are ignored.
        """
        return replace(
            self,
            levels=_levels([candidate for candidate in level if candidate.name not in faults] for level in self.levels),
            reasons=self.reasons + self._about(policy, faults, "dropped"),
        )

    def last(self, policy: str, faults: Mapping[str, str]) -> "Shortlist":
        """Put candidates behind all others, unless that is all of them."""
        behind = [[candidate for candidate in level if candidate.name in faults] for level in self.levels]
        if sum(map(len, behind)) == len(self.candidates):
            return self
        before = [[candidate for candidate in level if candidate.name not in faults] for level in self.levels]
        return replace(
            self, levels=_levels([*before, *behind]), reasons=self.reasons + self._about(policy, faults, "last")
        )

    def refine(self, rank: Callable[[Candidate], float]) -> "Shortlist":
        """Order each level by a rank, least first; candidates of one rank stay level."""
        refined: list[list[Candidate]] = []
        for level in self.levels:
            ranks = sorted({rank(candidate) for candidate in level})
            refined += [[candidate for candidate in level if rank(candidate) == value] for value in ranks]
        return replace(self, levels=_levels(refined))

    def say(self, policy: str, text: str, candidate: str | None = None, effect: Effect = "preferred") -> "Shortlist":
        """Add a reason that moves nothing."""
        return replace(self, reasons=(*self.reasons, Reason(policy, candidate, text, effect)))

    def _about(self, policy: str, faults: Mapping[str, str], effect: Effect) -> tuple[Reason, ...]:
        return tuple(
            Reason(policy, candidate.name, faults[candidate.name], effect)
            for candidate in self.candidates
            if candidate.name in faults
        )


class Policy(Protocol):
    """One consideration. Pure: the same shortlist and demand give the same result."""

    @property
    def name(self) -> str:
        """As it appears in reasons."""
        ...

    def apply(self, shortlist: Shortlist, demand: Demand) -> Shortlist:
        """Drop, put last or order candidates, with a reason for each that is dropped or put last."""
        ...


def _levels(levels: Iterable[Iterable[Candidate]]) -> tuple[tuple[Candidate, ...], ...]:
    return tuple(filled for level in levels if (filled := tuple(level)))
