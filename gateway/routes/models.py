"""`/v1/models`: the agents, in the form of OpenAI's list of models."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from gateway.context import CallerOf, Gateway, GatewayOf
from holdfast.configuration import Agent

router = APIRouter(prefix="/v1/models", tags=["chat"])


@router.get("")
async def list_models(gateway: GatewayOf, caller: CallerOf) -> Response:  # noqa: ARG001 - only callers may look
    """Every agent."""
    agents = sorted(gateway.configuration.agents.values(), key=lambda agent: agent.name)
    return JSONResponse({"object": "list", "data": [_model(gateway, agent) for agent in agents]})


@router.get("/{name}")
async def read(name: str, gateway: GatewayOf, caller: CallerOf) -> Response:  # noqa: ARG001 - as above
    """One agent."""
    return JSONResponse(_model(gateway, gateway.configuration.agent(name)))


def _model(gateway: Gateway, agent: Agent) -> dict[str, Any]:
    return {
        "id": agent.name,
        "object": "model",
        "created": gateway.started_at,
        "owned_by": "holdfast",
        "description": agent.description,
    }
