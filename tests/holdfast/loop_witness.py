"""A witness of runs of the loop: writes down what was really done, and says of every command whether it may be."""

from collections import Counter
from dataclasses import dataclass, field

from holdfast import loop
from holdfast.contracts import ContentRef, Origin, PlannedCall, Request, Status, ToolReturned

LIMITS = {"tokens", "cost_usd", "attempts", "repairs", "iterations", "tool_calls", "repetitions", "deadline"}


@dataclass
class Witness:
    """Knows the request and everything that was really done for it.

    Its own counts are compared with the limits, never the loop's.
    """

    request: Request
    command: loop.LoopCommand | None = None
    """The last one."""
    sent: int = 0
    """Calls of models that went out."""
    told: int = 0
    """Times that results were told to the model."""
    mended: set[int] = field(default_factory=set)
    """Turns that asked for a repair."""
    made: dict[str, PlannedCall] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Calls that people refused."""
    approved: dict[str, PlannedCall] = field(default_factory=dict)
    reply: tuple[PlannedCall, ...] | None = None
    """The calls of the last reply, until they are told."""
    results: dict[str, ToolReturned] = field(default_factory=dict)
    tainted: set[Origin] = field(default_factory=set)
    valid: set[ContentRef] = field(default_factory=set)
    agreed: set[ContentRef] = field(default_factory=set)
    free: set[ContentRef] = field(default_factory=set)
    """Contents that nobody has to agree to."""
    budget_questions: int = 0

    def look_at(self, command: loop.LoopCommand) -> None:
        """What has to be true of every command, whatever came before it."""
        self.command = command
        limits = self.request.limits
        match command:
            case loop.CallModel(turn=turn, violations=violations):
                assert self.sent < limits.attempts
                assert self.told < limits.iterations
                assert self.reply is None, "no question before the results of the last reply are told"
                self.mended |= {turn} if violations else set()
                assert len(self.mended) <= limits.repairs
                if self.told + 1 == limits.iterations or len(self.made) >= limits.tool_calls:
                    assert command.final
            case loop.Vet():
                assert self.told + 1 < limits.iterations
                assert self.sent < limits.attempts
            case loop.CallTools(calls=calls):
                self.look_at_calls(calls)
            case loop.AskAboutCall(call=call):
                assert call in (self.reply or ())
                assert call.rule is not None
                assert call.key not in self.approved
                assert call.key not in self.refused
            case loop.Transcribe(results=results):
                self.look_at_results(results)
            case loop.AskForBudget():
                assert self.budget_questions < loop.MAX_BUDGET_QUESTIONS
            case loop.Finish():
                self.look_at_ending(command)

    def look_at_calls(self, calls: tuple[PlannedCall, ...]) -> None:
        limits, taint = self.request.limits, self.request.plan.taint
        assert calls
        for call in calls:
            assert call.key not in self.made, "a call is made at most once"
            assert call.key not in self.refused
            assert not call.problem
            if call.rule is not None:
                assert self.approved.get(call.key) == call, "no call that needs people is made without them"
            elif self.tainted - set(taint.trust) and taint.side_effects == "refuse":
                assert not call.side_effects, "a tainted run has no effects that nobody approved"
        made = [*self.made.values(), *calls]
        assert len(made) <= limits.tool_calls
        keys = {call.key for call in self.reply or ()}
        assert len([call for call in made if call.key in keys]) <= limits.calls_at_once
        assert max(Counter(call.digest for call in made).values()) <= limits.repetitions

    def look_at_results(self, results: tuple[ToolReturned, ...]) -> None:
        assert self.reply
        assert [result.key for result in results] == [call.key for call in self.reply]
        for result in results:
            if result.key in self.results:
                assert result == self.results[result.key]
            else:
                assert not result.ok
                assert result.problem
                assert result.key not in self.made

    def look_at_ending(self, finish: loop.Finish) -> None:
        if finish.status is Status.COMPLETED:
            assert finish.content in self.valid
            assert finish.content in self.agreed | self.free
        else:
            assert finish.content is None
            assert finish.reason
        assert finish.limit is None or finish.limit.limit in LIMITS
        if finish.status in (Status.DENIED, Status.EXPIRED):
            assert finish.limit is not None
