"""How a run ends: with content, by a limit, or without either."""

from dataclasses import replace

from holdfast.contracts import ContentRef, LimitReached, Status
from holdfast.errors import LimitExceeded
from holdfast.loop.commands import AskHuman, Finish
from holdfast.loop.limits import on_record
from holdfast.loop.state import LoopState, Reaction


def finish(
    state: LoopState,
    status: Status,
    reason: str | None,
    content: ContentRef | None = None,
    limit: LimitReached | None = None,
) -> Reaction:
    """End the run."""
    return replace(state, ended=True), (Finish(status, reason, content, limit),)


def release(state: LoopState, content: ContentRef, must_ask: bool | None = None) -> Reaction:
    """Deliver valid content, after asking people if they have to agree."""
    state = replace(state, content=content)
    if state.asks if must_ask is None else must_ask:
        return state, (AskHuman(content),)
    return finish(state, Status.COMPLETED, None, content)


def settle_for_best(state: LoopState, status: Status, reason: str, limit: LimitReached | None = None) -> Reaction:
    """End with the valid reply that was not sure enough, if there is one, or else as `status` says."""
    if state.best is not None:
        settled = replace(state, best=None, answered_by=state.best_deployment, finish_reason=state.best_finish_reason)
        return release(settled, state.best, state.best_must_ask)
    return finish(state, status, reason, limit=limit)


def stop_at(state: LoopState, error: LimitExceeded, status: Status = Status.DENIED, addition: str = "") -> Reaction:
    """End because a limit is reached, unless there is content to settle for."""
    return settle_for_best(state, status, f"{error}{addition}", on_record(error))
