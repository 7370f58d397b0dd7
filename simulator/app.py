"""The routes: OpenAI's, Anthropic's, and the simulator's own under `/_simulator`."""

import json
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.anthropic_batches import anthropic_batch_routes
from simulator.anthropic_wire import Anthropic
from simulator.endpoint import ModelEndpoint
from simulator.error_bodies import anthropic_error, openai_error, written
from simulator.errors import ApiError, behaviour_refused
from simulator.fields import BehaviourError
from simulator.openai_batches import openai_batch_routes
from simulator.openai_wire import OpenAI
from simulator.service import Service

DEFAULT_MODEL = "sim-large"
"""Listed when the profile names no model. Every model name is answered, listed or not."""


def create_app(service: Service) -> Starlette:
    """Build the application.

    Args:
        service: What the endpoints share.
    """
    program = service.program

    async def models(_: Request) -> Response:
        listed = sorted(program.profile.models) or [DEFAULT_MODEL]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "simulator"} for name in listed]
        return JSONResponse({"object": "list", "data": data})

    async def script(request: Request) -> Response:
        try:
            behaviours = json.loads(await request.body())
        except ValueError:
            behaviours = None
        if not isinstance(behaviours, list):
            error = BehaviourError("A script is a JSON list of behaviours.", field="script")
            return _error_response(behaviour_refused(error))
        try:
            return JSONResponse({"queued": program.enqueue(behaviours)})
        except BehaviourError as error:
            return _error_response(behaviour_refused(error))

    async def show_bill(request: Request) -> Response:
        return JSONResponse(service.bill.as_json(entries=request.query_params.get("entries") != "false"))

    async def calls(request: Request) -> Response:
        return JSONResponse({"calls": service.calls.as_json(request.query_params.get("model"))})

    async def clear(request: Request) -> Response:
        return JSONResponse({"queued": program.clear(request.query_params.get("model"))})

    async def reset(_: Request) -> Response:
        service.reset()
        return JSONResponse({"reset": True})

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", ModelEndpoint(service, OpenAI()), methods=["POST"]),
            Route("/v1/messages", ModelEndpoint(service, Anthropic()), methods=["POST"]),
            *openai_batch_routes(service),
            *anthropic_batch_routes(service),
            Route("/v1/models", models),
            Route("/_simulator/script", script, methods=["POST"]),
            Route("/_simulator/script", clear, methods=["DELETE"]),
            Route("/_simulator/calls", calls),
            Route("/_simulator/bill", show_bill),
            Route("/_simulator/reset", reset, methods=["POST"]),
            Route("/healthz", healthz),
        ],
        exception_handlers={HTTPException: _http_error, ApiError: _api_error},
    )


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    message = f"{HTTPStatus(status).phrase}: {request.method} {request.url.path}"
    return await _api_error(request, ApiError(status, message, type="invalid_request_error"))


async def _api_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    if request.url.path.startswith("/v1/messages"):
        return Response(written(anthropic_error(error)), error.status, media_type="application/json")
    return _error_response(error)


def _error_response(error: ApiError) -> Response:
    return Response(written(openai_error(error)), error.status, media_type="application/json")
