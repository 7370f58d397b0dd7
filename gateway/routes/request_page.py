"""`/requests`: the tenant's requests, and one of them as it happens: its steps, text, tools, decisions and cost."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from gateway.context import GatewayOf
from gateway.pages.request_list import rows_of
from gateway.pages.run_sheet import sheet_of
from gateway.routes import events
from gateway.routes import requests as api
from gateway.routes.site import PageRoute, SessionOf, SiteOf, WritingSessionOf
from gateway.signed_in import WhileSignedIn

router = APIRouter(route_class=PageRoute, include_in_schema=False)

LISTED = 100


@router.get("/requests")
async def list_requests(gateway: GatewayOf, site: SiteOf, session: SessionOf) -> Response:
    """The latest requests."""
    found = await gateway.engine.requests(session.caller.tenant, status=None, agent=None, limit=LISTED)
    return site.show("requests.html", session, {"rows": await rows_of(gateway, found, session.caller), "most": LISTED})


@router.get("/requests/{request_id}")
async def read(
    request_id: str,
    gateway: GatewayOf,
    site: SiteOf,
    session: SessionOf,
    part: Annotated[str, Query(pattern="^sheet$")] = "",
) -> Response:
    """One request; the part `sheet` is everything but the frame."""
    execution = await api.find_request(gateway, request_id, session.caller)
    values = {"sheet": await sheet_of(gateway, execution, session.caller)}
    return site.show("_sheet.html" if part else "request.html", session, values)


@router.get("/requests/{request_id}/events")
async def follow(
    request_id: str,
    http: Request,
    gateway: GatewayOf,
    site: SiteOf,
    session: SessionOf,
    last_event_id: Annotated[str | None, Query()] = None,
) -> Response:
    """The same events as `/v1/requests/{id}/events`; `signed-out` at last if the session ends before the request."""
    stream = await events.follow(request_id, http, gateway, session.caller, last_event_id)
    return WhileSignedIn(stream, site.signed_in, session.id)


@router.post("/requests/{request_id}/cancel", status_code=202)
async def cancel(request_id: str, gateway: GatewayOf, session: WritingSessionOf) -> Response:
    """Ask a request to stop."""
    response = await api.cancel(request_id, gateway, session.caller)
    return JSONResponse({"cancel_requested": True}, status_code=response.status_code)
