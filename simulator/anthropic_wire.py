"""Anthropic's wire format: messages as a body and as server-sent events."""

import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from holdfast.tokens import count_tokens
from simulator.answers import token_pieces
from simulator.behaviour import Behaviour, Kind
from simulator.error_bodies import anthropic_error
from simulator.errors import ApiError
from simulator.messages_request import read_messages_request
from simulator.model_request import ModelRequest, invalid
from simulator.prices import Prompt
from simulator.rate_limits import UNLIMITED, Report
from simulator.replies import Finish, Reply, ToolCall

_STOP_REASONS: Mapping[Finish, str] = {
    Finish.STOP: "end_turn",
    Finish.STOP_SEQUENCE: "stop_sequence",
    Finish.LENGTH: "max_tokens",
    Finish.CONTEXT_WINDOW: "model_context_window_exceeded",
    Finish.TOOL_CALLS: "tool_use",
    Finish.CONTENT_FILTER: "refusal",
    Finish.REFUSAL: "refusal",
}
_PLACEHOLDER_OUTPUT_TOKENS = 1
"""What `message_start` reports, before anything is known of the output."""


class Anthropic:
    """The format of `POST /v1/messages`."""

    name: Literal["anthropic"] = "anthropic"
    request_id_header = "request-id"
    charges_cache_writes = True

    def new_id(self) -> str:
        """An id for a message."""
        return f"msg_{uuid.uuid4().hex}"

    def check_headers(self, header: Callable[[str], str | None]) -> None:
        """A version is required; any key or none is taken.

        Raises:
            ApiError: There is no version.
        """
        if header("anthropic-version") is None:
            raise invalid("anthropic-version: header is required", "anthropic-version")

    def read(self, given: Mapping[str, Any]) -> ModelRequest:
        """Read a messages request."""
        return read_messages_request(given)

    def limit_headers(self, report: Report) -> dict[str, str]:
        """The `anthropic-ratelimit-*` headers; resets are RFC 3339. One limit holds for input and output tokens."""
        now = math.ceil(time.time())
        return dict(_nominal_headers(now)) if report is UNLIMITED else _limit_headers(report, now)

    def error(self, error: ApiError, request_id: str | None) -> Any:
        """The body of an error."""
        return anthropic_error(error, request_id)

    def render(self, id: str, request: ModelRequest, reply: Reply, prompt: Prompt, behaviour: Behaviour) -> "Message":
        """Write a reply."""
        return Message(id, request, reply, prompt, behaviour)


class Message:
    """One reply."""

    def __init__(self, id: str, request: ModelRequest, reply: Reply, prompt: Prompt, behaviour: Behaviour) -> None:
        self._id = id
        self._request = request
        self._reply = reply
        self._prompt = prompt
        self._reports_usage = behaviour.kind is not Kind.NO_USAGE

    def body(self) -> dict[str, Any]:
        """The message object."""
        content: list[dict[str, Any]] = [{"type": "text", "text": self._reply.text}] if self._has_text else []
        content += [_tool_use(call, json.loads(call.arguments)) for call in self._reply.tool_calls]
        return self._message(content, self._reply.tokens, self._stop())

    def opening(self) -> bytes:
        """`message_start`, the first block's start if it is text, and a `ping`."""
        nothing = {"stop_reason": None, "stop_sequence": None}
        start = self._message([], _PLACEHOLDER_OUTPUT_TOKENS, nothing)
        events = _event("message_start", {"message": start})
        if self._has_text:
            block = {"type": "text", "text": ""}
            events += _event("content_block_start", {"index": 0, "content_block": block})
        return events + _event("ping", {})

    def deltas(self, size: int) -> Iterator[tuple[bytes, int]]:
        """Blocks in pieces; the text's block has been started by `opening`."""
        for piece, count in token_pieces(self._reply.text, size):
            yield _delta(0, {"type": "text_delta", "text": piece}), count
        for index, call in enumerate(self._reply.tool_calls, start=1 if self._has_text else 0):
            head = _event("content_block_stop", {"index": index - 1}) if index else b""
            head += _event("content_block_start", {"index": index, "content_block": _tool_use(call, {})})
            yield head + _delta(index, {"type": "input_json_delta", "partial_json": ""}), count_tokens(call.name)
            for piece, count in token_pieces(call.arguments, size):
                yield _delta(index, {"type": "input_json_delta", "partial_json": piece}), count

    def malformed(self) -> bytes:
        """A delta that breaks off."""
        return _delta(0, {"type": "text_delta", "text": ""})[:70] + b"\n\n"

    def failure(self, error: ApiError) -> bytes:
        """An `error` event; nothing follows."""
        body = anthropic_error(error)
        return _event("error", {"error": body["error"]} if isinstance(body, dict) else {"error": body})

    def closing(self) -> bytes:
        """The last block's stop, `message_delta` with the cumulative usage, and `message_stop`."""
        last = len(self._reply.tool_calls) - (0 if self._has_text else 1)
        delta: dict[str, Any] = {"delta": self._stop() | {"stop_details": self._stop_details()}}
        if self._reports_usage:
            delta["usage"] = self._usage(self._reply.tokens)
        events = _event("content_block_stop", {"index": last})
        return events + _event("message_delta", delta) + _event("message_stop", {})

    @property
    def _has_text(self) -> bool:
        return bool(self._reply.text) or not self._reply.tool_calls

    def _message(self, content: list[dict[str, Any]], output_tokens: int, stop: dict[str, Any]) -> dict[str, Any]:
        message = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._request.model,
            "content": content,
            **stop,
        }
        if self._reports_usage:
            message["usage"] = self._usage(output_tokens)
        return message

    def _stop(self) -> dict[str, Any]:
        return {"stop_reason": _STOP_REASONS[self._reply.finish], "stop_sequence": self._reply.stop_sequence}

    def _stop_details(self) -> dict[str, Any] | None:
        if _STOP_REASONS[self._reply.finish] != "refusal":
            return None
        return {"type": "refusal", "category": None, "explanation": None}

    def _usage(self, output_tokens: int) -> dict[str, Any]:
        written = self._prompt.cache_write_tokens
        for_an_hour = written if self._request.cached_for_an_hour else 0
        return {
            "input_tokens": self._prompt.input_tokens,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": self._prompt.cache_read_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": written - for_an_hour,
                "ephemeral_1h_input_tokens": for_an_hour,
            },
            "output_tokens": output_tokens,
            "service_tier": "standard",
        }


def _limit_headers(report: Report, now: int) -> dict[str, str]:
    headers = {}
    dimensions = (("requests",), ("tokens", "input-tokens", "output-tokens"))
    for names, room in zip(dimensions, report, strict=True):
        # Rounded up, so that the time is never before there is room.
        reset = datetime.fromtimestamp(math.ceil(now + room.reset), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for dimension in names:
            headers[f"anthropic-ratelimit-{dimension}-limit"] = str(room.limit)
            headers[f"anthropic-ratelimit-{dimension}-remaining"] = str(room.remaining)
            headers[f"anthropic-ratelimit-{dimension}-reset"] = reset
    return headers


@lru_cache(maxsize=2)
def _nominal_headers(now: int) -> dict[str, str]:
    return _limit_headers(UNLIMITED, now)


def _tool_use(call: ToolCall, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{call.id.removeprefix('call_')}", "name": call.name, "input": arguments}


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _event("content_block_delta", {"index": index, "delta": delta})


def _event(kind: str, data: dict[str, Any]) -> bytes:
    text = json.dumps({"type": kind, **data}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {text}\n\n".encode("utf-8", "replace")
