"""Who is calling: an API key stands for a tenant and a user.

Without any key configured the door is open, but only to this machine: the settings bind it to loopback, and the checks
here keep web pages in the user's browser out (DNS rebinding, cross-site requests).
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from gateway.descriptions import is_searchable
from gateway.problems import Problem
from holdfast.errors import ConfigurationError
from holdfast.settings import ApiKey

_USER = re.compile(r"[ -~]{1,128}")


@dataclass(frozen=True)
class Caller:
    """The party on whose behalf a call is made."""

    tenant: str
    user: str
    tier: str = "standard"


class Identity:
    """Tells callers apart.

    Args:
        keys: Accepted API keys; with none, everyone is tenant `local`.

    Raises:
        ConfigurationError: A tenant or user has a name that the engine's index cannot find again.
    """

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        for name in (name for key in keys for name in (key.tenant, key.user)):
            if not is_searchable(name):
                raise ConfigurationError(
                    f"HOLDFAST_API_KEYS: the name {name!r} holds a quotation mark, a backslash or a control character, "
                    "or begins or ends with an apostrophe or space; choose another."
                )
        self._callers = tuple(
            (_digest(key.key.get_secret_value()), Caller(key.tenant, key.user, key.tier)) for key in keys
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
        return self._local(headers) if self.open else self._keyed(headers)

    def _keyed(self, headers: Headers) -> Caller:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        presented = _digest(key.strip())
        found = None
        for digest, caller in self._callers:  # every key is compared, so that time tells nothing
            if hmac.compare_digest(digest, presented):
                found = caller
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

    def _local(self, headers: Headers) -> Caller:
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
        if origin is not None and not _is_loopback(origin):
            raise Problem(
                403,
                "foreign-origin",
                "Foreign origin",
                "Without API keys the gateway does not serve web pages of other sites.",
                remedy="Call from this machine without an Origin header, or set HOLDFAST_API_KEYS=KEY=tenant/user.",
                field="Origin",
            )
        user = headers.get("x-holdfast-user", "local")
        if not (_USER.fullmatch(user) and is_searchable(user)):
            raise Problem(
                400,
                "invalid-header",
                "Invalid header",
                "X-Holdfast-User must be 1 to 128 printable ASCII characters, without quotation marks and backslashes.",
                remedy="Send a plain user name, or leave the header out to be `local`.",
                field="X-Holdfast-User",
            )
        return Caller("local", user)


def _digest(key: str) -> bytes:
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
