"""The part of a run that uses tools: has the calls of a reply looked at, makes them, and tells the model of them.

Which of them are made, and in which order people are asked, is decided in `holdfast.loop`.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Literal, TypeVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    # In this form, because `from workflows import steps` makes a copy in the SDK's sandbox, whose errors are others.
    import workflows.steps as steps
    from holdfast import loop
    from holdfast.contracts import (
        CallToolInput,
        ContentRef,
        EquipInput,
        Equipped,
        EventKind,
        Limits,
        PlannedCall,
        Step,
        ToolLine,
        ToolReturned,
        Transcribed,
        TranscribeInput,
        VetInput,
        Vetted,
    )
    from holdfast.errors import LimitExceeded
    from workflows.delegating import Delegating, not_made

ResultT = TypeVar("ResultT")

MOST_LINES = 100
"""Calls that the progress of a run lists, the latest ones."""


class Working(Delegating):
    """Uses tools."""

    async def _equip(self) -> None:
        """Look up the agent's tools and fix them for this run."""
        plan = self._request.plan
        if plan.toolbox is None:
            return
        equipped = await steps.local(
            Step.EQUIP,
            EquipInput(tenant=self._request.tenant, agent=plan.agent, toolbox=plan.toolbox),
            Equipped,
            "the agent's tools",
            self._remaining(),
            takes=steps.LONG,
        )
        self._keep(equipped=equipped)
        workflow.upsert_memo({"tools": equipped.catalog.sha256})
        for reason in equipped.missing:
            self._tell(EventKind.STEP_FAILED, Step.EQUIP, reason)
        self._done(Step.EQUIP, f"{equipped.count} tools, catalog {equipped.catalog.sha256[:12]}")

    async def _vet(self, command: loop.Vet) -> loop.LoopTick:
        """Have the calls that a reply asks for looked at."""
        toolbox, catalog = self._equipment
        vetted = await steps.local(
            Step.VET,
            VetInput(
                tenant=self._request.tenant,
                request_id=self._request.id,
                turn=command.turn,
                reply=command.output,
                catalog=catalog,
                toolbox=toolbox,
                most=command.most,
                tainted=not self._loop.conditions_hold,
                run_tainted=bool(self._loop.untrusted),
                spent=self._spent,
            ),
            Vetted,
            f"calls of turn {command.turn}",
            self._remaining(),
            takes=steps.LONG,
        )
        names = ", ".join(call.name for call in vetted.calls)
        left_out = f"; {vetted.left_out} more were not looked at" if vetted.left_out else ""
        self._done(Step.VET, f"{len(vetted.calls)} calls asked for: {names}{left_out}")
        return loop.CallsPlanned(vetted.calls, vetted.left_out)

    async def _ask_about(self, call: PlannedCall) -> loop.LoopTick:
        """Ask people whether a call may be made."""
        self._show(call, "asking", summary=call.why)
        tick = await self._ask_about_call(call)
        if isinstance(tick, loop.CallWithheld):
            self._show(call, "refused", summary="people did not agree to it")
        return tick

    async def _call_tools(self, calls: tuple[PlannedCall, ...]) -> loop.LoopTick:
        """Make calls, all at once."""
        part = self._part_for_each(sum(call.kind == "delegate" for call in calls))
        return loop.ToolsReturned(await _together(self._make(call, part) for call in calls))

    async def _make(self, call: PlannedCall, part: Limits | LimitExceeded) -> ToolReturned:
        """Make one call and show what came of it."""
        self._no_longer_owed(call.key)
        self._show(call, "running")
        returned = await (self._delegate(call, part) if call.kind == "delegate" else self._call_tool(call))
        again = ", on record before" if returned.repeated else ""
        told = f"{returned.summary.removeprefix(f'{call.name}: ') or 'no result'}{again}"
        self._tell(EventKind.TOOL_FINISHED if returned.ok else EventKind.TOOL_FAILED, call.name, f"{call.key}: {told}")
        self._show(
            call,
            "done" if returned.ok else "failed",
            summary=told,
            result=returned.result,
            delegate=returned.delegate,
        )
        return returned

    async def _call_tool(self, call: PlannedCall) -> ToolReturned:
        request = self._request
        _, catalog = self._equipment
        self._tell(EventKind.TOOL_STARTED, call.name, call.key)
        try:
            return await steps.call_tool(
                CallToolInput(
                    tenant=request.tenant,
                    user=request.user,
                    request_id=request.id,
                    agent=request.plan.agent,
                    session=request.session,
                    call=call,
                    catalog=catalog,
                ),
                request,
                self._remaining(),
                self._route.heartbeat_timeout if self._route else steps.HEARTBEAT,
            )
        except steps.StepFailure as error:
            problem = f"Tool {call.name!r} gave no result."
            if call.side_effects and not call.idempotent:
                problem += " What it does may or may not have been done; do not assume either, and do not try again."
            return not_made(call, problem, error.reason)

    async def _transcribe(self, command: loop.Transcribe) -> loop.LoopTick:
        """Put what came of a reply's calls into what the model is shown next."""
        state = self._state
        for result in command.results:
            self._no_longer_owed(result.key)
            self._show_refusal(result)
        transcribed = await steps.local(
            Step.TRANSCRIBE,
            TranscribeInput(
                tenant=self._request.tenant,
                request_id=self._request.id,
                reply=command.output,
                results=command.results,
                transcript=state.transcript,
                passages=state.passages,
                guards=self._request.plan.guards,
                notice=command.notice,
                masked=state.masked,
            ),
            Transcribed,
            f"{len(command.results)} results",
            self._remaining(),
            takes=steps.LONG,
        )
        self._keep(
            transcript=transcribed.transcript,
            passages=transcribed.passages or state.passages,
            private=state.private or transcribed.private,
        )
        self._done(Step.TRANSCRIBE, f"{len(command.results)} results, {transcribed.tokens} tokens of them in all")
        return loop.Told()

    def _no_longer_owed(self, key: str) -> None:
        """An approved call is being made, or the model is told why not."""
        if key in self._state.agreed:
            self._keep(agreed={known: asked for known, asked in self._state.agreed.items() if known != key})

    @property
    def _equipment(self) -> tuple[ContentRef, ContentRef]:
        """The agent's toolbox, and the run's catalog."""
        toolbox, equipped = self._request.plan.toolbox, self._state.equipped
        if toolbox is None or equipped is None:
            raise ValueError("Tools are to be used before the run was equipped with any.")
        return toolbox, equipped.catalog

    def _show(
        self,
        call: PlannedCall,
        state: Literal["asking", "running", "done", "failed", "refused"],
        *,
        summary: str = "",
        result: ContentRef | None = None,
        delegate: str = "",
    ) -> None:
        """Let the run's progress tell how a call stands."""
        line = ToolLine(
            key=call.key,
            name=call.name,
            state=state,
            arguments=call.arguments,
            result=result,
            summary=summary,
            delegate=delegate,
        )
        known = self._state.lines
        if any(other.key == call.key for other in known):
            lines = tuple(line if other.key == call.key else other for other in known)
        else:
            lines = (*known, line)[-MOST_LINES:]
        self._keep(lines=lines)

    def _show_refusal(self, result: ToolReturned) -> None:
        """Tell of a call that was never made: the loop refused it, so no step has."""
        if any(line.key == result.key for line in self._state.lines):
            return
        self._tell(EventKind.TOOL_FAILED, result.name, f"{result.key}: refused, and the model told why")
        line = ToolLine(key=result.key, name=result.name, state="refused", summary="not made; the model was told why")
        self._keep(lines=(*self._state.lines, line)[-MOST_LINES:])


async def _together(work: Iterable[Coroutine[Any, Any, ResultT]]) -> tuple[ResultT, ...]:
    """Await all of it. When the run is cancelled meanwhile, each part ends in its own way before this raises."""
    ended = await asyncio.gather(*work, return_exceptions=True)
    results: list[ResultT] = []
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return tuple(results)
