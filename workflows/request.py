"""One request as a workflow: feeds what happened to the pure loop and carries out what the loop commands.

The decisions are in `holdfast.loop` and `holdfast.approval`; the calls are in `workflows.steps`. What is here is the
translation between them, and what only an engine can do: wait, be asked, be cancelled, start over with a short history.
"""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    # In this form, because `from workflows import steps` makes a copy in the SDK's sandbox, whose errors are others.
    import workflows.steps as steps
    from holdfast import budget, loop
    from holdfast.contracts import (
        Answer,
        ContentRef,
        EventKind,
        FinishReason,
        GenerateInput,
        Routed,
        RouteInput,
        Run,
        Status,
        Step,
        Validated,
        ValidateInput,
    )
    from holdfast.errors import HoldfastError
    from workflows import attributes
    from workflows.causes import tick_of
    from workflows.ending import Ending
    from workflows.run_sheet import money

BUGS = (
    HoldfastError,
    ValidationError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""A fault of this code ends the run; it does not retry the workflow task for ever. Nondeterminism is not among them,
because a rollback of the deployment mends it."""


@workflow.defn(name="RequestWorkflow", failure_exception_types=BUGS)
class RequestWorkflow(Ending):
    """Walks one request through its steps and waits for people in between."""

    @workflow.init
    def __init__(self, run: Run) -> None:
        super().__init__(run)

    @workflow.run
    async def run(self, run: Run) -> Answer:  # noqa: ARG002 - __init__ has read it
        """Walk the request to its end.

        Returns:
            How it ended, for every ending but `failed` and `cancelled`, which end the workflow accordingly.
        """
        try:
            answer = await self._walk_to_end()
        except steps.StepFailure as error:
            # Delivery itself failed: the ledger has no ending to tell, so the run does.
            self._tell(EventKind.STEP_FAILED, error.step, error.reason)
            workflow.upsert_search_attributes([attributes.STATUS.value_set(Status.FAILED)])
            raise _failed(str(error)) from None
        except BUGS:
            workflow.upsert_search_attributes([attributes.STATUS.value_set(Status.FAILED)])
            raise
        await workflow.wait_condition(workflow.all_handlers_finished)
        if answer.status is Status.FAILED:
            raise _failed(answer.reason or "The request failed.", answer)
        return answer

    async def _walk_to_end(self) -> Answer:
        try:
            return await self._end(await self._walk())
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            await self._stop_asking("the request was cancelled")
            decided = await self._as_decided()
            answer = await self._end(decided or loop.Finish(Status.CANCELLED, "Cancelled by the caller."))
            stands = decided is not None and answer.status is decided.status
            # Only a result tells the run that delegated this one what was spent.
            if answer.status is Status.COMPLETED or stands or self._request.parent:
                return answer
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise

    async def _as_decided(self) -> loop.Finish | None:
        """The ending that people decided on, if they did before the cancellation came: then that came too late."""
        tick = await self._decided_answer()
        if tick is None:
            return None
        if not isinstance(self._command, loop.Finish):
            self._loop, (self._command,) = loop.step(self._loop, tick)
        return self._command if isinstance(self._command, loop.Finish) else None

    async def _walk(self) -> loop.Finish:
        """Alternate between the loop's commands and what came of them."""
        tick: loop.LoopTick = await self._attempt(self._begin())
        while True:
            self._loop, (command,) = loop.step(self._loop, tick)
            self._command = command
            if isinstance(command, loop.Finish):
                if self._desk.question is not None and self._desk.verdict is None:
                    await self._stop_asking("the request ended")
                return command
            if self._remaining() <= timedelta(0):
                tick = loop.DeadlinePassed()
            else:
                tick = await self._attempt(self._carry_out(command))

    async def _attempt(self, work: Awaitable[loop.LoopTick]) -> loop.LoopTick:
        """Await a step; its final failure is a tick like any other, but cancellation goes through."""
        try:
            tick = await work
        except steps.StepFailure as error:
            self._tell(EventKind.STEP_FAILED, error.step, error.reason)
            late = self._remaining() <= timedelta(0)
            tick = loop.DeadlinePassed() if late else loop.StepFailed(error.step, error.reason)
        # An activity that ends before it hears of the cancellation swallows it; the task still knows.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        return tick

    async def _carry_out(self, command: loop.LoopCommand) -> loop.LoopTick:
        match command:
            case loop.ChooseDeployment():
                await self._start_over_if_long()
                await self._wait_for_window()
                return await self._choose(command)
            case loop.CallModel():
                await self._start_over_if_long()
                return await self._close_question() or await self._call(command)
            case loop.Wait(duration=duration, reason=reason):
                return await self._wait(duration, reason)
            case loop.Vet():
                return await self._vet(command)
            case loop.CallTools(calls=calls):
                return await self._call_tools(calls)
            case loop.AskAboutCall(call=call):
                return await self._ask_about(call)
            case loop.Transcribe():
                return await self._transcribe(command)
            case loop.Check(output=output, finish_reason=finish_reason):
                return await self._check(output, finish_reason)
            case loop.AskHuman(content=content):
                return await self._ask(content)
            case loop.AskForBudget(reason=reason):
                return await self._ask_for_budget(reason)
            case _:
                raise ValueError(f"No way to carry out {type(command).__name__}.")

    async def _choose(self, command: loop.ChooseDeployment) -> loop.LoopTick:
        self._route = await steps.local(
            Step.ROUTE,
            RouteInput(
                deployments=command.candidates,
                excluded=command.excluded,
                request=self._request,
                question=self._state.masked,
                conversation=self._state.conversation,
                passages=self._state.passages,
                turn=max(self._loop.turn, 1),
                cause=command.cause,
            ),
            Routed,
            ", ".join(name for name in command.candidates if name not in command.excluded),
            self._remaining(),
        )
        self._done(Step.ROUTE, self._route.reason)
        return loop.DeploymentChosen(self._route.deployment, self._route.reason)

    async def _call(self, command: loop.CallModel) -> loop.LoopTick:
        request, plan, deployment = self._request, self._request.plan, command.deployment
        if self._route is None:
            raise ValueError("A model call was commanded before a route was chosen.")
        by_batch = ", in line for a batch" if self._route.batch else ""
        self._tell(EventKind.STEP_STARTED, Step.GENERATE, f"{deployment}, turn {command.turn}{by_batch}")
        call = GenerateInput(
            request_id=request.id,
            tenant=request.tenant,
            deployment=deployment,
            turn=command.turn,
            question=self._state.masked,
            instructions=plan.instructions,
            limits=budget.without(request.limits, self._state.delegated),
            output_schema=plan.output_schema,
            passages=self._state.passages,
            previous=command.previous,
            violations=command.violations,
            last_resort=command.last_resort,
            conversation=self._state.conversation,
            scopes=self._scopes,
            tries=steps.tries(request, command),
            agent=plan.agent,
            # What a person has still to release, or a better deployment may replace, is not shown early.
            streams=plan.approval is None and plan.escalation is None,
            heeds_disconnect=plan.on_disconnect == "cancel",
            logprobs=plan.escalation is not None and not plan.escalation.field,
            **self._tools_of(command),
        )
        try:
            if self._route.batch:
                reply = await self._reply_from_batch(call)
            else:
                reply = await steps.generate(call, self._route, request, self._remaining())
        except steps.StepFailure as error:
            self._tell(EventKind.STEP_FAILED, Step.GENERATE, f"{deployment}: {error.reason}")
            return tick_of(deployment, error, workflow.now(), self._remaining(), self._state.delegated)
        self._confidence = reply.confidence
        self._keep(deployment=deployment, spent=reply.spent, attempts=reply.attempts)
        self._last_call = (
            f"{deployment}, {reply.usage.input_tokens + reply.usage.cache_read_tokens} in / "
            f"{reply.usage.output_tokens} out, {money(reply.usage)}"
        )
        again = "" if reply.attempts == 1 else f"; call {reply.attempts} of the request"
        self._done(Step.GENERATE, f"{self._last_call}{again}")
        return loop.ModelReplied(reply.output, reply.finish_reason, reply.attempts)

    def _tools_of(self, command: loop.CallModel) -> dict[str, Any]:
        """What a call of an agent with tools has besides."""
        state = self._state
        if state.equipped is None:
            return {}
        return {"catalog": state.equipped.catalog, "transcript": state.transcript, "final": command.final}

    async def _wait(self, duration: timedelta, reason: str) -> loop.LoopTick:
        if duration >= self._remaining():
            return loop.DeadlinePassed(
                f"A wait of {duration.total_seconds():.0f} s, {reason}, would pass the request's deadline; raise "
                "`limits.deadline`, or give the agent another deployment.",
                after=self._request.limits.deadline - self._remaining() + duration,
            )
        self._done(Step.GENERATE, f"waiting {duration.total_seconds():.0f} s, {reason}")
        await workflow.sleep(duration, summary=f"wait {reason}")
        return loop.Waited()

    async def _wait_for_window(self) -> None:
        """Sleep until the request's own earliest moment, if it named one."""
        opens = self._request.not_before
        if opens is not None and opens > workflow.now():
            until = min(opens - workflow.now(), self._remaining())
            self._done(Step.ROUTE, f"waiting for the window at {opens:%Y-%m-%d %H:%M} UTC")
            await workflow.sleep(until, summary="window of the batch")

    async def _check(self, output: ContentRef, finish_reason: FinishReason) -> loop.LoopTick:
        escalation = self._request.plan.escalation
        checked = await steps.local(
            Step.VALIDATE,
            ValidateInput(
                tenant=self._request.tenant,
                output=output,
                finish_reason=finish_reason,
                output_schema=self._request.plan.output_schema,
                passages=self._state.passages,
                chat=self._request.chat,
                confidence_field=escalation.field if escalation else "",
                **self._condition,
            ),
            Validated,
            f"reply of {self._last_call}",
            self._remaining(),
        )
        confidence = checked.confidence if escalation and escalation.field else self._confidence
        if checked.ok:
            sure = "" if escalation is None or confidence is None else f", confidence {confidence:.2f}"
            self._done(Step.VALIDATE, f"{checked.rung.replace('_', ' ')}, {checked.citations} citations{sure}")
        else:
            self._tell(EventKind.STEP_FAILED, Step.VALIDATE, f"{len(checked.violations)} violations")
        content = checked.content if checked.ok else None
        return loop.Checked(content, checked.violations, confidence, self._must_ask(checked))

    @property
    def _condition(self) -> dict[str, Any]:
        """Under which condition people are asked about the answer, and what it is evaluated on."""
        plan, state = self._request.plan, self._state
        if plan.approval is None or not plan.approval_when:
            return {}
        return {
            "condition": plan.approval_when,
            "spent": self._spent,
            "retrieved_score": state.retrieved_score,
            "masked": state.placeholders,
            "confidence": self._confidence,
        }

    def _must_ask(self, checked: Validated) -> bool | None:
        """Whether people are asked about an answer; `None` leaves it to the agent's rule, which has no condition."""
        if not self._condition:
            return None
        if not self._loop.conditions_hold:
            self._why = f"the run has read text from outside: {', '.join(self._loop.untrusted)}"
            return True
        self._why = checked.why
        return checked.condition_met is not False


def _failed(reason: str, *answer: Answer) -> ApplicationError:
    """A failed request; the answer tells a run that delegated it what was spent."""
    return ApplicationError(reason, *answer, type="RequestFailed", non_retryable=True)
