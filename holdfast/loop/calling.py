"""Calling tools: which calls of a reply are made, which people are asked about, and which are refused.

A reply's calls go through four stations: planned (judged one by one), made (those that nobody has to agree to, all at
once), asked about (one after another; the approved ones are then made, all at once), transcribed. Every call that was
planned ends with exactly one result, because providers want one for each and because the model learns from a refusal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.contracts import CallCount, ContentRef, PlannedCall, ToolReturned
from holdfast.loop.asking import ask_on, without_calls
from holdfast.loop.commands import AskAboutCall, CallTools, Check, Transcribe, Vet
from holdfast.loop.ending import stop_at
from holdfast.loop.state import LoopState, Reaction
from holdfast.loop.ticks import CallReleased, CallsPlanned, CallWithheld, ToolsReturned

MAX_LOOKED_AT = 64
"""Calls of one reply that are looked at: no fewer than `limits.calls_at_once` admits at its highest."""


def read(state: LoopState, output: ContentRef) -> Reaction:
    """A reply asks for calls; one that had to answer without them ends the run."""
    limit = without_calls(state)
    if limit is not None:
        return stop_at(replace(state, unread=False), limit)
    return state, (Vet(output, state.turn, MAX_LOOKED_AT),)


def plan(state: LoopState, planned: CallsPlanned) -> Reaction:
    """Judge the calls of a reply, in its order."""
    if state.output is None or not state.unread:
        raise ValueError("Calls were planned without a reply that asks for them.")
    keys = {call.key for call in planned.calls}
    if len(keys) < len(planned.calls) or any(_turn(key) != state.turn for key in keys):
        raise ValueError(f"The calls of turn {state.turn} need keys of their own, `{state.turn}.0` and so on.")
    if not planned.calls:
        return state, (Check(state.output, state.finish_reason),)
    admitted: list[PlannedCall] = []
    refused: list[ToolReturned] = []
    at_a_limit = False
    for call in planned.calls:
        verdict, state = _judge(state, call, len(admitted))
        if verdict is None:
            admitted.append(call)
        else:
            at_a_limit |= verdict.by_limit
            refused.append(_refused(call, verdict.problem))
    notice = f"{planned.left_out} more calls of this reply were left out; ask for fewer at once."
    return go_on(
        replace(
            state,
            unread=False,
            pending=tuple(admitted),
            released=(),
            returned=tuple(refused),
            final=state.final or (at_a_limit and not admitted),
            notice=notice if planned.left_out else "",
        )
    )


def go_on(state: LoopState) -> Reaction:
    """The next thing to do about the calls of the last reply."""
    ready = _ready(state)
    if ready:
        return _make(state, ready)
    if state.pending:
        return state, (AskAboutCall(state.pending[0]),)
    return _transcribe(state)


def after_results(state: LoopState, came: ToolsReturned) -> Reaction:
    """Calls that were made have their results, which may taint the run."""
    expected = [call.key for call in _ready(state)]
    keys = [result.key for result in came.results]
    if not expected or sorted(keys) != sorted(expected):
        raise ValueError(f"Results came for calls {sorted(keys)}; expected were {sorted(expected)}.")
    tainting = (result.tainting for result in came.results if result.tainting is not None)
    return go_on(
        replace(
            state,
            pending=tuple(call for call in state.pending if call.key not in keys),
            released=(),
            returned=(*state.returned, *came.results),
            tainted=tuple(dict.fromkeys((*state.tainted, *tainting))),
        )
    )


def after_release(state: LoopState, tick: CallReleased) -> Reaction:
    """People let a call be made. With other arguments it is another call, which may repeat earlier ones."""
    asked, state = _asked_about(state, tick.call.key)
    call = tick.call
    if call.problem:
        return go_on(_with_result(state, _refused(call, call.problem)))
    if call.digest != asked.digest:
        count, state = _count(state, call.digest)
        if count > state.limits.repetitions:
            return go_on(_with_result(state, _refused(call, _repeated(state, count))))
    return go_on(replace(state, released=(*state.released, call)))


def after_withholding(state: LoopState, tick: CallWithheld) -> Reaction:
    """People refused a call; the model is told."""
    asked, state = _asked_about(state, tick.key)
    return go_on(_with_result(state, _refused(asked, f"A person refused this call: {tick.reason}")))


def after_telling(state: LoopState) -> Reaction:
    """The results are told: the next question."""
    if not state.returned or state.pending or state.released:
        raise ValueError("Nothing was to be told, or calls are still under way.")
    return ask_on(
        replace(
            state,
            turn=state.turn + 1,
            iterations=max(state.iterations, 1) + 1,
            mending=False,
            returned=(),
            notice="",
        )
    )


@dataclass(frozen=True)
class _Refusal:
    problem: str
    by_limit: bool = False


def _judge(state: LoopState, call: PlannedCall, admitted: int) -> tuple[_Refusal | None, LoopState]:
    limits = state.limits
    if call.problem:
        return _Refusal(call.problem), state
    if _is_dangerous(state, call):
        return _Refusal(_dangerous(state, call)), state
    if state.tool_calls + admitted >= limits.tool_calls:
        problem = f"Not called: the {limits.tool_calls} calls of tools that this task may make are used up."
        return _Refusal(problem, by_limit=True), state
    if admitted >= limits.calls_at_once:
        problem = f"Not called: at most {limits.calls_at_once} calls are made for one reply. Ask again if it is needed."
        return _Refusal(problem, by_limit=True), state
    count, state = _count(state, call.digest)
    if count > limits.repetitions:
        return _Refusal(_repeated(state, count), by_limit=True), state
    return None, state


def _is_dangerous(state: LoopState, call: PlannedCall) -> bool:
    """Whether text from outside may have asked for this call, and no person would see it first."""
    return bool(state.untrusted) and call.side_effects and call.rule is None and state.taint.side_effects == "refuse"


def _dangerous(state: LoopState, call: PlannedCall) -> str:
    return (
        f"Not called: {call.name} has effects outside this task, the task has read text from outside "
        f"({', '.join(state.untrusted)}), and no person approves this call. Go on without it."
    )


def _repeated(state: LoopState, count: int) -> str:
    return (
        f"Not called: this same call was asked for {count} times, and at most {state.limits.repetitions} are made. Use "
        "the results you have, or go another way."
    )


def _count(state: LoopState, digest: str) -> tuple[int, LoopState]:
    """How often a call was asked for with this time, and the state that knows it."""
    counts = {asked.digest: asked.count for asked in state.repeated}
    counts[digest] = counts.get(digest, 0) + 1
    repeated = tuple(CallCount(digest=digest, count=count) for digest, count in counts.items())
    return counts[digest], replace(state, repeated=repeated)


def _ready(state: LoopState) -> tuple[PlannedCall, ...]:
    """The calls to make next: first those that nobody is asked about, and once everybody was asked, the approved."""
    free = tuple(call for call in state.pending if call.rule is None)
    return free or (state.released if not state.pending else ())


def _make(state: LoopState, calls: Sequence[PlannedCall]) -> Reaction:
    """Make calls, but for those that results in the meantime made too dangerous to be made unseen."""
    approved = {call.key for call in state.released}
    unseen = [call for call in calls if call.key not in approved and _is_dangerous(state, call)]
    if unseen:
        refused = {call.key for call in unseen}
        state = replace(state, pending=tuple(call for call in state.pending if call.key not in refused))
        return go_on(_with_result(state, *(_refused(call, _dangerous(state, call)) for call in unseen)))
    return replace(state, tool_calls=state.tool_calls + len(calls)), (CallTools(tuple(calls)),)


def _transcribe(state: LoopState) -> Reaction:
    if state.output is None:
        raise ValueError("There are results without the reply that asked for them.")
    results = tuple(sorted(state.returned, key=lambda result: _position(result.key)))
    coming = replace(state, iterations=max(state.iterations, 1) + 1, calls=state.calls + 1)
    last = without_calls(coming)
    notices = [state.notice] if state.notice else []
    if last is not None:
        notices.append("No more calls are possible now: answer with what you have.")
    return state, (Transcribe(state.output, results, " ".join(notices)),)


def _asked_about(state: LoopState, key: str) -> tuple[PlannedCall, LoopState]:
    """The call that people were asked about, and the state without it."""
    if not state.pending or state.pending[0].key != key or _ready(state):
        raise ValueError(f"Nobody was asked about call {key}.")
    return state.pending[0], replace(state, pending=state.pending[1:])


def _with_result(state: LoopState, *results: ToolReturned) -> LoopState:
    return replace(state, returned=(*state.returned, *results))


def _refused(call: PlannedCall, problem: str) -> ToolReturned:
    return ToolReturned(key=call.key, id=call.id, name=call.name, ok=False, problem=problem, summary="not called")


def _turn(key: str) -> int:
    return int(key.split(".")[0])


def _position(key: str) -> int:
    return int(key.split(".")[1])
