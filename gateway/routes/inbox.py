"""`/inbox`: what waits for the person who is signed in, and that person's decisions. Also signing in and out."""

import json
import re
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from gateway import representations
from gateway.body import read_object
from gateway.browser import TOKEN_FIELD, SignedOut
from gateway.context import Gateway, GatewayOf
from gateway.event_stream import EventStream, Sink
from gateway.inbox_watch import SHOWN, waiting
from gateway.pages.questions import lines, outcome, question, standing, version_of
from gateway.problems import Problem, on_http_exception, prefers_page
from gateway.routes.approvals import DecisionBody, decide
from gateway.routes.requests import find_request
from gateway.routes.site import LOGIN, PageRoute, SessionOf, Site, SiteOf, WritingSessionOf, session_of
from gateway.signed_in import WhileSignedIn
from gateway.sse import encode
from gateway.submission import read_key
from gateway.validation import validate

router = APIRouter(route_class=PageRoute, include_in_schema=False)

MOST_FORM_BYTES = 8_192
MOST_FIELDS = 20

_TARGET = re.compile(r"/(inbox|requests)(/[0-9a-z_]{1,80})?(\?[0-9a-z=&]{0,80})?")
"""Where signing in may lead: a page of this site and nothing else."""

Page = Annotated[int, Query(ge=1, le=200)]
Part = Annotated[str, Query(pattern="^(list|question)$")]


@router.get("/")
async def root(http: Request) -> Response:
    """A browser is led to the inbox; for programs there is nothing here."""
    if not prefers_page(http):
        return await on_http_exception(http, HTTPException(404))
    return RedirectResponse("/inbox", status_code=303, headers={"Cache-Control": "no-store"})


@router.get("/inbox")
async def inbox(gateway: GatewayOf, site: SiteOf, session: SessionOf, page: Page = 1, part: Part = "") -> Response:
    """The list, and the first question of it beside."""
    return await _inbox(gateway, site, session, page, part, None)


@router.get(LOGIN)
async def login(
    http: Request, gateway: GatewayOf, site: SiteOf, next: str = "/inbox", ended: Annotated[str, Query()] = ""
) -> Response:
    """The form to sign in with; `ended` says that a page led here whose session is over."""
    try:
        await site.browsers.session(http)
    except SignedOut:
        over = bool(ended) or site.browsers.had_session(http)
        return _login(gateway, site, _target(next), over=over)
    return RedirectResponse(_target(next), status_code=303, headers={"Cache-Control": "no-store"})


@router.post(LOGIN)
async def sign_in(http: Request, gateway: GatewayOf, site: SiteOf) -> Response:
    """Open a session."""
    site.browsers.check_origin(http)
    form = await _form(http)
    target = _target(form.get("next", "/inbox"))
    try:
        cookie = await site.browsers.sign_in(http, form.get("name" if site.browsers.open else "key", "").strip())
    except Problem as problem:
        if not prefers_page(http):
            raise
        return _login(gateway, site, target, problem=problem)
    response = RedirectResponse(target, status_code=303)
    site.browsers.remember(http, response, cookie)
    return response


@router.post("/inbox/logout")
async def sign_out(http: Request, site: SiteOf) -> Response:
    """Close the session, for every gateway and every copy of its cookie."""
    response = RedirectResponse(LOGIN, status_code=303)
    try:
        session = await session_of(http)
    except SignedOut:
        # It is over already; that is what was wanted.
        site.browsers.check_origin(http)
    else:
        site.browsers.check_form(http, session, (await _form(http)).get(TOKEN_FIELD, ""))
        await site.browsers.sign_out(session)
        site.signed_in.end(session.id)
    site.browsers.forget(http, response)
    # Nothing of what was read stays behind for the next person at this machine.
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@router.get("/inbox/events")
async def follow(gateway: GatewayOf, site: SiteOf, session: SessionOf) -> Response:
    """Server-sent events: `inbox` with `version` and `count`, at first and at every change; `signed-out` at last."""

    async def write(sink: Sink) -> None:
        async with site.watch.watching(session.caller) as seen:
            while True:
                changed = seen.changed
                if seen.version is not None:
                    data = {"version": seen.version, "count": seen.count}
                    await sink.write(encode(json.dumps(data), event="inbox"))
                await changed.wait()

    stream = EventStream(write, heartbeat=gateway.settings.heartbeat, stopping=gateway.draining)
    return WhileSignedIn(stream, site.signed_in, session.id)


