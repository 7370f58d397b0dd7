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
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    # In this form, because `from workflows import steps` makes a copy in the SDK's sandbox, whose errors are others.
    import workflows.steps as steps
    from holdfast import loop
    from holdfast.contracts import (
        Answer,
        ContentRef,
        DecisionKind,
        Delivered,
        DeliverInput,
        EventKind,
        FinishReason,
        GenerateInput,
        Recalled,
        RecallInput,
        Retrieved,
        RetrieveInput,
        Routed,
        RouteInput,
        Run,
        Sanitized,
        SanitizeInput,
        Status,
        Step,
        Validated,
        ValidateInput,
    )
    from holdfast.errors import HoldfastError
    from workflows import attributes
    from workflows.batched import Batched
    from workflows.causes import tick_of
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


AFTERWARDS = timedelta(minutes=50)
"""How long after its deadline a request is still being closed; the engine ends the run an hour after it."""


@workflow.defn(name="RequestWorkflow", failure_exception_types=BUGS)
class RequestWorkflow(Batched):
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
            raise _failed(answer.reason or "The request failed.")
        return answer

    async def _walk_to_end(self) -> Answer:
        try:
            return await self._end(await self._walk())
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            self._desk.close()
            answer = await self._end(loop.Finish(Status.CANCELLED, "Cancelled by the caller."))
            if answer.status is Status.COMPLETED:
                return answer
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise

    async def _walk(self) -> loop.Finish:
        """Alternate between the loop's commands and what came of them."""
        tick: loop.LoopTick = await self._attempt(self._begin())
        while True:
            self._loop, (command,) = loop.step(self._loop, tick)
            if isinstance(command, loop.Finish):
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

    async def _begin(self) -> loop.LoopTick:
        request, plan = self._request, self._request.plan
        if self._resumed:
            content = self._state.content
            return loop.Checked(content) if content else loop.Began()
        sanitized = await steps.local(
            Step.SANITIZE,
            SanitizeInput(
                request_id=request.id,
                tenant=request.tenant,
                input=request.input,
                guards=plan.guards,
                conversation=request.conversation,
            ),
            Sanitized,
            f"{request.input.size} bytes",
            self._remaining(),
        )
        self._keep(masked=sanitized.masked, private=bool(sanitized.placeholders), conversation=sanitized.conversation)
        masked = ", ".join(f"{count} {kind}" for kind, count in sorted(sanitized.placeholders.items()))
        self._done(Step.SANITIZE, f"masked {masked}" if masked else "nothing to mask")
        if sanitized.refusal:
            return loop.Refused(sanitized.refusal)
        if self._recallable:
            recalled = await steps.local(
                Step.RECALL,
                RecallInput(tenant=request.tenant, plan_version=plan.version, masked=self._state.masked),
                Recalled,
                "the identical question",
                self._remaining(),
            )
            if recalled.content:
                self._keep(passages=recalled.passages, recalled=True)
                self._done(Step.RECALL, f"answered before, by {recalled.from_request}")
                return loop.Began(recalled.content)
            self._done(Step.RECALL, "not asked before")
        if plan.collection:
            retrieved = await steps.local(
                Step.RETRIEVE,
                RetrieveInput(
                    tenant=request.tenant, collection=plan.collection, query=self._state.masked, limit=plan.passages
                ),
                Retrieved,
                f"{plan.passages} passages of {plan.collection!r}",
                self._remaining(),
            )
            self._keep(passages=retrieved.passages)
            self._done(Step.RETRIEVE, f"{retrieved.count} passages, best score {retrieved.top_score:.2f}")
        return loop.Began()

    async def _carry_out(self, command: loop.LoopCommand) -> loop.LoopTick:
        match command:
            case loop.ChooseDeployment():
                await self._start_over_if_long()
                await self._wait_for_window()
                return await self._choose(command)
            case loop.CallModel():
                await self._start_over_if_long(calls=self._loop.calls - 1)
                return await self._call(command)
            case loop.Wait(duration=duration, reason=reason):
                return await self._wait(duration, reason)
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
            limits=request.limits,
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
        )
        try:
            if self._route.batch:
                reply = await self._reply_from_batch(call)
            else:
                reply = await steps.generate(call, self._route, request, self._remaining())
        except steps.StepFailure as error:
            self._tell(EventKind.STEP_FAILED, Step.GENERATE, f"{deployment}: {error.reason}")
            return tick_of(deployment, error, workflow.now(), self._remaining())
        self._confidence = reply.confidence
        self._keep(deployment=deployment, spent=reply.spent, attempts=reply.attempts)
        self._last_call = (
            f"{deployment}, {reply.usage.input_tokens + reply.usage.cache_read_tokens} in / "
            f"{reply.usage.output_tokens} out, {money(reply.usage)}"
        )
        again = "" if reply.attempts == 1 else f"; call {reply.attempts} of the request"
        self._done(Step.GENERATE, f"{self._last_call}{again}")
        return loop.ModelReplied(reply.output, reply.finish_reason)

    async def _wait(self, duration: timedelta, reason: str) -> loop.LoopTick:
        if duration >= self._remaining():
            return loop.DeadlinePassed(
                f"A wait of {duration.total_seconds():.0f} s, {reason}, would pass the request's deadline; raise "
                "`limits.deadline`, or give the agent another deployment."
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
        return loop.Checked(checked.content if checked.ok else None, checked.violations, confidence)

    async def _end(self, finish: loop.Finish) -> Answer:
        request, state = self._request, self._state
        receipt = self._desk.receipt
        edited = receipt is not None and receipt.decision is DecisionKind.EDIT
        delivered = await steps.local(
            Step.DELIVER,
            DeliverInput(
                request=request,
                status=finish.status,
                reason=finish.reason,
                content=finish.content,
                passages=state.passages,
                masked=state.masked,
                private=state.private,
                # What a chat client's limit cut off is an answer to that client only.
                recallable=self._recallable
                and not (state.recalled or edited)
                and self._loop.finish_reason is FinishReason.STOP,
                deployment=self._loop.answered_by,
                recalled=state.recalled,
                decided_by=receipt.actor if receipt else None,
                finish_reason=self._loop.finish_reason,
            ),
            Delivered,
            finish.status.value,
            self._remaining() + AFTERWARDS,
        )
        # A request that is cancelled between its delivery and the report of it was delivered.
        status = self._status = delivered.status
        reason = finish.reason if status is finish.status else None
        content = finish.content if status is finish.status else self._loop.content
        self._keep(spent=delivered.usage, attempts=delivered.attempts)
        usage = delivered.usage
        updates: list[SearchAttributeUpdate[Any]] = [
            attributes.STATUS.value_set(status),
            attributes.TOKENS.value_set(usage.total_tokens),
        ]
        if usage.cost_usd is not None:
            updates.append(attributes.COST_USD.value_set(float(usage.cost_usd)))
        if self._loop.answered_by:
            updates.append(attributes.MODEL.value_set(self._loop.answered_by))
        workflow.upsert_search_attributes(updates)
        self._tell(EventKind.FINISHED, status, reason or _account(delivered))
        return Answer(
            request_id=request.id,
            status=status,
            reason=reason,
            document=delivered.document,
            content_sha256=content.sha256 if content else None,
            deployment=self._loop.answered_by,
            recalled=state.recalled,
            usage=usage,
            attempts=delivered.attempts,
            finish_reason=self._loop.finish_reason,
            decided_by=receipt.actor if receipt else None,
        )


def _failed(reason: str) -> ApplicationError:
    return ApplicationError(reason, type="RequestFailed", non_retryable=True)


def _account(delivered: Delivered) -> str:
    usage = delivered.usage
    calls = "1 model call" if delivered.attempts == 1 else f"{delivered.attempts} model calls"
    lost = ", calls without a report at their worst case" if delivered.attempts > 1 else ""
    return f"{calls}, {usage.total_tokens} tokens, {money(usage)}{lost}"
