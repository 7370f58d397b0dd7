"""What all pages share: who is signed in, what a page is made with, and how an error looks to a person."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.browser import TOKEN_HEADER, Browsers, Session, SignedOut
from gateway.inbox_watch import InboxWatch
from gateway.pages import Pages
from gateway.pages.wording import for_people, heading_of
from gateway.problems import Problem, internal_problem, prefers_page, problem_of, reference_of
from gateway.signed_in import SignedIn
from holdfast.errors import HoldfastError

logger = logging.getLogger("holdfast.gateway")

LOGIN = "/inbox/login"
_SESSION = "holdfast.session"
"""Where a call's scope has its session, once it is known."""


@dataclass(frozen=True)
class Site:
    """The parts of the pages, put together by `gateway.app.create_app`."""

    pages: Pages
    browsers: Browsers
    signed_in: SignedIn
    watch: InboxWatch

    def show(
        self, template: str, session: Session | None, values: Mapping[str, object], *, status: int = 200
    ) -> Response:
        """A page for whoever is signed in."""
        shared = {
            "me": session.caller if session else None,
            "token": session.token if session else "",
            "open_mode": self.browsers.open,
        }
        return self.pages.page(template, shared | dict(values), status=status)


async def site_of(request: Request) -> Site:
    """The site that serves a request."""
    return _site(request)


async def session_of(request: Request) -> Session:
    """Who is signed in.

    Raises:
        SignedOut: Nobody; `PageRoute` leads to the login.
        Problem: 503 while nobody can tell.
    """
    session = await _site(request).browsers.session(request)
    request.scope[_SESSION] = session
    return session


async def writing_session_of(request: Request) -> Session:
    """Who is signed in, for a call that changes something: it must come from a page that this session was shown.

    Raises:
        SignedOut: Nobody.
        Problem: 403 for a call from elsewhere; 503 while nobody can tell who is signed in.
    """
    session = await session_of(request)
    _site(request).browsers.check_form(request, session, request.headers.get(TOKEN_HEADER, ""))
    return session


SiteOf = Annotated[Site, Depends(site_of)]
SessionOf = Annotated[Session, Depends(session_of)]
WritingSessionOf = Annotated[Session, Depends(writing_session_of)]


class PageRoute(APIRoute):
    """A route for people: whoever is not signed in is led to the login, and what goes wrong is told in their words.

    Whether an error is a page or a problem document is `gateway.problems.prefers_page`'s to say.
    """

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The handler, with errors caught."""
        handler = super().get_route_handler()

        async def serve(request: Request) -> Response:
            try:
                return await handler(request)
            except SignedOut:
                if request.method == "GET" and prefers_page(request) and "part" not in request.query_params:
                    return _to_login(request)
                problem = _signed_out()
            except HoldfastError as error:
                problem = problem_of(error) or internal_problem()
                log = logger.error if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR else logger.info
                log("request %s: %s", reference_of(request), type(error).__name__)
            except Problem as caught:
                problem = caught
            raise for_people(problem)

        return serve


def error_page(request: Request, problem: Problem) -> Response:
    """A problem as a person reads it: as a whole page, or as the part of one that was asked for."""
    session = request.scope.get(_SESSION)
    template = "_error.html" if "part" in request.query_params else "error.html"
    problem, path = for_people(problem), request.url.path
    opened = request.method == "GET" and path.startswith(("/inbox", "/requests"))
    values: dict[str, Any] = {
        "problem": problem,
        "heading": heading_of(problem),
        "reference": reference_of(request),
        "again": path if opened else "/inbox",
        "again_by_itself": opened and problem.status == HTTPStatus.SERVICE_UNAVAILABLE,
    }
    response = _site(request).show(template, session, values, status=problem.status)
    response.headers.update({name: value for name, value in problem.headers.items() if name != "WWW-Authenticate"})
    return response


def _site(request: Request) -> Site:
    site = request.app.state.site
    if not isinstance(site, Site):
        raise TypeError("app.state.site is not a Site; build the application with create_app.")
    return site


def _to_login(request: Request) -> Response:
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    address = LOGIN if target == "/inbox" else f"{LOGIN}?next={quote(target, safe='')}"
    return RedirectResponse(address, status_code=303, headers={"Cache-Control": "no-store"})


def _signed_out() -> Problem:
    return Problem(
        401,
        "signed-out",
        "Signed out",
        "You are not signed in any longer, so nothing was done.",
        remedy="Sign in again, in another tab if you have written something here, and repeat it.",
    )
