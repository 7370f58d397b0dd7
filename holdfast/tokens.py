"""Token counts with tiktoken, offline from the rank files in this package."""

import os
from functools import lru_cache
from importlib.resources import as_file, files

import tiktoken

MESSAGE_OVERHEAD_TOKENS = 4
"""Tokens that framing adds to each chat message (OpenAI cookbook, "How to count tokens with tiktoken", 3 to 4)."""

TOKENIZER_MARGIN = 1.25
"""The hold counts with one tokenizer, the provider bills with its own; a quarter more covers the common ones."""


@lru_cache(maxsize=4)
def encoding(name: str = "o200k_base") -> tiktoken.Encoding:
    """Load an encoding from the vendored ranks.

    Raises:
        ValueError: `name` is not an encoding tiktoken knows.
    """
    with as_file(files("holdfast") / "data" / "tiktoken") as ranks:
        before = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(ranks)
        try:
            return tiktoken.get_encoding(name)
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before


def count_tokens(text: str) -> int:
    """Tokens of a text under `o200k_base`; special-token look-alikes are counted as plain text."""
    return len(encoding().encode_ordinary(text))


def count_message_tokens(contents: list[str]) -> int:
    """Tokens of a chat prompt: the messages' contents plus framing, rounded up."""
    return sum(count_tokens(content) + MESSAGE_OVERHEAD_TOKENS for content in contents) + MESSAGE_OVERHEAD_TOKENS
