"""OpenAI's batch API: a file of calls up, a file of replies and a file of errors down.

Source: OpenAI API reference, "Batch" and "Files".
"""

import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from holdfast.errors import Outcome, ProviderError
from holdfast.providers.batch import (
    BatchLine,
    BatchPhase,
    BatchResult,
    BatchSearch,
    BatchState,
    check_lines,
    checked_id,
    read_reply,
    unprocessed,
    unreadable,
)
from holdfast.providers.batch_api import HttpBatches
from holdfast.providers.chat import ChatReply
from holdfast.providers.chat_request import MaxTokensField, request_body
from holdfast.providers.classify import classify
from holdfast.providers.endpoint import openai_endpoint
from holdfast.providers.flavours import FLAVOURS
from holdfast.providers.http import HttpStream, Upload
from holdfast.providers.pieces import count, mapping, text

MAX_LINES = 50_000
"""Most calls of one batch."""

_ENDPOINT = "/v1/chat/completions"
_NAME = "holdfast_submission"
"""Under which key of its metadata a batch has our name for it."""
_ENDED = frozenset({"completed", "expired", "cancelled"})
_UNPROCESSED = {"batch_expired": False, "batch_cancelled": True}
"""Codes of lines that were never processed, and whether that was asked for."""


def batch_file(lines: Sequence[BatchLine], max_tokens_field: MaxTokensField = "max_completion_tokens") -> bytes:
    """The JSONL file of a batch."""
    return b"".join(
        json.dumps(
            {
                "custom_id": custom_id,
                "method": "POST",
                "url": _ENDPOINT,
                "body": request_body(call, max_tokens_field, FLAVOURS["openai"], stream=False),
            },
            ensure_ascii=False,
        ).encode("utf-8", "replace")
        + b"\n"
        for custom_id, call in lines
    )


def read_state(given: Mapping[str, Any]) -> BatchState:
    """A `batch` object."""
    status, counts = text(given.get("status")), mapping(given.get("request_counts"))
    total, succeeded, failed = (count(counts.get(name)) or 0 for name in ("total", "completed", "failed"))
    phase = BatchPhase.ENDED if status in _ENDED else BatchPhase.RUNNING
    return BatchState(
        id=text(given.get("id")),
        phase=BatchPhase.REFUSED if status == "failed" else phase,
        total=total,
        succeeded=succeeded,
        failed=total - succeeded if phase is BatchPhase.ENDED else failed,
    )


def read_result(line: Mapping[str, Any]) -> tuple[str, BatchResult] | None:
    """A line of the output or error file; `None` when it cannot be told whose it is."""
    custom_id = text(line.get("custom_id"))
    if not custom_id:
        return None
    response, error = mapping(line.get("response")), mapping(line.get("error"))
    if not response and text(error.get("code")) in _UNPROCESSED:
        return custom_id, unprocessed(custom_id, cancelled=_UNPROCESSED[error["code"]])
    status, body = count(response.get("status_code")), response.get("body")
    if status == 200:
        return custom_id, read_reply(ChatReply(custom_id), body)
    told: Any = body if response else {"error": error}
    if not response and not error:
        return custom_id, unreadable(custom_id)
    parsed = told if isinstance(told, Mapping | list) else None
    failure: ProviderError = classify(status, {}, parsed, now=datetime.now(UTC), model=custom_id, subject="Line")
    return custom_id, failure


def _made_at(given: Mapping[str, Any]) -> datetime | None:
    seconds = count(given.get("created_at"))
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class OpenAIBatches(HttpBatches):
    """Batches of chat completions.

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
        super().__init__(openai_endpoint(base_url, api_key, client), "batches")
        self._max_tokens_field: MaxTokensField = max_tokens_field

    def _state(self, given: Mapping[str, Any]) -> BatchState:
        return read_state(given)

    async def submit(self, lines: Sequence[BatchLine], name: str = "") -> str:
        """See `BatchProvider.submit`."""
        check_lines(lines, MAX_LINES)
        file = batch_file(lines, self._max_tokens_field)
        upload = Upload("batch.jsonl", file, {"purpose": "batch"})
        try:
            uploaded = await self._api.object("POST", f"{self._endpoint.url}/files", "to be uploaded", upload=upload)
        except ProviderError as error:
            if error.outcome is not Outcome.UNKNOWN:
                raise
            # A file costs nothing, so even one that got there unseen is not billed.
            raise ProviderError(str(error), outcome=Outcome.NOT_SENT, status=error.status) from None
        wanted = {"input_file_id": uploaded.get("id"), "endpoint": _ENDPOINT, "completion_window": "24h"}
        wanted |= {"metadata": {_NAME: name}} if name else {}
        made = await self._api.object("POST", self._batches, "to be made", body=wanted)
        return checked_id(text(made.get("id")))

    async def find(self, name: str, custom_ids: Collection[str], since: datetime) -> BatchSearch:  # noqa: ARG002 - the name tells
        """See `BatchProvider.find`; the metadata has the name."""
        async with aclosing(self._api.pages(self._batches, "after", _made_at, since)) as batches:
            async for batch in batches:
                if mapping(batch.get("metadata")).get(_NAME) == name:
                    return BatchSearch(checked_id(text(batch.get("id"))))
        return BatchSearch()

    async def results(self, batch_id: str) -> AsyncGenerator[tuple[str, BatchResult], None]:
        """See `BatchProvider.results`."""
        batch = await self._api.object("GET", self._address(batch_id), batch_id)
        for name in ("output_file_id", "error_file_id"):
            if not (file_id := text(batch.get(name))):
                continue
            url = f"{self._endpoint.url}/files/{checked_id(file_id)}/content"
            async with aclosing(self._api.lines(url, batch_id)) as lines:
                async for line in lines:
                    if (result := read_result(line)) is not None:
                        yield result
