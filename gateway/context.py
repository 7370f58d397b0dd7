"""What every route works with, and how a route gets it."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Query, Request
from starlette.requests import ClientDisconnect

from gateway.edge_answers import EdgeAnswers
from gateway.event_stream import gone
from gateway.execution import Execution, RequestEngine
from gateway.identity import Caller, Identity
from gateway.intake import Accepted, Intake, find
from gateway.milestones import Milestones
from gateway.problems import Problem
from gateway.representations import Links
from gateway.text import TextPlane
from holdfast.configuration import Configuration
from holdfast.contracts import AnswerDocument, Progress, Status
from holdfast.errors import ContentMissing
from holdfast.ledger import Ledger
from holdfast.settings import GatewaySettings

_ENDED_WITHOUT_RESULT = (Status.FAILED, Status.CANCELLED, Status.EXPIRED)


@dataclass(frozen=True)
class Gateway:
    """The parts of a gateway, put together by `gateway.app.create_app`."""

    settings: GatewaySettings
    configuration: Configuration
    ledger: Ledger
    engine: RequestEngine
    intake: Intake
    answers: EdgeAnswers
    milestones: Milestones
    text: TextPlane
    identity: Identity
    links: Links
    started_at: int
    """Seconds since 1970; with it the agents count as created."""
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server is about to stop: whoever waits is answered at once."""

    async def find(self, request_id: str, caller: Caller) -> Execution:
        """A request of the caller's tenant.

        Raises:
            Problem: 404, the same whether it does not exist or belongs to someone else.
        """
        execution = await find(self.engine, self.ledger, request_id, caller.tenant)
        if execution is None:
            raise Problem(
                404,
                "no-such-request",
                "No such request",
                "There is no request with this id.",
                remedy="Check the id; GET /v1/requests lists yours.",
                field="id",
            )
        return execution

    async def settle(
        self, execution: Execution, wait: timedelta, *, http: Request | None = None, through_approval: bool = False
    ) -> Execution:
        """Wait until a request is final or waits for a person, up to `wait` or until the server stops.

        Args:
            execution: The request.
            wait: Bound of the wait.
            http: The call that waits, whose body was read.
            through_approval: Go on waiting while the request waits for a person.

        Raises:
            ClientDisconnect: Whoever called has gone.
        """
        over = execution.status.is_final or (execution.status is Status.WAITING and not through_approval)
        if over or wait <= timedelta(0):
            return execution
        waiting = asyncio.ensure_future(self.engine.wait(execution, wait, through_approval=through_approval))
        stopping = asyncio.ensure_future(self.draining.wait())
        leaving = None if http is None else asyncio.ensure_future(gone(http.receive))
        tasks = [task for task in (waiting, stopping, leaving) if task is not None]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            if leaving is not None and leaving.done():
                raise ClientDisconnect
            return execution
        finally:
            for task in tasks:
                task.cancel()

    async def abandon(self, accepted: Accepted) -> None:
        """The client that waited for the answer has gone: stop the request if it made it and the agent says so."""
        if accepted.fresh and accepted.agent.plan.on_disconnect == "cancel" and not accepted.execution.status.is_final:
            await self.engine.cancel(accepted.execution.request_id, "the client went away")

    def writes_json(self, execution: Execution) -> bool:
        """Whether a request's answer has to satisfy a schema."""
        agent = self.configuration.agents.get(execution.agent)
        return agent is not None and agent.plan.output_schema is not None

    async def progress(self, execution: Execution) -> Progress | None:
        """A request's run sheet, its delegates' statuses as they are now; `None` when no worker answers."""
        reached = await self.engine.progress(execution.request_id) if execution.traced else None
        if reached is None:
            return None
        delegates = []
        for delegate in reached.delegates:
            # The request itself knows of a delegate at work only that it works; that it waits for people, the engine.
            found = await self.engine.find(delegate.request_id, execution.tenant) if delegate.ok is None else None
            delegates.append(delegate.model_copy(update={"status": found.status.value}) if found else delegate)
        return reached.model_copy(update={"delegates": tuple(delegates)})

    async def complete(self, execution: Execution) -> tuple[Execution, AnswerDocument | None]:
        """A request with everything the ledger knows of its ending, and the answer's text while it is kept."""
        if execution.status in _ENDED_WITHOUT_RESULT:
            finished = await self.ledger.requests.get(execution.tenant, execution.request_id)
            if finished is not None:
                execution = replace(execution, status=finished.answer.status, answer=finished.answer)
        if execution.answer is None or execution.answer.document is None:
            return execution, None
        try:
            text = await self.ledger.contents.get(execution.tenant, execution.answer.document)
        except ContentMissing:
            return execution, None
        return execution, AnswerDocument.model_validate_json(text)

    def longest(self, wait: float | None, default: timedelta = timedelta(0)) -> timedelta:
        """A `?wait=` in seconds as a time span.

        Raises:
            Problem: 400 when it is longer than the settings allow.
        """
        if wait is None:
            return min(default, self.settings.max_wait)
        if wait > self.settings.max_wait.total_seconds():
            longest = f"{self.settings.max_wait.total_seconds():g}"
            raise Problem(
                400,
                "invalid-parameter",
                "Invalid parameter",
                f"`wait` is longer than the {longest} seconds this gateway holds a request open.",
                remedy=f"Wait for at most {longest} and ask again, or raise `gateway.max_wait`.",
                field="wait",
            )
        return timedelta(seconds=wait)


async def gateway_of(request: Request) -> Gateway:
    """The gateway that serves a request."""
    gateway = request.app.state.gateway
    if not isinstance(gateway, Gateway):
        raise TypeError("app.state.gateway is not a Gateway; build the application with create_app.")
    return gateway


async def caller_of(request: Request) -> Caller:
    """Who makes a request."""
    return (await gateway_of(request)).identity.identify(request.headers)


GatewayOf = Annotated[Gateway, Depends(gateway_of)]
CallerOf = Annotated[Caller, Depends(caller_of)]
Wait = Annotated[
    float | None,
    Query(ge=0, allow_inf_nan=False, description="Seconds to hold the request open for a result."),
]
Limit = Annotated[int, Query(ge=1, le=500, description="Most entries to return.")]
