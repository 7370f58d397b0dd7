"""One page over the network: redirects checked like the first URL, a body that is bounded however it comes.

The body is read as it was sent. If a server compresses although it was asked not to, the bytes are unpacked here in
steps, so that a small body that unpacks to a large one is noticed before it is large.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import httpx

from holdfast.addresses import CheckedTarget, Resolver, checked, pinned_client
from holdfast.errors import TargetRefused, ToolProblem, Unavailable
from holdfast.tools.fetch_text import media_type

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNPACK_STEP = 64 * 1024
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


@dataclass(frozen=True)
class Reach:
    """Where a fetch may go and how much it may bring."""

    hosts: Sequence[str]
    private_hosts: Sequence[str]
    schemes: Sequence[str]
    types: Sequence[str]
    max_bytes: int
    silence: timedelta
    """Longest wait for the next bytes."""
    resolve: Resolver


@dataclass(frozen=True)
class Fetched:
    """A page as it came."""

    url: str
    """After redirects."""
    content_type: str
    body: bytes


async def fetch(url: str, reach: Reach) -> Fetched:
    """Get a page.

    Raises:
        ToolProblem: It may not be asked for, or does not come; says why without repeating the URL.
    """
    redirects = 0
    while True:
        target = await _checked(url, reach, redirected=redirects > 0)
        found = await _ask(target, reach)
        if isinstance(found, Fetched):
            return found
        if redirects == MAX_REDIRECTS:
            raise ToolProblem(f"The page redirects more than {MAX_REDIRECTS} times.")
        redirects += 1
        url = found


async def _checked(url: str, reach: Reach, *, redirected: bool) -> CheckedTarget:
    try:
        return await checked(
            url,
            hosts=reach.hosts,
            private_hosts=reach.private_hosts,
            schemes=reach.schemes,
            resolve=reach.resolve,
        )
    except (TargetRefused, Unavailable) as error:
        where = "The page redirects to where this tool does not go: " if redirected else "The page was not asked for: "
        raise ToolProblem(f"{where}{error}.") from None


async def _ask(target: CheckedTarget, reach: Reach) -> Fetched | str:
    """The page, or where it redirects to."""
    headers = {"Accept": ", ".join(reach.types)}
    try:
        async with (
            pinned_client(target, timeout=reach.silence, headers=headers) as client,
            client.stream("GET", target.url) as response,
        ):
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return str(httpx.URL(target.url).join(response.headers["location"]))
            if response.status_code != 200:
                raise ToolProblem(f"The server answered with status {response.status_code} instead of a page.")
            body = await _body(response, reach)
            content_type = response.headers.get("content-type", "")
            _admit(content_type, reach, body)
            return Fetched(url=target.url, content_type=content_type, body=body)
    except httpx.InvalidURL:
        raise ToolProblem("The page redirects to a URL that cannot be read.") from None
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise ToolProblem("The server does not accept a connection, or not a secure one.") from None
    except httpx.TimeoutException:
        raise ToolProblem("The server fell silent before the page was complete.") from None
    except httpx.HTTPError:
        raise ToolProblem("The server broke off or sent something that is not HTTP.") from None


def _admit(content_type: str, reach: Reach, body: bytes = b"") -> None:
    kind, _ = media_type(content_type, body)
    if kind not in reach.types:
        raise ToolProblem(f"The page is not of a type that this tool reads, which are {', '.join(reach.types)}.")


async def _body(response: httpx.Response, reach: Reach) -> bytes:
    if content_type := response.headers.get("content-type", ""):
        _admit(content_type, reach)
    stated = response.headers.get("content-length", "")
    too_large = ToolProblem(f"The page is larger than {reach.max_bytes} bytes.")
    if stated.isdecimal() and int(stated[:20]) > reach.max_bytes:
        raise too_large
    codings = [coding.strip().lower() for coding in response.headers.get("content-encoding", "").split(",")]
    unpackers = [_Unpacker(coding) for coding in reversed(codings) if coding not in ("", "identity")]
    if len(unpackers) > 1:
        raise ToolProblem("The page is compressed more than once.")
    body = bytearray()
    received = 0
    async for chunk in response.aiter_raw():
        received += len(chunk)
        pieces = unpackers[0].pieces(chunk) if unpackers else (chunk,)
        for piece in pieces:
            body += piece
            if max(len(body), received) > reach.max_bytes:
                raise too_large
        if received > reach.max_bytes:
            raise too_large
    if unpackers and not unpackers[0].complete:
        raise ToolProblem("The page is compressed and incomplete.")
    return bytes(body)


class _Unpacker:
    """Unpacks gzip or deflate a step at a time."""

    def __init__(self, coding: str) -> None:
        if coding not in _WINDOWS:
            raise ToolProblem("The page is compressed in a way that this tool does not unpack.")
        self._coding = coding
        self._unpack = zlib.decompressobj(_WINDOWS[coding])
        self._begun = False

    @property
    def complete(self) -> bool:
        """Whether the end of the compressed data was seen."""
        return self._unpack.eof

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """What a chunk unpacks to, in pieces of bounded size."""
        data, more = chunk, not self._unpack.eof
        while more:
            try:
                piece = self._unpack.decompress(data, _UNPACK_STEP)
            except zlib.error:
                if self._begun or self._coding != "deflate":
                    raise ToolProblem("The page is compressed and damaged.") from None
                self._begun = True
                self._unpack = zlib.decompressobj(-zlib.MAX_WBITS)  # some servers leave the wrapping out
                continue
            self._begun = True
            yield piece
            data = self._unpack.unconsumed_tail
            # A full piece may have left some of its output behind although all of the input is taken.
            more = not self._unpack.eof and (bool(data) or len(piece) == _UNPACK_STEP)
