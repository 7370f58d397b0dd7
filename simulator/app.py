"""The routes: OpenAI's, and the simulator's own under `/_simulator`."""

import json
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.behaviour import BehaviourError
from simulator.bill import Bill
from simulator.completions import ChatCompletions, behaviour_refused
from simulator.errors import ApiError
from simulator.program import Program

DEFAULT_MODEL = "sim-large"
"""Listed when the profile names no model. Every model name is answered, listed or not."""


def create_app(program: Program, bill: Bill, completions: ChatCompletions) -> Starlette:
    """Build the application.

    Args:
        program: Decides each call's behaviour.
        bill: Records what is generated.
        completions: The chat endpoint over both.
    """

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
        return JSONResponse(bill.as_json(entries=request.query_params.get("entries") != "false"))

    async def reset(_: Request) -> Response:
        completions.reset()
        return JSONResponse({"reset": True})

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/_simulator/script", script, methods=["POST"]),
            Route("/_simulator/bill", show_bill),
            Route("/_simulator/reset", reset, methods=["POST"]),
            Route("/healthz", healthz),
        ],
        exception_handlers={HTTPException: _http_error},
    )


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    message = f"{HTTPStatus(status).phrase}: {request.method} {request.url.path}"
    return _error_response(ApiError(status, message, type="invalid_request_error"))


def _error_response(error: ApiError) -> Response:
    return Response(error.body(), error.status, media_type="application/json")
