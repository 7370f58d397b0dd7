"""The provider's prompt cache: which tokens of a prompt are read from it, and which are written to it.

Prefixes are known by digest and never expire before a reset; the least recently used make room for new ones.
"""

from collections import OrderedDict
from hashlib import blake2b

from simulator.model_request import ModelRequest
from simulator.prices import Prompt

MOST_PREFIXES = 100_000
_LOOKBACK = 20
"""Blocks before a breakpoint at which an earlier prefix is still found (Anthropic documentation, "Prompt caching")."""


class PromptCache:
    """The prefixes seen so far."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def reset(self) -> None:
        """Forget every prefix."""
        self._seen.clear()

    def split(self, request: ModelRequest, minimum: int, *, charges_writes: bool) -> Prompt:
        """Split a prompt's tokens, and keep its prefixes.

        Args:
            request: The prompt.
            minimum: Tokens of the shortest prefix that is kept.
            charges_writes: Whether tokens written to the cache are a kind of their own (Anthropic) or plain input.
        """
        last = max((number for number, segment in enumerate(request.segments) if segment.breakpoint), default=-1)
        if last < 0 or request.prompt_tokens < minimum:
            return Prompt(request.prompt_tokens)
        prefixes = self._prefixes(request, last)
        written, read, nearest = prefixes[-1][1], 0, last
        for number in range(last, -1, -1):
            digest, tokens = prefixes[number]
            if tokens < minimum:
                break
            nearest = number if request.segments[number].breakpoint else nearest
            if not read and nearest - number <= _LOOKBACK and digest in self._seen:
                read = tokens
            if nearest == number:
                self._keep(digest)
        if not charges_writes or written < minimum:
            return Prompt(request.prompt_tokens - read, read)
        return Prompt(request.prompt_tokens - written, read, written - read)

    def _prefixes(self, request: ModelRequest, last: int) -> list[tuple[bytes, int]]:
        """Digest and tokens of the prefix that ends with each segment, up to the last breakpoint."""
        running = blake2b(f"{request.model}\0{request.cache_key}".encode("utf-8", "surrogatepass"), digest_size=16)
        prefixes, tokens = [], 0
        for segment in request.segments[: last + 1]:
            # The length keeps two segments from being read as one.
            running.update(f"\0{len(segment.content)}\0{segment.content}".encode("utf-8", "surrogatepass"))
            tokens += segment.tokens
            prefixes.append((running.digest(), tokens))
        return prefixes

    def _keep(self, digest: bytes) -> None:
        self._seen[digest] = None
        self._seen.move_to_end(digest)
        if len(self._seen) > MOST_PREFIXES:
            self._seen.popitem(last=False)
