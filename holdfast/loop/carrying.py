"""What a run hands to its successor when its history has grown too long, and what the successor makes of it.

Wherever the run stands, nothing is lost between the two, nothing is counted twice and nothing that was done is done
again. A model is routed to again before it is called, because what stands in its way may have changed.
"""

from dataclasses import replace

from holdfast.contracts import Carried, Request
from holdfast.loop.commands import AskForBudget, CallModel, CallTools, LoopCommand
from holdfast.loop.state import LoopState


def resume(request: Request, carried: Carried) -> LoopState:
    """The state of a run that begins, or goes on after it started over; its first tick is `Began`.

    Args:
        request: What the run is pinned to.
        carried: What an earlier run handed over; a fresh one for a run that begins.
    """
    plan = request.plan
    return LoopState(
        plan.deployments,
        request.limits.repairs,
        request.limits.attempts,
        asks=plan.approval is not None,
        fallbacks=plan.fallbacks,
        escalation=plan.escalation,
        rests=request.walk > 1,
        may_extend=plan.budget_approval is not None,
        uses_tools=plan.toolbox is not None,
        limits=request.limits,
        taint=plan.taint,
        excluded=carried.excluded,
        resting=carried.resting,
        cause=carried.cause,
        answered_by=carried.deployment,
        turn=carried.turn,
        calls=carried.calls,
        repairs=carried.repairs,
        mending=carried.mending or (request.walk == 1 and carried.turn > 1),
        waits=carried.waits,
        budget_questions=carried.budget_questions,
        denial=carried.denial,
        denied=carried.denied,
        output=carried.output,
        unread=carried.unread,
        finish_reason=carried.finish_reason,
        violations=carried.violations,
        best=carried.best,
        best_deployment=carried.best_deployment,
        best_must_ask=carried.best_must_ask,
        best_finish_reason=carried.best_finish_reason,
        content=carried.content,
        iterations=carried.iterations,
        tool_calls=carried.tool_calls,
        repeated=carried.repeated,
        tainted=carried.tainted,
        final=carried.final,
        notice=carried.notice,
        pending=carried.pending,
        released=carried.released,
        returned=carried.returned,
    )


def carry(state: LoopState, before: LoopCommand, carried: Carried) -> Carried:
    """What the successor needs to go on where this run stops, before it has carried out a command.

    Args:
        state: Where the run stands.
        before: The command that is not carried out any more; the successor's loop gives it again.
        carried: The rest of what is handed over, which the loop does not know.
    """
    state = _without(state, before)
    return carried.model_copy(
        update={
            "excluded": state.excluded,
            "resting": state.resting,
            "cause": state.cause,
            "deployment": state.answered_by,
            "turn": state.turn,
            "calls": state.calls,
            "repairs": state.repairs,
            "mending": state.mending,
            "waits": state.waits,
            "budget_questions": state.budget_questions,
            "denial": state.denial,
            "denied": state.denied,
            "output": state.output,
            "unread": state.unread,
            "finish_reason": state.finish_reason,
            "violations": state.violations,
            "best": state.best,
            "best_deployment": state.best_deployment,
            "best_must_ask": state.best_must_ask,
            "best_finish_reason": state.best_finish_reason,
            "content": state.content,
            "iterations": state.iterations,
            "tool_calls": state.tool_calls,
            "repeated": state.repeated,
            "tainted": state.tainted,
            "final": state.final,
            "notice": state.notice,
            "pending": state.pending,
            "released": state.released,
            "returned": state.returned,
        }
    )


def _without(state: LoopState, command: LoopCommand) -> LoopState:
    """The state that does not count what was not done."""
    match command:
        case CallModel():
            return replace(state, calls=state.calls - 1)
        case CallTools(calls=calls):
            return replace(state, tool_calls=state.tool_calls - len(calls))
        case AskForBudget():
            return replace(state, budget_questions=state.budget_questions - 1)
        case _:
            return state
