"""Chat completions and their chunks as OpenAI's clients read them, and the errors that other endings are to them."""

import json
from typing import Any

from gateway.execution import Execution
from gateway.problems import Problem
from holdfast.contracts import Answer, AnswerDocument, FinishReason, Status, Usage

_FINISH = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CONTENT_FILTER: "content_filter",
    # OpenAI's own: a refusal is a message of its own kind that ends like any other.
    FinishReason.REFUSAL: "stop",
}

_ENDINGS: dict[Status, tuple[int, str, str]] = {
    Status.DENIED: (429, "insufficient-quota", "A budget or a limit does not allow the request."),
    Status.REFUSED: (400, "content-policy", "The request was refused."),
    Status.REJECTED: (403, "rejected", "The answer was not approved."),
    Status.CANCELLED: (409, "cancelled", "The request was cancelled."),
    Status.EXPIRED: (504, "expired", "The request's deadline passed."),
    Status.FAILED: (502, "failed", "The request failed."),
    Status.WAITING: (409, "approval-required", "The answer waits for a person's decision."),
    Status.RUNNING: (504, "answer-pending", "The request has not ended yet."),
}

REQUEST_ID = "X-Holdfast-Request-Id"
"""Header that names the request behind a completion."""


def completion(execution: Execution, answer: Answer, document: AnswerDocument) -> dict[str, Any]:
    """A chat completion."""
    refused = answer.finish_reason is FinishReason.REFUSAL
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused or (not document.text and document.tool_calls) else document.text,
        "refusal": document.text if refused else None,
    }
    if document.tool_calls:
        message["tool_calls"] = _tool_calls(document)
    return {
        **_head(execution, "chat.completion"),
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(answer, document)}
        ],
        "usage": usage(answer.usage),
        "holdfast": _beside(execution, answer, document),
    }


class Chunks:
    """The chunks of one streamed completion, as frames of server-sent events.

    Args:
        execution: The request.
        with_usage: Whether the client asked for a chunk with the usage; then all others say that they have none.
    """

    def __init__(self, execution: Execution, *, with_usage: bool) -> None:
        self._execution = execution
        self._head = _json(_head(execution, "chat.completion.chunk"))[:-1]
        self._tail = ',"usage":null}' if with_usage else "}"
        self._with_usage = with_usage

    def role(self) -> bytes:
        """The first one."""
        return self._delta('{"role":"assistant","content":"","refusal":null}')

    def text(self, text: str) -> bytes:
        """More text."""
        return self._delta(f'{{"content":{json.dumps(text, ensure_ascii=False)}}}')

    def last(self, answer: Answer, document: AnswerDocument, rest: str) -> bytes:
        """What remains: the rest of the text, tool calls, why it stopped, the usage, and the terminator."""
        frames = []
        if rest and answer.finish_reason is FinishReason.REFUSAL:
            frames.append(self._delta(_json({"refusal": rest})))
        elif rest:
            frames.append(self.text(rest))
        for index, call in enumerate(_tool_calls(document)):
            frames.append(self._delta(_json({"tool_calls": [{"index": index, **call}]})))
        frames.append(self._delta("{}", finish_reason(answer, document)))
        if self._with_usage:
            frames.append(_frame(f'{self._head},"choices":[],"usage":{_json(usage(answer.usage))}}}'))
        frames.append(_frame("[DONE]"))
        return b"".join(frames)

    def _delta(self, delta: str, finish: str | None = None) -> bytes:
        return _frame(
            f'{self._head},"choices":[{{"index":0,"delta":{delta},"logprobs":null,'
            f'"finish_reason":{json.dumps(finish)}}}]{self._tail}'
        )


def error_frame(error: dict[str, object]) -> bytes:
    """An error in the middle of a stream; OpenAI's clients raise it."""
    return _frame(_json({"error": error}))


def finish_reason(answer: Answer, document: AnswerDocument) -> str:
    """Why the model stopped, in OpenAI's words."""
    return "tool_calls" if document.tool_calls else _FINISH[answer.finish_reason]


def usage(spent: Usage) -> dict[str, Any]:
    """Everything the request consumed, calls that failed included."""
    prompt = spent.input_tokens + spent.cache_read_tokens + spent.cache_write_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": spent.output_tokens,
        "total_tokens": spent.total_tokens,
        "prompt_tokens_details": {"cached_tokens": spent.cache_read_tokens},
    }


def no_answer(execution: Execution) -> Problem:
    """Why there is no answer, or none yet. Clients are told not to try again: they would pay for a second request."""
    status, slug, detail = _ENDINGS.get(execution.status, (410, "content-missing", "The answer is no longer stored."))
    reason = execution.answer.reason if execution.answer and execution.answer.reason else detail
    request_id = execution.request_id
    remedy = {
        Status.WAITING: f"It is open at GET /v1/approvals; then read GET /v1/requests/{request_id}.",
        Status.RUNNING: f"Read it later: GET /v1/requests/{request_id}.",
    }.get(execution.status, f"GET /v1/requests/{request_id} tells more.")
    return _of_request(execution, status, slug, reason, remedy)


def restarted(execution: Execution) -> Problem:
    """A newer attempt writes another text than the one that the client has."""
    return _of_request(
        execution,
        502,
        "answer-restarted",
        "The model call was lost, and another one writes a different text.",
        f"Discard the text; the answer will be at GET /v1/requests/{execution.request_id}.",
    )


def stopping(execution: Execution) -> Problem:
    """The server goes away before the answer is there."""
    return _of_request(
        execution,
        503,
        "gateway-stopping",
        "The gateway is about to stop; the request goes on.",
        f"Read GET /v1/requests/{execution.request_id}, or send the same body again under the same Idempotency-Key.",
    )


def _of_request(execution: Execution, status: int, slug: str, detail: str, remedy: str) -> Problem:
    return Problem(
        status,
        slug,
        "No answer",
        detail,
        remedy=remedy,
        headers={"X-Should-Retry": "false", REQUEST_ID: execution.request_id},
        extra={"request_id": execution.request_id},
    )


def _head(execution: Execution, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{execution.request_id}",
        "object": kind,
        "created": int(execution.submitted_at.timestamp()),
        "model": execution.agent,
    }


def _tool_calls(document: AnswerDocument) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in document.tool_calls
    ]


def _beside(execution: Execution, answer: Answer, document: AnswerDocument) -> dict[str, Any]:
    """What OpenAI's form has no place for; its clients pass over it."""
    cost = answer.usage.cost_usd
    return {
        "request_id": execution.request_id,
        "recalled": answer.recalled,
        "deployment": answer.deployment,
        "attempts": answer.attempts,
        "cost_usd": None if cost is None else format(cost, "f"),
        "decided_by": answer.decided_by,
        "citations": [citation.model_dump(mode="json") for citation in document.citations],
    }


def _frame(data: str) -> bytes:
    return f"data: {data}\n\n".encode("utf-8", "replace")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
