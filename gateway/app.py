"""Puts the gateway together: its parts, its routes, and what happens to errors."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway import problems
from gateway.context import Gateway
from gateway.edge import Edge
from gateway.execution import RequestEngine
from gateway.identity import Identity
from gateway.representations import Links
from gateway.routes import approvals, collections, health, requests
from gateway.submission import Intake
from gateway.tracing import TELEMETRY
from holdfast.configuration import Configuration
from holdfast.errors import HoldfastError
from holdfast.ledger import Ledger
from holdfast.settings import Settings


def create_app(
    settings: Settings,
    configuration: Configuration,
    ledger: Ledger,
    engine: RequestEngine,
    *,
    ui_url: str | None = None,
) -> FastAPI:
    """Build the HTTP application.

    Args:
        settings: Limits of the edge, API keys, the engine's namespace.
        configuration: The agents that may be asked for.
        ledger: Opened; the caller closes it after the application has stopped.
        engine: What runs the requests.
        ui_url: Base address of the engine's Web UI, for links to traces.
    """
    app = FastAPI(
        title="Holdfast",
        summary="Agentic LLM requests that survive crashes, never overspend, wait for people, and can be replayed.",
        version="0.1.0",
        # The interactive pages load scripts from elsewhere; the description itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=TELEMETRY,
    )
    app.state.gateway = Gateway(
        settings=settings.gateway,
        ledger=ledger,
        engine=engine,
        intake=Intake(configuration, ledger, engine),
        identity=Identity(settings.api_keys),
        links=Links(settings.engine.namespace, ui_url),
    )
    for module in (requests, approvals, collections, health):
        app.include_router(module.router)
    app.add_exception_handler(problems.Problem, problems.on_problem)
    app.add_exception_handler(HoldfastError, problems.on_holdfast_error)
    app.add_exception_handler(RequestValidationError, problems.on_invalid_parameters)
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    app.add_middleware(Edge)
    return app
