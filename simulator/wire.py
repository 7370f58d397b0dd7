"""What a wire format has to do; everything else about a call is the same in all of them."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

from simulator.behaviour import Behaviour
from simulator.errors import ApiError
from simulator.model_request import ModelRequest, invalid
from simulator.prices import Prompt
from simulator.rate_limits import Report
from simulator.replies import Reply

WireName = Literal["openai", "anthropic"]


class Rendering(Protocol):
    """One reply, written in a wire format."""

    def body(self) -> dict[str, Any]:
        """The reply as one response body."""
        ...

    def opening(self) -> bytes:
        """Events before the first token."""
        ...

    def deltas(self, size: int) -> Iterator[tuple[bytes, int]]:
        """Events of at most `size` tokens each, with their number of tokens."""
        ...

    def malformed(self) -> bytes:
        """An event that is not JSON."""
        ...

    def failure(self, error: ApiError) -> bytes:
        """An event that ends the stream with an error."""
        ...

    def closing(self) -> bytes:
        """Events after the last token."""
        ...


class Wire(Protocol):
    """A wire format."""

    @property
    def name(self) -> WireName:
        """Its name in the log of calls."""
        ...

    @property
    def request_id_header(self) -> str:
        """The response header that carries the request's id."""
        ...

    @property
    def charges_cache_writes(self) -> bool:
        """Whether tokens written to the prompt cache are a kind of their own on the bill."""
        ...

    def new_id(self) -> str:
        """An id for a reply."""
        ...

    def check_headers(self, header: Callable[[str], str | None]) -> None:
        """Check the request's headers.

        Raises:
            ApiError: One is missing or wrong.
        """
        ...

    def read(self, given: Mapping[str, Any]) -> ModelRequest:
        """Read a request.

        Raises:
            ApiError: 400, naming the parameter.
        """
        ...

    def limit_headers(self, report: Report) -> dict[str, str]:
        """The response headers that report the rate limits."""
        ...

    def error(self, error: ApiError, request_id: str | None) -> Any:
        """The body of an error."""
        ...

    def render(self, id: str, request: ModelRequest, reply: Reply, prompt: Prompt, behaviour: Behaviour) -> Rendering:
        """Write a reply."""
        ...


def read_object(body: bytes) -> dict[str, Any]:
    """Read a request body that is a JSON object.

    Raises:
        ApiError: 400.
    """
    try:
        given = json.loads(body)
    except ValueError as error:
        raise invalid("The request body is not JSON.", None) from error
    if not isinstance(given, dict):
        raise invalid("The request body is not a JSON object.", None)
    return given
