"""The span of one model call, with the GenAI attributes."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from holdfast.contracts import Usage
from holdfast.errors import ProviderError
from holdfast.providers import Completed, ModelCall
from holdfast.providers.protocol import Message
from holdfast.telemetry import genai


class ModelSpan:
    """Writes what the conventions ask for; prompts and replies only when the operator opted in.

    Args:
        generation: Of the attribute names, `v1.41` or `next`.
        capture_content: Whether prompts and replies go on the spans.
        provider: Where spans go; by default the process's own provider.
    """

    def __init__(
        self,
        *,
        generation: str = "v1.41",
        capture_content: bool = False,
        provider: TracerProvider | None = None,
    ) -> None:
        self._names = genai.names_of(generation)
        self._capture = capture_content
        self._tracer = trace.get_tracer("holdfast", tracer_provider=provider)

    @contextmanager
    def around(self, call: ModelCall, *, provider: str, request_id: str, deployment: str = "") -> Iterator["LiveSpan"]:
        """Span `chat <model>` of kind CLIENT around one attempt.

        Args:
            call: What is sent.
            provider: A provider or an id of the price list, as for `genai.provider_name`.
            request_id: Whose attempt it is.
            deployment: Its name in `models.toml`; left out of the span when empty.

        A failure is recorded by its outcome, or by its type when it is no `ProviderError`; never by its message.
        """
        with self._tracer.start_as_current_span(
            f"chat {call.model}", kind=SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
        ) as span:
            live = LiveSpan(span, self._names, capture=self._capture)
            if span.is_recording():
                live.began(call, provider, request_id, deployment)
            try:
                yield live
            except BaseException as error:
                kind = error.outcome.value if isinstance(error, ProviderError) else type(error).__name__
                span.set_attribute(genai.ERROR_TYPE, kind)
                span.set_status(Status(StatusCode.ERROR, kind))
                raise


class LiveSpan:
    """A model call under way."""

    def __init__(self, span: Span, names: genai.Names, *, capture: bool) -> None:
        self._span = span
        self._names = names
        self._capture = capture
        self._started = time.perf_counter()
        self._first = False

    def began(self, call: ModelCall, provider: str, request_id: str, deployment: str) -> None:
        """What is known before the call."""
        attributes: dict[str, str | int | float | bool | Sequence[str]] = {
            genai.OPERATION: "chat",
            genai.PROVIDER: genai.provider_name(provider),
            genai.REQUEST_MODEL: call.model,
            genai.REQUEST_MAX_TOKENS: call.max_output_tokens,
            genai.REQUEST_STREAM: True,
            genai.OUTPUT_TYPE: "json" if call.output_schema else "text",
            genai.SPAN_KIND: "LLM",
            genai.REQUEST_ID: request_id,
            genai.ATTEMPT_ID: call.attempt_id,
        }
        if deployment:
            attributes[genai.DEPLOYMENT] = deployment
        if call.temperature is not None:
            attributes[genai.REQUEST_TEMPERATURE] = call.temperature
        if call.top_p is not None:
            attributes[genai.REQUEST_TOP_P] = call.top_p
        if call.seed is not None:
            attributes[genai.REQUEST_SEED] = call.seed
        if self._capture:
            attributes[genai.INPUT_MESSAGES] = json.dumps(
                [{"role": message.role, "parts": _parts(message)} for message in call.messages]
            )
            if call.stop:
                # A client chooses these words, so they are text of the request.
                attributes[genai.REQUEST_STOP] = call.stop
        self._span.set_attributes(attributes)

    def delta(self) -> None:
        """A piece of the reply arrived, text or tool call."""
        if not self._first and self._span.is_recording():
            self._first = True
            self._span.set_attribute(genai.TIME_TO_FIRST_CHUNK, time.perf_counter() - self._started)

    def ended(self, text: str, completed: Completed, usage: Usage | None) -> None:
        """The reply is complete.

        Args:
            text: All of it.
            completed: Its end.
            usage: What the provider reported, priced; `None` when it reported nothing.
        """
        if not self._span.is_recording():
            return
        self._span.set_attributes(
            {
                genai.RESPONSE_MODEL: completed.model,
                genai.FINISH_REASONS: [completed.finish_reason.value],
                genai.TOOL_CALLS: len(completed.tool_calls),
            }
        )
        if completed.response_id:
            self._span.set_attribute(genai.RESPONSE_ID, completed.response_id)
        if usage is not None:
            self._used(usage)
        if self._capture:
            parts = _parts(Message("assistant", text, completed.tool_calls))
            said = [{"role": "assistant", "parts": parts, "finish_reason": completed.finish_reason.value}]
            self._span.set_attribute(genai.OUTPUT_MESSAGES, json.dumps(said))

    def _used(self, usage: Usage) -> None:
        self._span.set_attributes(
            {
                genai.INPUT_TOKENS: usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
                genai.OUTPUT_TOKENS: usage.output_tokens,
                self._names.cache_read_tokens: usage.cache_read_tokens,
                self._names.cache_write_tokens: usage.cache_write_tokens,
            }
        )
        if usage.cost_usd is not None:
            self._span.set_attribute(genai.COST_USD, float(usage.cost_usd))


def _parts(message: Message) -> list[dict[str, str | None]]:
    """A message's content in the conventions' form."""
    if message.role == "tool":
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": message.content}]
    text: list[dict[str, str | None]] = [{"type": "text", "content": message.content}] if message.content else []
    return text + [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
