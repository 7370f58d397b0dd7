"""Any server that speaks OpenAI's chat completions: OpenAI itself, Gemini's compatible edge, vLLM, Ollama."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from holdfast.errors import ConfigurationError, Outcome, ProviderError
from holdfast.providers.chat import MalformedChunk, MaxTokensField, Reply, request_body
from holdfast.providers.classify import classify, classify_transport
from holdfast.providers.http import MAX_ERROR_BYTES, EventResponse, HttpStream, TransportFailure
from holdfast.providers.protocol import ModelCall, ModelEvent, Provider, TextDelta

_DONE = "[DONE]"


class OpenAICompatible(Provider):
    """Calls `POST {base_url}/chat/completions`, once per `complete`.

    Args:
        base_url: The API's base, e.g. `https://api.openai.com/v1`.
        api_key: Sent as a bearer token; `None` or empty for a server without keys.
        client: Shared by the process's providers, and then closed by whoever made it; without one, a client of its own.
        max_tokens_field: How the server spells the reply limit.

    Raises:
        ConfigurationError: The address or the key cannot be used in an HTTP request.
    """

    def __init__(
        self,
        base_url: str,
        api_key: SecretStr | str | None = None,
        client: HttpStream | None = None,
        *,
        max_tokens_field: MaxTokensField = "max_completion_tokens",
    ) -> None:
        self._base_url = _checked_base_url(base_url)
        self._api_key = _checked_key(api_key)
        self._client = HttpStream() if client is None else client
        self._owns_client = client is None
        self._max_tokens_field = max_tokens_field

    def __repr__(self) -> str:
        return f"OpenAICompatible({self._base_url!r})"

    async def complete(self, call: ModelCall) -> AsyncGenerator[ModelEvent, None]:
        """Make one call; see `Provider.complete`."""
        reply = Reply(call.model)
        status: int | None = None
        try:
            async with self._client.stream_events(
                f"{self._base_url}/chat/completions",
                headers=self._headers(call),
                body=request_body(call, self._max_tokens_field),
                timeouts=call.timeouts,
            ) as response:
                status = response.status
                if status != 200:
                    raise await _refusal(response, call.model)
                async with aclosing(_texts(response, reply)) as texts:
                    async for text in texts:
                        yield TextDelta(text)
        except TransportFailure as failure:
            if not reply.finished:
                raise classify_transport(
                    failure.kind,
                    sent=failure.sent,
                    after_first_byte=failure.after_first_byte,
                    model=call.model,
                    status=status,
                ) from None
        if reply.failed:
            raise _broken(call.model, "the server ended it with a reason that means failure")
        yield reply.completed()

    async def aclose(self) -> None:
        """Close the connections, unless the client is shared."""
        if self._owns_client:
            await self._client.aclose()

    def _headers(self, call: ModelCall) -> dict[str, str]:
        headers = {}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key.get_secret_value()}"
        if call.attempt_id:
            headers["X-Client-Request-Id"] = call.attempt_id
        return headers


async def _texts(response: EventResponse, reply: Reply) -> AsyncGenerator[str, None]:
    """Fold the answer's body into `reply` and yield its text as it comes.

    Raises:
        ProviderError: The body is not a whole reply.
        TransportFailure: It broke off.
    """
    if "json" in response.headers.get("content-type", ""):
        if text := _fold(await response.read(), response, reply):
            yield text
        return
    if "html" in response.headers.get("content-type", ""):
        raise _unreadable(reply.requested, "an HTML page")
    done = False
    async with aclosing(response.events()) as events:
        async for data in events:
            if done := data.strip() == _DONE:
                await response.drain()
                break
            try:
                text = _fold(data, response, reply)
            except ProviderError:
                if reply.finished:  # the text is whole; only the count is lost
                    return
                raise
            if reply.tokens_begun:
                response.tokens_begun()
            if text:
                yield text
    if reply.chunks == 0:
        raise _unreadable(reply.requested, "no chunk of a reply")
    if not (done or reply.finished):
        raise _broken(reply.requested, "it ended without a finish reason")


def _fold(data: str | bytes, response: EventResponse, reply: Reply) -> str:
    chunk = _parse(data, reply)
    if isinstance(chunk, list) or (isinstance(chunk, dict) and chunk.get("error")):
        if reply.tokens_begun:
            raise _broken(reply.requested, "the server reported an error in the middle of it")
        raise classify(response.status, response.headers, chunk, now=datetime.now(UTC), model=reply.requested)
    try:
        return reply.add(chunk)
    except MalformedChunk:
        raise _misshapen(reply, "JSON that is not a chat completion") from None


def _parse(data: str | bytes, reply: Reply) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise _misshapen(reply, "something that is not JSON") from None


async def _refusal(response: EventResponse, model: str) -> ProviderError:
    try:
        body = await response.read(MAX_ERROR_BYTES)
    except TransportFailure:
        body = b""  # the status alone says enough
    return classify(response.status, response.headers, body, now=datetime.now(UTC), model=model)


def _misshapen(reply: Reply, what: str) -> ProviderError:
    return _unreadable(reply.requested, what) if reply.chunks == 0 else _broken(reply.requested, f"it held {what}")


def _unreadable(model: str, what: str) -> ProviderError:
    return ProviderError(
        f"Model {model!r} answered HTTP 200 with {what}; the call may have been billed. "
        "Check that the deployment's `base_url` is the base of a chat-completions API.",
        outcome=Outcome.UNKNOWN,
        status=200,
    )


def _broken(model: str, how: str) -> ProviderError:
    return ProviderError(
        f"The reply of model {model!r} broke off: {how}; what came of it is billed.",
        outcome=Outcome.BROKEN_STREAM,
        status=200,
    )


def _checked_base_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError("`base_url` must be an address like 'https://api.openai.com/v1'.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            f"`base_url` of {parts.hostname!r} must hold no user, password, query or fragment; "
            "name the variable with the key in `api_key_env`."
        )
    return base_url.strip().rstrip("/")


def _checked_key(api_key: SecretStr | str | None) -> SecretStr | None:
    text = (api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key or "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isprintable()):
        raise ConfigurationError(
            "The API key holds characters that an HTTP header cannot carry; set it again, without line breaks."
        )
    return SecretStr(text)
