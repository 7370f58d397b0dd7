"""The HTTP of batch APIs: requests whose failures are classified, and what the adapters have alike."""

import json
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from holdfast.errors import Outcome, ProviderError
from holdfast.providers.batch import BatchPhase, BatchProvider, BatchState, checked_id
from holdfast.providers.classify import classify, classify_transport
from holdfast.providers.endpoint import Endpoint
from holdfast.providers.http import MAX_ERROR_BYTES, MAX_RESPONSE_BYTES, EventResponse, TransportFailure, Upload
from holdfast.providers.pieces import mapping, text
from holdfast.providers.protocol import Timeouts

TIMEOUTS = Timeouts(first_token=timedelta(minutes=5), between_tokens=timedelta(minutes=1), total=timedelta(hours=1))
"""A file of 200 MB has to get through."""

MAX_RESULT_BYTES = 1024 * 1024 * 1024
"""Largest file of results accepted. It is read line by line."""

PAGE = 100
"""Batches in one page of a list."""

CLOCKS_APART = timedelta(minutes=10)
"""How much earlier than our clock says a provider may have made a batch."""

_MOST_PAGES = 100


@dataclass(frozen=True)
class BatchApi:
    """Requests to a batch API, failures classified."""

    endpoint: Endpoint

    async def object(
        self,
        method: Literal["GET", "POST"],
        url: str,
        subject: str,
        *,
        body: Mapping[str, Any] | None = None,
        upload: Upload | None = None,
    ) -> Mapping[str, Any]:
        """A JSON object.

        Args:
            method: How it is asked for.
            url: Whole address.
            subject: Id of the batch, for messages; a word for it before it has one.
            body: Sent as JSON.
            upload: Sent as a form.

        Raises:
            ProviderError: There was no such answer.
        """
        try:
            async with self.endpoint.client.request(
                method, url, headers=self.endpoint.headers(), body=body, upload=upload, timeouts=TIMEOUTS
            ) as response:
                raw = await response.read(MAX_RESPONSE_BYTES if response.status == 200 else MAX_ERROR_BYTES)
                if response.status != 200:
                    raise _refused(response, raw, subject)
        except TransportFailure as failure:
            raise _broken(failure, subject) from None
        if not (found := mapping(_parsed(raw))):
            raise ProviderError(
                f"Batch {subject!r}: the answer is not a JSON object; check the deployment's `base_url`.",
                outcome=Outcome.UNKNOWN,
                status=200,
            )
        return found

    async def pages(
        self, url: str, after: str, made_at: Callable[[Mapping[str, Any]], datetime | None], since: datetime
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """The batches of a list, newest first, back to a moment.

        Args:
            url: Whole address of the list.
            after: The parameter that asks for what follows an id.
            made_at: Reads when a batch was made.
            since: Older ones are not looked at.

        Raises:
            ProviderError: There was no such list.
        """
        cursor = ""
        for _ in range(_MOST_PAGES):
            more = f"&{after}={checked_id(cursor)}" if cursor else ""
            page = await self.object("GET", f"{url}?limit={PAGE}{more}", "list")
            data = page.get("data")
            found = [mapping(one) for one in data if mapping(one)] if isinstance(data, list) else []
            for one in found:
                made = made_at(one)
                if made is not None and made < since - CLOCKS_APART:
                    return
                yield one
            if not found or not page.get("has_more"):
                return
            cursor = text(found[-1].get("id"))

    async def lines(self, url: str, subject: str) -> AsyncGenerator[Mapping[str, Any], None]:
        """The JSON objects of a JSONL file; a line that is none is skipped.

        Raises:
            ProviderError: The file could not be read to its end.
        """
        try:
            async with self.endpoint.client.request(
                "GET", url, headers=self.endpoint.headers(), timeouts=TIMEOUTS, max_bytes=MAX_RESULT_BYTES
            ) as response:
                if response.status != 200:
                    raw = await response.read(MAX_ERROR_BYTES)
                    raise _refused(response, raw, subject)
                async for line in response.lines():
                    if found := mapping(_parsed(line)):
                        yield found
        except TransportFailure as failure:
            raise _broken(failure, subject) from None


class HttpBatches(BatchProvider):
    """What the batch APIs have alike: a batch has an address, where it is polled, and below which it is cancelled.

    Args:
        endpoint: The server.
        path: Where its batches are.
    """

    def __init__(self, endpoint: Endpoint, path: str) -> None:
        self._endpoint = endpoint
        self._batches = f"{endpoint.url}/{path}"
        self._api = BatchApi(endpoint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.url!r})"

    @abstractmethod
    def _state(self, given: Mapping[str, Any]) -> BatchState:
        """A batch as the API describes it."""

    async def poll(self, batch_id: str) -> BatchState:
        """See `BatchProvider.poll`."""
        return self._state(await self._api.object("GET", self._address(batch_id), batch_id))

    async def cancel(self, batch_id: str) -> None:
        """See `BatchProvider.cancel`."""
        try:
            await self._api.object("POST", f"{self._address(batch_id)}/cancel", batch_id, body={})
        except ProviderError:
            if (await self.poll(batch_id)).phase is BatchPhase.RUNNING:
                raise

    async def aclose(self) -> None:
        """Close the connections, unless the client is shared."""
        await self._endpoint.aclose()

    def _address(self, batch_id: str) -> str:
        return f"{self._batches}/{checked_id(batch_id)}"


def _refused(response: EventResponse, raw: bytes, subject: str) -> ProviderError:
    return classify(response.status, response.headers, raw, now=datetime.now(UTC), model=subject, subject="Batch")


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _broken(failure: TransportFailure, subject: str) -> ProviderError:
    # Whether the answer had begun is no matter here: nothing is generated while it is read.
    return classify_transport(failure.kind, sent=failure.sent, after_first_byte=False, model=subject, subject="Batch")
