"""Anthropic's batch API: a list of requests in, JSON lines of results out."""

import uuid
from collections import Counter, OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.anthropic_wire import Anthropic
from simulator.batch_lines import MOST_LINES, start_batch, written_line
from simulator.batches import MOST_BATCHES, Batch, LineResult, Stage
from simulator.endpoint import api_key_of
from simulator.errors import ApiError
from simulator.model_request import invalid
from simulator.service import Service
from simulator.wire import read_object

_WINDOW = timedelta(hours=24)
_WIRE = Anthropic()


class _BatchApi:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._batches: OrderedDict[str, Batch] = OrderedDict()
        service.when_reset(self._batches.clear)

    async def create(self, request: Request) -> Response:
        _WIRE.check_headers(request.headers.get)
        lines = _read_lines(read_object(await request.body()).get("requests"))
        batch = start_batch(self._service, _WIRE, lines, api_key_of(request.headers.get))
        self._batches[f"msgbatch_{batch.id}"] = batch
        if len(self._batches) > MOST_BATCHES:
            self._batches.popitem(last=False)
        return self._answer(request, batch)

    async def show(self, request: Request) -> Response:
        return self._answer(request, self._batch(request))

    async def list(self, request: Request) -> Response:
        _WIRE.check_headers(request.headers.get)
        data = [_shown(batch, str(request.base_url)) for batch in reversed(self._batches.values())]
        return JSONResponse({"data": data, "has_more": False, "first_id": None, "last_id": None})

    async def cancel(self, request: Request) -> Response:
        batch = self._batch(request)
        batch.cancel()
        return self._answer(request, batch)

    async def results(self, request: Request) -> Response:
        batch = self._batch(request)
        if batch.stage is not Stage.ENDED:
            raise ApiError(404, "The batch has no results yet.", type="invalid_request_error")
        return Response(b"".join(map(_written, batch.results)), media_type="application/x-jsonl")

    def _batch(self, request: Request) -> Batch:
        _WIRE.check_headers(request.headers.get)
        batch = self._batches.get(request.path_params["batch"])
        if batch is None:
            raise ApiError(404, "No such batch.", type="invalid_request_error")
        return batch

    def _answer(self, request: Request, batch: Batch) -> Response:
        headers = {_WIRE.request_id_header: f"req_{uuid.uuid4().hex}"}
        return JSONResponse(_shown(batch, str(request.base_url)), headers=headers)


def anthropic_batch_routes(service: Service) -> list[Route]:
    """The routes of message batches."""
    api = _BatchApi(service)
    return [
        Route("/v1/messages/batches", api.create, methods=["POST"]),
        Route("/v1/messages/batches", api.list),
        Route("/v1/messages/batches/{batch}", api.show),
        Route("/v1/messages/batches/{batch}/cancel", api.cancel, methods=["POST"]),
        Route("/v1/messages/batches/{batch}/results", api.results),
    ]


def _shown(batch: Batch, root: str) -> dict[str, Any]:
    ended = batch.stage is Stage.ENDED
    # Until a batch has ended, all of its requests count as being processed.
    counts = batch.counts() if ended else Counter(processing=batch.total)
    id = f"msgbatch_{batch.id}"
    created = datetime.fromtimestamp(batch.times[Stage.VALIDATING], UTC)
    running = "in_progress" if batch.cancelled is None else "canceling"
    return {
        "id": id,
        "type": "message_batch",
        "processing_status": "ended" if ended else running,
        "request_counts": {
            name: counts[name] for name in ("processing", "succeeded", "errored", "canceled", "expired")
        },
        "created_at": created.isoformat(),
        "expires_at": (created + _WINDOW).isoformat(),
        "ended_at": _time(batch.times.get(Stage.ENDED)),
        "cancel_initiated_at": _time(batch.cancelled),
        "archived_at": None,
        "results_url": f"{root}v1/messages/batches/{id}/results" if ended else None,
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _written(result: LineResult) -> bytes:
    written: dict[str, Any] = {"type": result.outcome}
    if result.error is not None:
        written["error"] = _WIRE.error(result.error, None)
    elif result.body is not None:
        written["message"] = result.body
    return written_line({"custom_id": result.custom_id, "result": written}, malformed=result.malformed)


def _read_lines(given: object) -> list[tuple[str, Any]]:
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_LINES:
        raise invalid(f"requests: has to be a list of 1 to {MOST_LINES} requests.", "requests")
    lines: dict[str, Any] = {}
    for position, line in enumerate(given):
        match line:
            case {"custom_id": str(custom_id), "params": params} if 1 <= len(custom_id) <= 64:
                if custom_id in lines:
                    raise invalid(f"requests.{position}.custom_id: has to be unique.", "requests")
                lines[custom_id] = params
            case _:
                raise invalid(f"requests.{position}: has to have a custom_id of 1 to 64 characters and params.", None)
    return list(lines.items())
