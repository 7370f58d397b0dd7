"""Who sits at a browser: a session cookie from an API key, and the checks that keep other sites from using it.

A session is two things, and both must hold. The cookie is a random name and an expiry, sealed with the digest of the
API key that it was opened with: a forged one is told without asking anybody, and a key that is withdrawn takes its
sessions along. And the ledger has a row of it, which is read with every call: a session that was signed out of is over
at every gateway at once, whoever has copied its cookie. Without API keys the cookie only says who the person claims to
be, and the rules of `gateway.identity` for this machine hold.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from gateway.identity import Caller, Identity, digest_of_key
from gateway.problems import Problem
from gateway.sign_in_brake import SignInBrake
from holdfast.errors import Unavailable
from holdfast.ledger import BrowserSessions, SessionOwner

COOKIE = "holdfast_session"
"""How the cookie's name begins."""
LASTS = timedelta(hours=12)
"""How long a browser stays signed in: a working day."""
TOKEN_HEADER = "X-Holdfast-CSRF"  # noqa: S105 - a header's name
TOKEN_FIELD = "csrf"  # noqa: S105 - a form field's name

_MOMENT = re.compile(r"[0-9]{1,12}")


class SignedOut(Exception):
    """Nobody is signed in at this browser, or no longer."""


@dataclass(frozen=True)
class Session:
    """A person at a browser."""

    caller: Caller
    token: str
    """What a form of this session must send back. Another site cannot know it: it follows from the cookie."""
    id: str
    """What the ledger knows it by."""


