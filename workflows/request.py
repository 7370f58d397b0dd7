"""One request as a workflow: feeds what happened to the pure loop and carries out what the loop commands.

The decisions are in `holdfast.loop` and `holdfast.approval`; the calls are in `workflows.steps`. What is here is the
translation between them, and what only an engine can do: wait, be asked, be cancelled, start over with a short history.
"""

import asyncio
import builtins
import json
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    TimeoutError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from holdfast import approval, loop
    from holdfast.contracts import (
        Answer,
        Carried,
        ContentRef,
        Decision,
        DecisionKind,
        DecisionReceipt,
        Delivered,
        DeliverInput,
        EventKind,
        FinishReason,
        GenerateInput,
        Progress,
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
    from holdfast.errors import HoldfastError, LimitExceeded
    from workflows import attributes, steps
    from workflows.approval_desk import ApprovalDesk
    from workflows.run_sheet import RunSheet, money

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
class RequestWorkflow:
    """Walks one request through its steps and waits for people in between."""

    @workflow.init
    def __init__(self, run: Run) -> None:
        # State is set here, not in `run`, because a decision may arrive before the first line of `run`.
        request, carried = run.request, run.carried or Carried(masked=run.request.input)
        self._request = request
        self._resumed = run.carried is not None
        self._loop = loop.LoopState(
            request.plan.deployments,
            request.limits.repairs,
            request.limits.attempts,
            asks=request.plan.approval is not None,
            excluded=carried.excluded,
            turn=carried.turn,
            calls=carried.calls,
            repairs=carried.repairs,
            output=carried.output,
            finish_reason=carried.finish_reason,
            violations=carried.violations,
            content=carried.content,
        )
        self._state = carried
        """What a successor run would need; replaced, never changed, as the walk goes on."""
        self._desk = ApprovalDesk(request, self._tell, carried.approval, carried.early)
        self._route: Routed | None = None
        self._last_call = ""
        self._status = Status.WAITING if carried.approval else Status.RUNNING
        self._sheet = RunSheet(request, told=carried.events)

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
            tick = loop.StepFailed(error.step, error.reason)
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
            SanitizeInput(request_id=request.id, tenant=request.tenant, input=request.input, guards=plan.guards),
            Sanitized,
            f"{request.input.size} bytes",
        )
        self._keep(masked=sanitized.masked, private=bool(sanitized.placeholders))
        masked = ", ".join(f"{count} {kind}" for kind, count in sorted(sanitized.placeholders.items()))
        self._done(Step.SANITIZE, f"masked {masked}" if masked else "nothing to mask")
        if sanitized.refusal:
            return loop.Refused(sanitized.refusal)
        if plan.recall and not self._state.private:
            recalled = await steps.local(
                Step.RECALL,
                RecallInput(tenant=request.tenant, plan_version=plan.version, masked=self._state.masked),
                Recalled,
                "the identical question",
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
            )
            self._keep(passages=retrieved.passages)
            self._done(Step.RETRIEVE, f"{retrieved.count} passages, best score {retrieved.top_score:.2f}")
        return loop.Began()

    async def _carry_out(self, command: loop.LoopCommand) -> loop.LoopTick:
        match command:
            case loop.ChooseDeployment(excluded=excluded):
                await self._start_over_if_long()
                return await self._choose(excluded)
            case loop.CallModel():
                await self._start_over_if_long(calls=self._loop.calls - 1)
                return await self._call(command)
            case loop.Wait(duration=duration):
                return await self._wait(duration)
            case loop.Check(output=output, finish_reason=finish_reason):
                return await self._check(output, finish_reason)
            case loop.AskHuman(content=content):
                return await self._ask(content)
            case _:
                raise ValueError(f"No way to carry out {type(command).__name__}.")

    async def _choose(self, excluded: tuple[str, ...]) -> loop.LoopTick:
        deployments = self._request.plan.deployments
        self._route = await steps.local(
            Step.ROUTE,
            RouteInput(deployments=deployments, excluded=excluded),
            Routed,
            ", ".join(name for name in deployments if name not in excluded),
        )
        self._done(Step.ROUTE, self._route.reason)
        return loop.DeploymentChosen(self._route.deployment, self._route.reason)

    async def _call(self, command: loop.CallModel) -> loop.LoopTick:
        request, deployment = self._request, command.deployment
        if self._route is None:
            raise ValueError("A model call was commanded before a route was chosen.")
        self._tell(EventKind.STEP_STARTED, Step.GENERATE, f"{deployment}, turn {command.turn}")
        try:
            reply = await steps.generate(
                GenerateInput(
                    request_id=request.id,
                    tenant=request.tenant,
                    deployment=deployment,
                    turn=command.turn,
                    question=self._state.masked,
                    instructions=request.plan.instructions,
                    limits=request.limits,
                    output_schema=request.plan.output_schema,
                    passages=self._state.passages,
                    previous=command.previous,
                    violations=command.violations,
                    last_resort=command.last_resort,
                ),
                self._route,
                self._remaining(),
            )
        except steps.StepFailure as error:
            self._tell(EventKind.STEP_FAILED, Step.GENERATE, f"{deployment}: {error.reason}")
            return self._call_failed(deployment, error)
        self._keep(deployment=deployment, spent=reply.spent, attempts=reply.attempts)
        self._last_call = (
            f"{deployment}, {reply.usage.input_tokens + reply.usage.cache_read_tokens} in / "
            f"{reply.usage.output_tokens} out, {money(reply.usage)}"
        )
        again = "" if reply.attempts == 1 else f"; call {reply.attempts} of the request"
        self._done(Step.GENERATE, f"{self._last_call}{again}")
        return loop.ModelReplied(reply.output, reply.finish_reason)

    def _call_failed(self, deployment: str, error: steps.StepFailure) -> loop.LoopTick:
        cause = error.cause
        if isinstance(cause, TimeoutError) and self._remaining() <= timedelta(0):
            return loop.DeadlinePassed()
        if isinstance(cause, ApplicationError) and cause.type == LimitExceeded.__name__:
            return loop.BudgetDenied(cause.message)
        wait = cause.details[0] if isinstance(cause, ApplicationError) and cause.details else None
        retry_after = timedelta(seconds=wait) if isinstance(wait, int | float) else None
        return loop.ModelFailed(deployment, f"{deployment}: {error.reason}", retry_after)

    async def _wait(self, duration: timedelta) -> loop.LoopTick:
        if duration >= self._remaining():
            return loop.DeadlinePassed()
        self._done(Step.GENERATE, f"waiting {duration.total_seconds():.0f} s, as the provider asked")
        await workflow.sleep(duration, summary="Retry-After of the provider")
        return loop.Waited()

    async def _check(self, output: ContentRef, finish_reason: FinishReason) -> loop.LoopTick:
        checked = await steps.local(
            Step.VALIDATE,
            ValidateInput(
                tenant=self._request.tenant,
                output=output,
                finish_reason=finish_reason,
                output_schema=self._request.plan.output_schema,
                passages=self._state.passages,
            ),
            Validated,
            f"reply of {self._last_call}",
        )
        if checked.ok:
            self._done(Step.VALIDATE, f"{checked.rung.replace('_', ' ')}, {checked.citations} citations")
        else:
            self._tell(EventKind.STEP_FAILED, Step.VALIDATE, f"{len(checked.violations)} violations")
        return loop.Checked(checked.content if checked.ok else None, checked.violations)

    # People.

    async def _ask(self, content: ContentRef) -> loop.LoopTick:
        self._open(content)
        await self._desk.take_early()
        while self._desk.verdict is None:
            left = self._desk.time_left()
            if left <= timedelta(0):
                if self._remaining() <= timedelta(0):
                    return loop.DeadlinePassed()
                self._desk.lapse()
                break
            try:
                await workflow.wait_condition(
                    lambda: self._desk.verdict is not None or workflow.info().is_continue_as_new_suggested(),
                    timeout=left,
                    timeout_summary="approval deadline",
                )
            except builtins.TimeoutError:
                continue
            await self._start_over_if_long()
        self._status = Status.RUNNING
        workflow.upsert_search_attributes([attributes.STATUS.value_set(Status.RUNNING)])
        # An update is in the history only once its workflow task is: end the task before anything acts on the decision.
        await workflow.sleep(timedelta(milliseconds=1), summary="the decision is on record")
        match self._desk.verdict:
            case approval.Release(content=released):
                return loop.Approved(released)
            case approval.Withhold(by=by, reason=reason):
                return loop.Rejected(f"Rejected by {by}: {reason}")
        raise ValueError("The approval closed without a verdict.")

    def _open(self, content: ContentRef) -> None:
        question = self._desk.open(content, self._state.passages)
        self._keep(content=content)
        self._status = Status.WAITING
        workflow.upsert_search_attributes(
            [
                attributes.STATUS.value_set(Status.WAITING),
                attributes.APPROVERS.value_set(list(question.rule.approvers)),
                attributes.APPROVAL_DEADLINE.value_set(question.deadline),
            ]
        )
        workflow.upsert_memo({"approval": question})
        self._tell(
            EventKind.APPROVAL_OPENED,
            Step.APPROVE,
            f"waiting for {', '.join(question.rule.approvers)} until {question.deadline:%Y-%m-%d %H:%M} UTC, "
            f"content {content.sha256[:12]}",
        )

    @workflow.update(name="decide")
    async def decide(self, decision: Decision) -> DecisionReceipt:
        """Approve, edit or reject what waits."""
        return await self._desk.take(decision)

    @decide.validator
    def _may_decide(self, decision: Decision) -> None:
        # Refused here, a decision leaves no trace in the history.
        self._desk.check(decision)

    @workflow.signal(name="decide")
    async def decide_by_signal(self, *given: Any) -> None:
        """The same, for `temporal workflow signal` and the Web UI; a refusal is told in the run sheet."""
        # Typed by hand, so read here: what the engine cannot read it drops in silence, and a missing or a second
        # argument would be a fault of this code, which ends the run.
        try:
            (decision,) = given
            decision = Decision.model_validate_json(json.dumps(decision))
        except ValidationError as error:
            self._desk.refuse_signal(
                "; ".join(
                    f"`{'.'.join(str(part) for part in problem['loc']) or 'decision'}`: {problem['msg']}"
                    for problem in error.errors(include_input=False, include_url=False)
                )
            )
        except ValueError:
            self._desk.refuse_signal(f"a decision is one argument, not {len(given)}")
        else:
            await self._desk.take_signal(decision)

    # Endings.

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
                recallable=request.plan.recall and not (state.private or state.recalled or edited),
                deployment=state.deployment,
                recalled=state.recalled,
                decided_by=receipt.actor if receipt else None,
            ),
            Delivered,
            finish.status.value,
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
        if state.deployment:
            updates.append(attributes.MODEL.value_set(state.deployment))
        workflow.upsert_search_attributes(updates)
        self._tell(EventKind.FINISHED, status, reason or _account(delivered))
        return Answer(
            request_id=request.id,
            status=status,
            reason=reason,
            document=delivered.document,
            content_sha256=content.sha256 if content else None,
            deployment=state.deployment,
            recalled=state.recalled,
            usage=usage,
            attempts=delivered.attempts,
            decided_by=receipt.actor if receipt else None,
        )

    async def _start_over_if_long(self, calls: int | None = None) -> None:
        """Continue as new once the engine suggests it, with every handler finished and every decision kept."""
        if not workflow.info().is_continue_as_new_suggested():
            return
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._desk.verdict is not None:
            return
        state = self._loop
        self._keep(
            approval=self._desk.question,
            early=self._desk.early,
            excluded=state.excluded,
            turn=state.turn,
            calls=state.calls if calls is None else calls,
            repairs=state.repairs,
            output=state.output,
            finish_reason=state.finish_reason,
            violations=state.violations,
            events=self._sheet.told,
        )
        # The engine carries search attributes over by itself, the memo it drops.
        workflow.continue_as_new(Run(request=self._request, carried=self._state), memo=workflow.memo())

    @workflow.query(name="progress")
    def progress(self) -> Progress:
        """Where the request stands."""
        return Progress(
            request_id=self._request.id,
            status=self._status,
            step=self._sheet.step,
            approval=self._desk.question if self._status is Status.WAITING else None,
            spent=self._state.spent,
            attempts=self._state.attempts,
            events=tuple(self._sheet.events),
        )

    # Small things.

    def _remaining(self) -> timedelta:
        return self._request.deadline_at - workflow.now()

    def _keep(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)

    def _done(self, step: Step, summary: str) -> None:
        self._tell(EventKind.STEP_FINISHED, step, summary)

    def _tell(self, kind: EventKind, name: str, summary: str) -> None:
        self._sheet.tell(kind, str(name), summary, workflow.now())
        workflow.set_current_details(self._sheet.markdown(self._status, self._state.spent, self._state.attempts))


def _failed(reason: str) -> ApplicationError:
    return ApplicationError(reason, type="RequestFailed", non_retryable=True)


def _account(delivered: Delivered) -> str:
    usage = delivered.usage
    calls = "1 model call" if delivered.attempts == 1 else f"{delivered.attempts} model calls"
    return f"{calls}, {usage.total_tokens} tokens, {money(usage)}, lost calls at their worst case"
