"""OpenAI's wire format: chat completions as a body and as server-sent events."""

import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from holdfast.tokens import count_tokens
from simulator.answers import token_pieces
from simulator.behaviour import Behaviour, Kind
from simulator.chat_request import read_chat_request
from simulator.error_bodies import openai_error
from simulator.errors import ApiError
from simulator.model_request import ModelRequest
from simulator.prices import Prompt
from simulator.rate_limits import UNLIMITED, Report, go_duration
from simulator.replies import Finish, Reply

_FINISH_REASONS: Mapping[Finish, str] = {
    Finish.STOP: "stop",
    Finish.STOP_SEQUENCE: "stop",
    Finish.LENGTH: "length",
    Finish.CONTEXT_WINDOW: "length",
    Finish.TOOL_CALLS: "tool_calls",
    Finish.CONTENT_FILTER: "content_filter",
    Finish.REFUSAL: "stop",
}
_LEAST_LOGPROB = -9999.0
"""What OpenAI reports for a token of no probability."""


class OpenAI:
    """The format of `POST /v1/chat/completions`."""

    name: Literal["openai"] = "openai"
    request_id_header = "x-request-id"
    charges_cache_writes = False

    def new_id(self) -> str:
        """An id for a completion."""
        return f"chatcmpl-{uuid.uuid4().hex}"

    def check_headers(self, header: Callable[[str], str | None]) -> None:
        """Nothing is required: any key or none is taken."""

    def read(self, given: Mapping[str, Any]) -> ModelRequest:
        """Read a chat completion request."""
        return read_chat_request(given)

    def limit_headers(self, report: Report) -> dict[str, str]:
        """The six `x-ratelimit-*` headers; durations are Go's."""
        return dict(_NOMINAL_HEADERS) if report is UNLIMITED else _limit_headers(report)

    def error(self, error: ApiError, request_id: str | None) -> Any:  # noqa: ARG002  another format writes it
        """The body of an error; the id is in the header only."""
        return openai_error(error)

    def render(
        self, id: str, request: ModelRequest, reply: Reply, prompt: Prompt, behaviour: Behaviour
    ) -> "ChatCompletion":
        """Write a reply."""
        return ChatCompletion(id, request, reply, prompt, behaviour)


class ChatCompletion:
    """One reply."""

    def __init__(self, id: str, request: ModelRequest, reply: Reply, prompt: Prompt, behaviour: Behaviour) -> None:
        self._id = id
        self._request = request
        self._reply = reply
        self._channel = "refusal" if reply.finish is Finish.REFUSAL else "content"
        self._prompt = prompt
        self._reports_usage = behaviour.kind is not Kind.NO_USAGE
        self._logprob = math.log(behaviour.confidence) if behaviour.confidence else _LEAST_LOGPROB
        self._created = int(time.time())

    def body(self) -> dict[str, Any]:
        """The `chat.completion` object."""
        logprobs = self._logprobs(token_pieces(self._reply.text, 1)) if self._request.logprobs else None
        choice = {"index": 0, "message": self._message(), "logprobs": logprobs, "finish_reason": self._finish_reason}
        completion = self._envelope("chat.completion") | {"choices": [choice]}
        if self._reports_usage:
            completion["usage"] = self._usage()
        return completion

    def opening(self) -> bytes:
        """The chunk with the role."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def deltas(self, size: int) -> Iterator[tuple[bytes, int]]:
        """Chunks; one token each when the request asks for log probabilities."""
        asked = self._request.logprobs
        for piece, count in token_pieces(self._reply.text, 1 if asked else size):
            logprobs = self._logprobs([(piece, count)]) if asked else None
            yield self._chunk({self._channel: piece}, logprobs=logprobs), count
        for index, call in enumerate(self._reply.tool_calls):
            head = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            yield self._chunk({"tool_calls": [head]}), count_tokens(call.name)
            for piece, count in token_pieces(call.arguments, size):
                yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}), count

    def malformed(self) -> bytes:
        """A chunk that breaks off."""
        return self._chunk({"content": ""})[:60] + b"\n\n"

    def failure(self, error: ApiError) -> bytes:
        """A data object with `error` in it; no `[DONE]` follows."""
        return _sse(openai_error(error))

    def closing(self) -> bytes:
        """The chunk with the finish reason, the usage if asked for, and `[DONE]`."""
        events = self._chunk({}, self._finish_reason)
        if self._request.include_usage and self._reports_usage:
            events += _sse(self._envelope("chat.completion.chunk") | {"choices": [], "usage": self._usage()})
        return events + b"data: [DONE]\n\n"

    @property
    def _finish_reason(self) -> str:
        return _FINISH_REASONS[self._reply.finish]

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._request.model}

    def _chunk(
        self, delta: dict[str, Any], finish_reason: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = self._envelope("chat.completion.chunk") | {"choices": [choice]}
        if self._request.include_usage:
            chunk["usage"] = None
        return _sse(chunk)

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        if self._reply.text or not self._reply.tool_calls:
            message[self._channel] = self._reply.text
        if self._reply.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self._reply.tool_calls
            ]
        return message

    def _logprobs(self, pieces: Iterator[tuple[str, int]] | list[tuple[str, int]]) -> dict[str, Any]:
        tokens = [
            {"token": piece, "logprob": self._logprob, "bytes": list(piece.encode()), "top_logprobs": []}
            for piece, _ in pieces
        ]
        logprobs: dict[str, Any] = {"content": None, "refusal": None}
        logprobs[self._channel] = tokens
        return logprobs

    def _usage(self) -> dict[str, Any]:
        prompt, completion = self._prompt.total, self._reply.tokens
        details = {"cached_tokens": self._prompt.cache_read_tokens, "audio_tokens": 0}
        if self._prompt.cache_write_tokens:
            details["cache_write_tokens"] = self._prompt.cache_write_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": details,
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


def _limit_headers(report: Report) -> dict[str, str]:
    headers = {}
    for dimension, room in zip(("requests", "tokens"), report, strict=True):
        headers[f"x-ratelimit-limit-{dimension}"] = str(room.limit)
        headers[f"x-ratelimit-remaining-{dimension}"] = str(room.remaining)
        headers[f"x-ratelimit-reset-{dimension}"] = go_duration(room.reset)
    return headers


_NOMINAL_HEADERS = _limit_headers(UNLIMITED)


def _sse(data: Any) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode("utf-8", "replace")
