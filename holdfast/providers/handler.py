"""Answers through a function in this process: the provider behind deployments with `provider = "handler"`."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType

from holdfast.contracts import FinishReason, Usage
from holdfast.errors import Outcome, ProviderError
from holdfast.handlers import Function
from holdfast.providers.protocol import Completed, ModelCall, ModelEvent, Provider, TextDelta
from holdfast.tokens import encoding


class Handler(Provider):
    """Has a handler answer `ModelCall.question`; the messages and passages are not read, and no token is used.

    Args:
        function: See `holdfast.handlers`; it runs in a thread, so that a slow one delays no other request.
        parameters: The deployment's.
    """

    def __init__(self, function: Function, parameters: Mapping[str, str] | None = None) -> None:
        self._function = function
        self._parameters = MappingProxyType(dict(parameters or {}))

    async def complete(self, call: ModelCall) -> AsyncGenerator[ModelEvent, None]:
        """Answer once.

        Raises:
            ProviderError: INVALID_REQUEST, so that another deployment is asked: the handler leaves the question to a
                model, breaks, or would have to write JSON.
        """
        if call.output_schema is not None:
            raise _declined(call.model, "answers in text, and this agent's output schema demands JSON")
        try:
            text = await asyncio.to_thread(self._function, call.question, self._parameters)
        except Exception as error:
            raise _declined(call.model, f"broke with {type(error).__name__}") from error
        if not text:
            raise _declined(call.model, "leaves this question to a model")
        tokens = encoding().encode_ordinary(text)
        finish_reason = FinishReason.STOP
        if len(tokens) > call.max_output_tokens:
            finish_reason = FinishReason.LENGTH
            text = encoding().decode(tokens[: call.max_output_tokens], errors="ignore")
        if text:
            yield TextDelta(text)
        yield Completed(finish_reason, call.model, None, Usage(input_tokens=0, output_tokens=0, cost_usd=None))

    async def aclose(self) -> None:
        """Nothing to release."""


def _declined(model: str, why: str) -> ProviderError:
    return ProviderError(f"Handler {model!r} {why}.", outcome=Outcome.INVALID_REQUEST)