class Browsers:
    """Opens, recognises and ends sessions.

    Args:
        identity: Knows the API keys.
        sessions: The ledger's record of sessions.
        public_url: Where people reach the gateway, if that is not the address it is called by.
        brake: Bounds how often keys may be tried.
    """

    def __init__(
        self,
        identity: Identity,
        sessions: BrowserSessions,
        public_url: str | None = None,
        brake: SignInBrake | None = None,
    ) -> None:
        self._identity = identity
        self._sessions = sessions
        self._public_url = public_url or ""
        self._brake = brake or SignInBrake()

    @property
    def open(self) -> bool:
        """Whether people only say who they are."""
        return self._identity.open

    def cookie_name(self, request: Request) -> str:
        """What the cookie is called: browsers keep cookies by host and not by port, and several may serve one host."""
        place = _place(self._public_url) or request.headers.get("host", "")
        return f"{COOKIE}_{hashlib.sha256(place.lower().encode()).hexdigest()[:8]}"

    async def sign_in(self, request: Request, given: str) -> str:
        """Open a session, and end the one that the browser had.

        Args:
            request: The call that carries the form.
            given: An API key; without keys, a user's name.

        Returns:
            The cookie's value.

        Raises:
            Problem: 401 for an unknown key, 429 after too many of them, 400 for an impossible name, 503 while the
                ledger does not answer, and what `Identity.local` raises.
        """
        now, nonce = datetime.now(UTC), secrets.token_urlsafe(18)
        expires_at = now + LASTS
        if self.open:
            caller = self._identity.local(request.headers, given)
            cookie = f"name.{nonce}.{base64.urlsafe_b64encode(given.encode()).decode()}"
        else:
            caller = self._tried(request, given)
            body = f"key.{nonce}.{int(expires_at.timestamp())}"
            cookie = f"{body}.{_seal(digest_of_key(given), body)}"
        try:
            if earlier := request.cookies.get(self.cookie_name(request)):
                await self._sessions.end(_id_of(earlier), now)
            await self._sessions.open(_id_of(cookie), SessionOwner(caller.tenant, caller.user), now, expires_at)
        except Unavailable:
            raise _unrecorded("You are not signed in yet.") from None
        return cookie

    async def sign_out(self, session: Session) -> None:
        """End a session, at every gateway at once.

        Raises:
            Problem: 503 while the ledger does not answer.
        """
        try:
            await self._sessions.end(session.id, datetime.now(UTC))
        except Unavailable:
            raise _unrecorded(
                "You are not signed out yet. Until the ledger answers, nobody can use the session."
            ) from None

    async def session(self, request: Request) -> Session:
        """Who makes a call from a browser.

        Raises:
            SignedOut: Nobody that is known.
            Problem: 503 while the ledger, which knows whether the session has ended, does not answer; in open mode, the
                call does not come from this machine.
        """
        cookie = request.cookies.get(self.cookie_name(request), "")
        now = datetime.now(UTC)
        caller = self._named(request, cookie) if self.open else self._keyed(cookie, now)
        if caller is None:
            raise SignedOut
        try:
            owner = await self._sessions.owner(_id_of(cookie), now)
        except Unavailable:
            raise _unrecorded("Whether you are still signed in cannot be told, so nothing is shown.") from None
        # A key that was given to somebody else does not take the sessions of the first along.
        if owner != SessionOwner(caller.tenant, caller.user):
            raise SignedOut
        return Session(caller, hashlib.sha256(f"holdfast form {cookie}".encode()).hexdigest(), _id_of(cookie))

    def had_session(self, request: Request) -> bool:
        """Whether the browser has a cookie of a session, over or not."""
        return bool(request.cookies.get(self.cookie_name(request)))

    def check_origin(self, request: Request) -> None:
        """Refuse a call that a page of another site made.

        Raises:
            Problem: 403.
        """
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        own = {request.headers.get("host", ""), _place(self._public_url)} - {""}
        ours = site == "same-origin" if origin is None else _place(origin) in own and site in (None, "same-origin")
        if not ours:
            raise Problem(
                403,
                "foreign-origin",
                "Foreign origin",
                "The call does not come from a page of this gateway.",
                remedy="Open the inbox itself and try there. Behind a proxy, pass the Host header on or set "
                "`gateway.public_url`.",
                field="Origin",
            )

    def check_form(self, request: Request, session: Session, token: str) -> None:
        """Refuse what did not come from a page that this session was shown.

        Raises:
            Problem: 403.
        """
        self.check_origin(request)
        if not hmac.compare_digest(token.encode(), session.token.encode()):
            raise Problem(
                403,
                "stale-page",
                "Stale page",
                "The page is from another session than the one signed in now.",
                remedy="Reload the page and try again; nothing has been decided.",
                field=TOKEN_HEADER,
            )

    def remember(self, request: Request, response: Response, cookie: str) -> None:
        """Hand the session to the browser."""
        response.set_cookie(
            self.cookie_name(request),
            cookie,
            max_age=int(LASTS.total_seconds()),
            path="/",
            httponly=True,
            samesite="strict",
            secure=self._secure(request),
        )

    def forget(self, request: Request, response: Response) -> None:
        """Take the session from the browser."""
        response.delete_cookie(
            self.cookie_name(request), path="/", httponly=True, samesite="strict", secure=self._secure(request)
        )

    def _secure(self, request: Request) -> bool:
        return request.url.scheme == "https" or self._public_url.startswith("https:")

    def _tried(self, request: Request, given: str) -> Caller:
        presented, address = digest_of_key(given), request.client.host if request.client else ""
        if wait := self._brake.take(address):
            raise Problem(
                429,
                "too-many-attempts",
                "Too many attempts",
                "Too many keys were tried that are not known here, so this one was not looked at.",
                remedy=f"Wait {wait} seconds and try again. Whoever is signed in already can go on.",
                headers={"Retry-After": str(wait)},
            )
        caller = self._identity.of_digest(lambda digest: hmac.compare_digest(digest, presented))
        if caller is None:
            raise Problem(
                401,
                "unauthenticated",
                "Unknown key",
                "This API key is not known here.",
                remedy="Check that it was copied whole; whoever runs Holdfast can name the keys that are valid.",
                field="key",
            )
        self._brake.succeeded(address)
        return caller

    def _named(self, request: Request, cookie: str) -> Caller | None:
        kind, _, rest = cookie.partition(".")
        try:
            name = base64.urlsafe_b64decode(rest.partition(".")[2]).decode()
        except (binascii.Error, ValueError):
            name = ""
        # Asked even without a name, so that a call from elsewhere is refused before it is told to sign in.
        self._identity.local(request.headers, "local")
        if kind != "name" or not name:
            return None
        try:
            return self._identity.local(request.headers, name)
        except Problem:
            # Any server on this machine can set such a cookie; a name that cannot be is nobody's.
            return None

    def _keyed(self, cookie: str, now: datetime) -> Caller | None:
        body, _, seal = cookie.rpartition(".")
        kind, _, rest = body.partition(".")
        expires = rest.rpartition(".")[2]
        if kind != "key" or _MOMENT.fullmatch(expires) is None or int(expires) <= now.timestamp():
            return None
        presented = seal.encode("utf-8", "replace")
        return self._identity.of_digest(lambda digest: hmac.compare_digest(_seal(digest, body).encode(), presented))


def _seal(digest: bytes, body: str) -> str:
    return hmac.new(digest, f"holdfast session {body}".encode(), hashlib.sha256).hexdigest()


def _id_of(cookie: str) -> str:
    return hashlib.sha256(f"holdfast session {cookie}".encode("utf-8", "replace")).hexdigest()


def _unrecorded(detail: str) -> Problem:
    """The ledger is silent. A stranger may read this, so it says no more."""
    return Problem(
        503,
        "sessions-unavailable",
        "The ledger does not answer",
        detail,
        remedy="Nothing is lost. Try again shortly; `holdfast doctor` says more to whoever runs Holdfast.",
        headers={"Retry-After": "5"},
    )


def _place(url: str) -> str:
    """Host and port of an address, as a Host header has them."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""
