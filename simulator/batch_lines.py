"""The lines of a batch: read, given a behaviour, and answered as single calls would be, at half the price."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulator.batches import Batch, Line, LineResult
from simulator.behaviour import Behaviour, Kind
from simulator.errors import ERROR_KINDS, ApiError, simulated_error
from simulator.model_request import invalid
from simulator.replies import shown_reply, whole_reply
from simulator.service import Service
from simulator.wire import Wire

MOST_LINES = 100_000
_NEVER_ANSWERED = frozenset(
    {Kind.HANG, Kind.HANG_MID_STREAM, Kind.DISCONNECT_BEFORE_RESPONSE, Kind.DISCONNECT_MID_STREAM}
)
"""In a batch there is no connection to break: such a line expires."""


def start_batch(service: Service, wire: Wire, requests: list[tuple[str, Any]], api_key: str | None) -> Batch:
    """Start a batch.

    Args:
        service: Where it is decided and billed.
        wire: The format of the requests.
        requests: `custom_id` and request of each line.
        api_key: The key the batch came with.
    """
    lines = [_read_line(service, wire, custom_id, given, api_key) for custom_id, given in requests]
    return service.batches.start(lines, _answering(service, wire, api_key))


def _read_line(service: Service, wire: Wire, custom_id: str, given: Any, api_key: str | None) -> Line:
    try:
        if not isinstance(given, dict):
            raise invalid("The request is not a JSON object.", None)
        request = wire.read(given)
    except ApiError as error:
        return Line(custom_id, None, Behaviour(), error)
    return Line(custom_id, request, service.program.decide(request.model, None, api_key))


def _answering(service: Service, wire: Wire, api_key: str | None) -> Callable[[Line], LineResult]:
    def answer(line: Line) -> LineResult:
        request, behaviour = line.request, line.behaviour
        if request is None:
            return LineResult(line.custom_id, "errored", error=line.error)
        if behaviour.kind in _NEVER_ANSWERED and not behaviour.bill_on_error:
            return LineResult(line.custom_id, "expired")
        if behaviour.kind.is_refusal or (behaviour.kind in ERROR_KINDS and not behaviour.bill_on_error):
            return LineResult(line.custom_id, "errored", error=simulated_error(behaviour))
        try:
            whole = whole_reply(request, behaviour, service.program.seed)
        except ApiError as error:
            return LineResult(line.custom_id, "errored", error=error)
        entry = service.accept(wire, request, behaviour, api_key=api_key, client_request_id=line.custom_id, batch=True)
        shown = shown_reply(whole, behaviour)
        billed_whole = behaviour.bill_on_error and behaviour.kind.is_withheld
        service.bill.produce(entry, whole.tokens if billed_whole else shown.tokens)
        if behaviour.kind in _NEVER_ANSWERED:
            return LineResult(line.custom_id, "expired")
        if behaviour.kind in ERROR_KINDS or behaviour.kind in (Kind.ERROR_MID_STREAM, Kind.HTML_200):
            shown_as = replace(behaviour, kind=Kind.ERROR_500) if behaviour.kind is Kind.HTML_200 else behaviour
            return LineResult(line.custom_id, "errored", error=simulated_error(shown_as))
        service.bill.complete(entry)
        body = wire.render(entry.id, request, shown, entry.prompt, behaviour).body()
        malformed = behaviour.kind is Kind.MALFORMED_JSON
        return LineResult(line.custom_id, "succeeded", body=body, malformed=malformed)

    return answer


def written_line(data: dict[str, Any], *, malformed: bool) -> bytes:
    """One line of a results file; half of it if it is to be malformed."""
    line = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
    return (line[: len(line) // 2] if malformed else line) + b"\n"
