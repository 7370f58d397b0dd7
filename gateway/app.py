"""Puts the gateway together: its parts, its routes, and what happens to errors."""

import time

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway import problems
from gateway.browser import Browsers
from gateway.context import Gateway
from gateway.edge import Edge
from gateway.edge_answers import EdgeAnswers
from gateway.execution import RequestEngine
from gateway.identity import Identity
from gateway.inbox_watch import InboxWatch
from gateway.intake import Intake
from gateway.milestones import Milestones
from gateway.pages import Pages
from gateway.representations import Links
from gateway.routes import (
    approvals,
    chat,
    collections,
    events,
    health,
    inbox,
    metrics,
    models,
    request_page,
    requests,
)
from gateway.routes.site import Site, error_page
from gateway.signed_in import SignedIn
from gateway.text import TextPlane
from gateway.tracing import TELEMETRY
from holdfast.configuration import Configuration
from holdfast.errors import HoldfastError
from holdfast.ledger import Ledger
from holdfast.people import People
from holdfast.relay import MemoryRelay, Relay
from holdfast.settings import Settings
from holdfast.telemetry import RunningMetrics


def create_app(
    settings: Settings,
    configuration: Configuration,
    ledger: Ledger,
    engine: RequestEngine,
    *,
    relay: Relay | None = None,
    ui_url: str | None = None,
    running_metrics: RunningMetrics | None = None,
) -> FastAPI:
    """Build the HTTP application.

    Args:
        settings: Limits of the edge, API keys, the engine's namespace.
        configuration: The agents that may be asked for.
        ledger: Opened; the caller closes it after the application has stopped.
        engine: What runs the requests.
        relay: Where workers publish text while it is written, the same as theirs; the caller closes it. Without one,
            streams have milestones and the whole text at the end.
        ui_url: Base address of the engine's Web UI, for links to traces.
        running_metrics: This process's metrics, served at `/metrics`; without them there is no such route.
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
    answers = EdgeAnswers(ledger, settings.ledger.recall_for)
    app.state.gateway = Gateway(
        settings=settings.gateway,
        configuration=configuration,
        ledger=ledger,
        engine=engine,
        intake=Intake(
            configuration,
            ledger,
            engine,
            answers,
            settings.tiers,
            running_metrics.metrics if running_metrics else None,
        ),
        answers=answers,
        milestones=Milestones(engine),
        text=TextPlane(relay or MemoryRelay(), ledger),
        identity=Identity(settings.api_keys, People(settings.config_dir / "people.toml")),
        links=Links(settings.engine.namespace, ui_url),
        started_at=int(time.time()),
    )
    app.state.site = Site(
        Pages(),
        Browsers(app.state.gateway.identity, ledger.browser_sessions, settings.gateway.public_url),
        SignedIn(ledger.browser_sessions),
        InboxWatch(engine),
    )
    app.state.error_page = error_page
    for module in (requests, events, chat, models, approvals, collections, health, inbox, request_page):
        app.include_router(module.router)
    if running_metrics is not None:
        app.include_router(metrics.router_of(running_metrics))
    app.add_exception_handler(problems.Problem, problems.on_problem)
    app.add_exception_handler(HoldfastError, problems.on_holdfast_error)
    app.add_exception_handler(RequestValidationError, problems.on_invalid_parameters)
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    app.add_middleware(Edge)
    return app
