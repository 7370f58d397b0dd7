"""The endpoint that answers calls of a model in a wire format: decides, limits, bills, has a reply generated."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from simulator.calls import Call, Ended, credential_digest
from simulator.error_bodies import written
from simulator.errors import (
    ERROR_KINDS,
    ApiError,
    behaviour_refused,
    exhausted_requests,
    limit_error,
    simulated_error,
)
from simulator.exchange import ClientGone, Exchange
from simulator.fields import BehaviourError
from simulator.generation import Generation
from simulator.program import read_overrides
from simulator.rate_limits import Report
from simulator.replies import whole_reply
from simulator.service import Service
from simulator.wire import Wire, read_object


class ModelEndpoint:
    """The endpoint, as an ASGI application.

    Args:
        service: What it shares with the other endpoints.
        wire: The wire format it speaks.
    """

    def __init__(self, service: Service, wire: Wire) -> None:
        self._service = service
        self._wire = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        request_id = f"req_{uuid.uuid4().hex}"
        headers = {self._wire.request_id_header: request_id}
        answer = _Answer(self._service, self._wire, exchange, headers)
        try:
            try:
                await answer.run()
            except ApiError as error:
                headers |= {"content-type": "application/json"} | error.headers
                await exchange.respond(error.status, headers, written(self._wire.error(error, request_id)))
        except ClientGone:
            answer.end("broken" if exchange.broken else "client_left")
        else:
            answer.end("answered")


class _Answer:
    """One request being answered."""

    def __init__(self, service: Service, wire: Wire, exchange: Exchange, headers: dict[str, str]) -> None:
        self._service = service
        self._wire = wire
        self._exchange = exchange
        self._headers = headers
        self._call: Call | None = None

    async def run(self) -> None:
        """Answer.

        Raises:
            ApiError: The answer is an error response, which is still to be sent.
            ClientGone: The client left, or was left.
        """
        service, exchange = self._service, self._exchange
        body = await exchange.read_body()
        arrived = time.time()
        own = _own_fields(exchange.header("x-simulate"))
        self._wire.check_headers(exchange.header)
        request = self._wire.read(read_object(body))
        api_key = api_key_of(exchange.header)
        behaviour = service.program.decide(request.model, own, api_key)
        client_request_id = exchange.header("x-client-request-id")
        credential = None if api_key is None else credential_digest(api_key)
        call = Call(arrived, self._wire.name, request.model, behaviour.kind, credential, client_request_id)
        self._call = call
        service.calls.add(call)
        limit = service.limit(request.model)
        refusal = limit.take(request.prompt_tokens + (request.max_tokens or behaviour.completion_tokens))
        self._headers |= self._wire.limit_headers(_shown(limit.report(), exhausted_requests(behaviour)))
        if refusal is not None:
            raise limit_error(request.model, refusal, behaviour.error_format)
        if behaviour.kind.is_refusal:
            raise simulated_error(behaviour)
        whole = whole_reply(request, behaviour, service.program.seed)
        generation = Generation(exchange, service.bill, request, behaviour, whole, service.program.latencies)
        if behaviour.kind in ERROR_KINDS and not behaviour.bill_on_error:
            await exchange.pause(generation.first_latency())
            raise simulated_error(behaviour)
        entry = service.accept(self._wire, request, behaviour, api_key=api_key, client_request_id=client_request_id)
        call.bill_id = entry.id
        await generation.run(entry, self._wire, self._headers)

    def end(self, ended: Ended) -> None:
        """Log how the call ended."""
        if self._call is not None:
            self._call.status = self._exchange.status
            self._call.ended = ended


def api_key_of(header: Callable[[str], str | None]) -> str | None:
    """The key the request came with, in either format's header."""
    if (key := header("x-api-key")) is not None:
        return key
    authorization = header("authorization")
    return None if authorization is None else authorization.removeprefix("Bearer ")


def _shown(report: Report, exhausted: float | None) -> Report:
    """A report without room for requests, when a behaviour says that there is none."""
    return (
        report
        if exhausted is None
        else report._replace(requests=report.requests._replace(remaining=0, reset=exhausted))
    )


def _own_fields(header: str | None) -> Mapping[str, Any] | None:
    if header is None:
        return None
    try:
        return read_overrides(json.loads(header))
    except BehaviourError as error:
        raise behaviour_refused(error) from error
    except ValueError as error:
        raise behaviour_refused(BehaviourError("Header `X-Simulate` is not JSON.", field="X-Simulate")) from error
