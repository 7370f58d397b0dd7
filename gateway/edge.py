"""The outermost layer of the gateway: names every request, hardens every response, writes the access log.

The log has method, path, status and duration. It never has query strings, headers or bodies.
"""

import logging
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import internal_problem, respond

logger = logging.getLogger("holdfast.gateway")
access = logging.getLogger("holdfast.gateway.access")

_REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_CLOSED = 499
"""What the log says when the client went away before it was answered; no client ever sees it."""


class Edge:
    """ASGI middleware around the whole application.

    Args:
        app: What it wraps.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        reference = _reference(scope)
        scope["holdfast.reference"] = reference
        status = CLIENT_CLOSED

        async def harden(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _harden(message, scope, reference)
            await send(message)

        try:
            await self._app(scope, receive, harden)
        except ClientDisconnect:
            pass
        except Exception as error:
            logger.error("request %s: %s", reference, type(error).__name__, exc_info=error)
            if status == CLIENT_CLOSED:
                await respond(internal_problem(), Request(scope))(scope, receive, harden)
        finally:
            access.info(
                "%s %s %d %.1f ms %s",
                scope["method"],
                scope["path"].encode("unicode_escape").decode(),
                status,
                (time.perf_counter() - started) * 1000,
                reference,
            )


def _harden(message: MutableMapping[str, Any], scope: Scope, reference: str) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-Id"] = reference
    headers["X-Content-Type-Options"] = "nosniff"
    if scope["path"].startswith("/v1/") or headers.get("content-type", "").startswith("text/event-stream"):
        headers["Cache-Control"] = "no-store"


def _reference(scope: Scope) -> str:
    """The caller's own id for the request if it is plain, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REFERENCE.fullmatch(given := value.decode("latin-1")):
            return str(given)
    return secrets.token_hex(8)
