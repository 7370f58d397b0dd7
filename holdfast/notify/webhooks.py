"""One attempt to deliver a webhook, by the Standard Webhooks specification (standardwebhooks.com, version 1.0).

The target's address is checked again at every attempt and the connection is pinned to what was checked. Redirects are
not followed: where to send is the operator's word, not the receiver's. Of a reply nothing but its headers is read.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

from holdfast.addresses import Resolver, checked, pinned_client, system_resolver
from holdfast.errors import TargetRefused, Unavailable
from holdfast.notify.configuration import WebhookTarget
from holdfast.notify.sending import Attempted
from holdfast.providers import retry_after

GONE = 410


class Webhooks:
    """Sends to webhooks.

    Args:
        timeout: For one whole exchange, from looking the name up to the last header.
        resolve: Replaces the operating system's resolver.
    """

    def __init__(self, timeout: timedelta, *, resolve: Resolver = system_resolver) -> None:
        self._timeout = timeout
        self._resolve = resolve

    async def send(self, target: WebhookTarget, message_id: str, body: str, now: datetime | None = None) -> Attempted:
        """Send a message once.

        Args:
            target: To whom.
            message_id: The same in every attempt.
            body: JSON.
            now: The moment of the attempt, which is signed; receivers refuse what is five minutes off.
        """
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await self._post(target, message_id, body, now or datetime.now(UTC))
        except TargetRefused as refused:
            return Attempted(f"refused: {refused}")
        except Unavailable as away:
            return Attempted(str(away))
        except (TimeoutError, httpx.TimeoutException):
            return Attempted(f"no answer within {self._timeout.total_seconds():g} s")
        except httpx.ConnectError:
            return Attempted("no connection")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # Its message may repeat the URL.
            return Attempted(f"broken off: {type(error).__name__}")

    async def _post(self, target: WebhookTarget, message_id: str, body: str, now: datetime) -> Attempted:
        at = await checked(
            target.url.get_secret_value(),
            hosts=(target.host,),
            private_hosts=target.private_hosts,
            schemes=("https", "http") if target.http else ("https",),
            resolve=self._resolve,
        )
        headers = {"Content-Type": "application/json", **signature_headers(target.secrets, message_id, body, now)}
        async with (
            pinned_client(at, timeout=self._timeout) as client,
            client.stream("POST", at.url, content=body.encode(), headers=headers) as reply,
        ):
            return _verdict(reply, now)


def signature_headers(secrets: Sequence[SecretStr], message_id: str, body: str, now: datetime) -> dict[str, str]:
    """The three headers of the specification; with several secrets, a signature by each."""
    signatures = (Webhook(secret.get_secret_value()).sign(message_id, now.astimezone(UTC), body) for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _verdict(reply: httpx.Response, now: datetime) -> Attempted:
    if reply.is_success:
        return Attempted()
    if reply.status_code == GONE:
        return Attempted(
            "HTTP 410: the target wants no more notifications; take it out of notifications.toml", for_good=True
        )
    if reply.is_redirect:
        return Attempted(f"HTTP {reply.status_code}: redirects are not followed; set `url` to the final address")
    return Attempted(f"HTTP {reply.status_code}", retry_after=retry_after(reply.headers, now))
