"""Who is calling: an API key stands for a tenant and a user.

Without any key configured the door is open, but only to this machine: the settings bind it to loopback, and the checks
here keep web pages in the user's browser out (DNS rebinding, cross-site requests).
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from gateway.descriptions import is_searchable
from gateway.problems import Problem
from holdfast.approval import EVERYONE, NOBODY, ROLE
from holdfast.errors import ConfigurationError
from holdfast.people import People
from holdfast.settings import ApiKey

_USER = re.compile(r"[ -~]{1,128}")


@dataclass(frozen=True)
class Caller:
    """The party on whose behalf a call is made."""

    tenant: str
    user: str
    tier: str = "standard"
    roles: tuple[str, ...] = ()
    """As `config/people.toml` has them at this moment."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which an approval's rule can mean this caller."""
        return (self.user, EVERYONE, *(ROLE + role for role in self.roles))


class Identity:
    """Tells callers apart.

    Args:
        keys: Accepted API keys; with none, everyone is tenant `local`.
        people: Knows who has which role, at every moment; without it nobody has any.

    Raises:
        ConfigurationError: A tenant or user has a name that the engine's index cannot find again, or a user one that
            approvals would take for a role, for everyone, or for the deadline.
    """

    def __init__(self, keys: tuple[ApiKey, ...], people: People | None = None) -> None:
        self._people = people
        for name in (name for key in keys for name in (key.tenant, key.user)):
            if not is_searchable(name):
                raise ConfigurationError(
                    f"HOLDFAST_API_KEYS: the name {name!r} holds a quotation mark, a backslash or a control character, "
                    "or begins or ends with an apostrophe or space; choose another."
                )
        for key in keys:
            if _is_no_person(key.user):
                raise ConfigurationError(
                    f"HOLDFAST_API_KEYS: the user {key.user!r} is called like a role, like everyone or the deadline, "
                    "which approvals could not tell apart. Choose another name."
                )
        self._callers = tuple(
            (digest_of_key(key.key.get_secret_value()), Caller(key.tenant, key.user, key.tier)) for key in keys
        )

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return not self._callers

    def identify(self, headers: Headers) -> Caller:
        """The caller of a request.

        Raises:
            Problem: 401 without a known key; in open mode, 421 or 403 when the call does not come from this machine.
        """
        if self.open:
            return self.local(headers, headers.get("x-holdfast-user", "local"))
        return self._keyed(headers)

    def of_digest(self, matches: Callable[[bytes], bool]) -> Caller | None:
        """The caller whose key's digest matches, if any; every one is tried, so that time tells nothing."""
        found = None
        for digest, caller in self._callers:
            if matches(digest):
                found = caller
        return found and self._with_roles(found)

    def known_approvers(self, tenant: str, approvers: Sequence[str]) -> tuple[str, ...]:
        """The people whom approvers name, by name or by role, as far as any caller may know.

        Where nobody proves who they are, everybody may also know who has which role.
        """
        if self.open and self._people is not None:
            return self._people.users_of(tenant, approvers)
        return tuple(name for name in approvers if name != EVERYONE and not name.startswith(ROLE))

    def _keyed(self, headers: Headers) -> Caller:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        presented = digest_of_key(key.strip())
        found = self.of_digest(lambda digest: hmac.compare_digest(digest, presented))
        if scheme.lower() != "bearer" or found is None:
            raise Problem(
                401,
                "unauthenticated",
                "Unauthenticated",
                "The request carries no API key, or one that is not known.",
                remedy="Send `Authorization: Bearer KEY` with a key of HOLDFAST_API_KEYS.",
                field="Authorization",
                headers={"WWW-Authenticate": 'Bearer realm="holdfast"'},
            )
        return found

    def local(self, headers: Headers, user: str) -> Caller:
        """Whoever says to be `user` on this machine, while no key is needed.

        Raises:
            Problem: As for `identify`.
        """
        if not _is_loopback(f"//{headers.get('host', '')}"):
            raise Problem(
                421,
                "misdirected",
                "Misdirected request",
                "Without API keys the gateway answers only to a loopback name in the Host header.",
                remedy="Call http://127.0.0.1 or http://localhost, or set HOLDFAST_API_KEYS=KEY=tenant/user.",
                field="Host",
            )
        origin = headers.get("origin")
        # A page at another port of this machine is another site too; browsers say so, proxies pass it on.
        elsewhere = headers.get("sec-fetch-site") in ("same-site", "cross-site")
        if origin is not None and (elsewhere or not _is_loopback(origin)):
            raise Problem(
                403,
                "foreign-origin",
                "Foreign origin",
                "Without API keys the gateway does not serve web pages of other sites.",
                remedy="Call from this machine without an Origin header, or set HOLDFAST_API_KEYS=KEY=tenant/user.",
                field="Origin",
            )
        if not (_USER.fullmatch(user) and is_searchable(user)):
            raise Problem(
                400,
                "invalid-header",
                "Invalid header",
                "X-Holdfast-User must be 1 to 128 printable ASCII characters, without quotation marks and backslashes.",
                remedy="Send a plain user name, or leave the header out to be `local`.",
                field="X-Holdfast-User",
            )
        if _is_no_person(user):
            raise Problem(
                400,
                "invalid-header",
                "Invalid header",
                "X-Holdfast-User is called like a role, like everyone or like the deadline, which approvals could not "
                "tell apart.",
                remedy="Send the name of a person.",
                field="X-Holdfast-User",
            )
        return self._with_roles(Caller("local", user))

    def _with_roles(self, caller: Caller) -> Caller:
        if self._people is None:
            return caller
        return replace(caller, roles=self._people.roles_of(caller.tenant, caller.user))


def _is_no_person(user: str) -> bool:
    return user in (EVERYONE, NOBODY) or user.startswith(ROLE)


def digest_of_key(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
