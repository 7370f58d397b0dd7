"""Any server that speaks OpenAI's chat completions: OpenAI itself, Gemini's edge, OpenRouter, Ollama, vLLM."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from pydantic import SecretStr

from holdfast.errors import Outcome, ProviderError
from holdfast.providers.chat import ChatReply
from holdfast.providers.chat_request import MaxTokensField, request_body
from holdfast.providers.endpoint import openai_endpoint
from holdfast.providers.exchange import converse
from holdfast.providers.flavours import FLAVOURS, FlavourName
from holdfast.providers.http import HttpStream
from holdfast.providers.protocol import ModelCall, ModelEvent, Provider
from holdfast.tokens import count_message_tokens


class OpenAICompatible(Provider):
    """Calls `POST {base_url}/chat/completions`, once per `complete`.

    Args:
        base_url: The API's base, e.g. `https://api.openai.com/v1`.
        api_key: Sent as a bearer token; `None` or empty for a server without keys.
        client: Shared by the process's providers, and then closed by whoever made it; without one, a client of its own.
        max_tokens_field: How the server spells the reply limit.
        flavour: Whose server it is, by what it understands beyond the common core.

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
        flavour: FlavourName = "openai",
    ) -> None:
        self._endpoint = openai_endpoint(base_url, api_key, client)
        self._max_tokens_field: MaxTokensField = max_tokens_field
        self._flavour = FLAVOURS[flavour]

    def __repr__(self) -> str:
        return f"OpenAICompatible({self._endpoint.url!r})"

    async def complete(self, call: ModelCall) -> AsyncGenerator[ModelEvent, None]:
        """Make one call; see `Provider.complete`."""
        if self._flavour.truncates_silently:
            call = _within_window(call)
        events = converse(
            self._endpoint.client,
            f"{self._endpoint.url}/chat/completions",
            headers=self._endpoint.headers(call.attempt_id),
            body=request_body(call, self._max_tokens_field, self._flavour),
            timeouts=call.timeouts,
            reply=ChatReply(call.model),
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """Close the connections, unless the client is shared."""
        await self._endpoint.aclose()


def _within_window(call: ModelCall) -> ModelCall:
    """The call with a reply that fits beside its prompt, for a server that would drop the prompt's beginning instead.

    Raises:
        ProviderError: The prompt alone does not fit.
    """
    if call.context_window is None:
        return call
    made = [made for message in call.messages for made in message.tool_calls]
    prompt = count_message_tokens(
        [
            *(message.content for message in call.messages),
            *(made.arguments for made in made),
            *(tool.model_dump_json() for tool in call.tools),
            json.dumps(call.output_schema) if call.output_schema else "",
        ]
    )
    room = call.context_window - prompt
    if room < 1:
        raise ProviderError(
            f"The prompt of about {prompt} tokens does not fit the {call.context_window} of model {call.model!r}, "
            "whose server would cut it off; use a deployment with a larger context window.",
            outcome=Outcome.CONTEXT_LENGTH,
        )
    return replace(call, max_output_tokens=min(call.max_output_tokens, room))
