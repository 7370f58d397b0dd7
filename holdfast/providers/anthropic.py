"""Anthropic's messages API, and servers that speak it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic import SecretStr

from holdfast.providers.address import checked_base_url, checked_key
from holdfast.providers.exchange import converse
from holdfast.providers.http import HttpStream
from holdfast.providers.messages import MessagesReply
from holdfast.providers.messages_request import request_body
from holdfast.providers.protocol import ModelCall, ModelEvent, Provider


class Anthropic(Provider):
    """Calls `POST {base_url}/messages`, once per `complete`.

    Args:
        base_url: The API's base, e.g. `https://api.anthropic.com/v1`; a missing `/v1` is added, because Anthropic's own
            clients are configured without it.
        api_key: Sent as `x-api-key`; `None` or empty for a server without keys.
        client: Shared by the process's providers, and then closed by whoever made it; without one, a client of its own.
        version: The API's version, `anthropic-version`.

    Raises:
        ConfigurationError: The address or the key cannot be used in an HTTP request.
    """

    def __init__(
        self,
        base_url: str = "https://api.anthropic.com/v1",
        api_key: SecretStr | str | None = None,
        client: HttpStream | None = None,
        *,
        version: str = "2023-06-01",
    ) -> None:
        self._base_url = versioned(checked_base_url(base_url, "https://api.anthropic.com/v1"))
        self._api_key = checked_key(api_key)
        self._client = HttpStream() if client is None else client
        self._owns_client = client is None
        self._version = version

    def __repr__(self) -> str:
        return f"Anthropic({self._base_url!r})"

    async def complete(self, call: ModelCall) -> AsyncGenerator[ModelEvent, None]:
        """Make one call; see `Provider.complete`."""
        headers = key_headers(self._api_key, self._version)
        if call.attempt_id:
            headers["X-Client-Request-Id"] = call.attempt_id
        events = converse(
            self._client,
            f"{self._base_url}/messages",
            headers=headers,
            body=request_body(call),
            timeouts=call.timeouts,
            reply=MessagesReply(call.model),
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """Close the connections, unless the client is shared."""
        if self._owns_client:
            await self._client.aclose()


def versioned(base_url: str) -> str:
    """The base with the API's path."""
    return base_url if base_url.endswith("/v1") else f"{base_url}/v1"


def key_headers(api_key: SecretStr | None, version: str) -> dict[str, str]:
    """Headers of every request."""
    key = {} if api_key is None else {"x-api-key": api_key.get_secret_value()}
    return {"anthropic-version": version, **key}
