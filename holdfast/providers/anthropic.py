"""Anthropic's messages API, and servers that speak it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic import SecretStr

from holdfast.providers.endpoint import anthropic_endpoint
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
        self._endpoint = anthropic_endpoint(base_url, api_key, client, version)

    def __repr__(self) -> str:
        return f"Anthropic({self._endpoint.url!r})"

    async def complete(self, call: ModelCall) -> AsyncGenerator[ModelEvent, None]:
        """Make one call; see `Provider.complete`."""
        events = converse(
            self._endpoint.client,
            f"{self._endpoint.url}/messages",
            headers=self._endpoint.headers(call.attempt_id),
            body=request_body(call),
            timeouts=call.timeouts,
            reply=MessagesReply(call.model),
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """Close the connections, unless the client is shared."""
        await self._endpoint.aclose()