@router.get("/inbox/{request_id}")
async def one(
    request_id: str,
    gateway: GatewayOf,
    site: SiteOf,
    session: SessionOf,
    page: Page = 1,
    part: Part = "",
) -> Response:
    """One question, and the list beside."""
    return await _inbox(gateway, site, session, page, part, request_id)


@router.post("/inbox/{request_id}/decisions")
async def take_decision(
    request_id: str, http: Request, gateway: GatewayOf, site: SiteOf, session: WritingSessionOf
) -> Response:
    """Approve, edit, reject or escalate; the same as over the API, signed in instead of with a key."""
    key = read_key(http.headers)
    given = validate(DecisionBody, await read_object(http, gateway.settings.max_body_bytes))
    taken = await decide(gateway, session.caller, request_id, given, key)
    site.watch.nudge(session.caller.tenant)
    return JSONResponse(representations.receipt(taken, gateway.links), headers={"Cache-Control": "no-store"})


@router.get("/static/{name}")
async def static(name: str, http: Request, site: SiteOf) -> Response:
    """A style sheet, a script or an icon."""
    found = site.pages.asset(name, http.headers.get("if-none-match"))
    return found if found is not None else await on_http_exception(http, HTTPException(404))


async def _inbox(
    gateway: Gateway, site: SiteOf, session: SessionOf, page: int, part: str, request_id: str | None
) -> Response:
    now = datetime.now(UTC)
    values: dict[str, object] = {"selected": request_id or "", "page": page, "at": now}
    if part != "question":
        found, count = await waiting(gateway.engine, session.caller.tenant, session.caller.names, page)
        listed = await lines(gateway, found, session.caller, now)
        values |= {"lines": listed, "count": count, "version": version_of(found, count), "pages": -(-count // SHOWN)}
        if part == "list":
            return site.show("_list.html", session, values)
    if request_id is None:
        chosen = found[0] if part != "question" and found else None
        values["selected"] = chosen.request_id if chosen else ""
    else:
        chosen = await find_request(gateway, request_id, session.caller)
    values |= {"execution": chosen, "asked": None, "answer": None, "barred": "", "trace": "", "direct": request_id}
    values["outcome"] = None
    if chosen is not None:
        values["trace"] = gateway.links.trace(chosen.request_id)
        values["asked"] = await question(gateway, chosen, session.caller, now)
        if chosen.approval is not None and values["asked"] is None:
            values["barred"] = standing(chosen.approval, session.caller, now)
        elif chosen.approval is None:
            values["outcome"] = await outcome(gateway, session.caller.tenant, chosen.request_id)
        if chosen.status.is_final:
            values["answer"] = (await gateway.complete(chosen))[0].answer
    return site.show("_question.html" if part == "question" else "inbox.html", session, values)


def _login(
    gateway: Gateway, site: Site, target: str, *, problem: Problem | None = None, over: bool = False
) -> Response:
    values = {"next": target, "problem": problem, "over": over, "names": _names(gateway, site)}
    response = site.show("login.html", None, values, status=problem.status if problem else 200)
    if problem:
        response.headers.update(problem.headers)
    return response


def _target(given: str) -> str:
    return given if _TARGET.fullmatch(given) else "/inbox"


def _names(gateway: Gateway, site: Site) -> list[str]:
    """Approvers of the agents, to choose from where nobody has to prove a name; those of a role by their own names."""
    if not site.browsers.open:
        return []
    rules = [rule for agent in gateway.configuration.agents.values() for rule in agent.rules]
    asked = [rule.approvers for rule in rules] + [stage.approvers for rule in rules for stage in rule.escalation]
    return sorted(gateway.identity.known_approvers("local", [name for approvers in asked for name in approvers]))


async def _form(http: Request) -> dict[str, str]:
    """The fields of a small form.

    Raises:
        Problem: 413 when it is not small, 400 when it has more fields than any form here.
    """
    body = bytearray()
    async for chunk in http.stream():
        body += chunk
        if len(body) > MOST_FORM_BYTES:
            raise Problem(413, "too-large", "Form too large", "The form is too large.", remedy="Enter less.")
    try:
        return dict(parse_qsl(bytes(body).decode("utf-8", "replace"), max_num_fields=MOST_FIELDS))
    except ValueError:
        raise Problem(
            400, "bad-form", "Too many fields", "The form has too many fields.", remedy="Use the form of the page."
        ) from None
