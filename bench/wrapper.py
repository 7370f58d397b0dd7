"""What people write instead: a model call through httpx, and the same with passages stuffed into the prompt.

`ask` retries as OpenAI's own client does by default, twice, and only before the answer has begun. It speaks to
whatever is OpenAI-compatible, so the same lines, pointed at Holdfast, are its client in these measurements.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Sequence

import httpx
import numpy as np

from bench.stack import PROMPT


class Broken(Exception):
    """The answer ended before its end, or in an error."""


async def ask(
    http: httpx.AsyncClient,
    base_url: str,
    model: str,
    question: str,
    *,
    system: str = "",
    key: str = "none",
    max_tokens: int = 1_024,
) -> AsyncGenerator[str, None]:
    """Yield an answer as it is written; ends normally only if it is complete."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    body = {"model": model, "messages": messages, "stream": True, "max_completion_tokens": max_tokens}
    for wait in (0.5, 1.0, None):
        async with http.stream(
            "POST", f"{base_url}/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}
        ) as reply:
            if reply.status_code == 200:
                async for line in reply.aiter_lines():
                    if line == "data: [DONE]":
                        return
                    if line.startswith("data: "):
                        chunk = json.loads(line[6:])
                        if "error" in chunk:
                            raise Broken(str(chunk["error"].get("code")))
                        for choice in chunk["choices"]:
                            if text := choice["delta"].get("content"):
                                yield text
                raise Broken("no end")
            again = reply.status_code in (408, 409, 429) or reply.status_code >= 500
            if wait is None or not again or reply.headers.get("x-should-retry") == "false":
                reply.raise_for_status()
            else:
                wait = float(reply.headers.get("retry-after", wait))
        await asyncio.sleep(wait or 0)


class NaiveRetrieval:
    """Passages by brute force: bags of words, cosine over all of them for every question.

    Args:
        texts: The passages.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._words = {word: number for number, word in enumerate(sorted({w for text in texts for w in _words(text)}))}
        self._vectors = np.stack([self._vector(text) for text in texts])

    def context(self, question: str, passages: int = 6) -> str:
        """The nearest passages, as they are put behind the instructions."""
        scores = self._vectors @ self._vector(question)
        nearest = np.argsort(-scores)[:passages]
        return f"{PROMPT}\n\nUse this context:\n\n" + "\n---\n".join(self._texts[number] for number in nearest)

    def _vector(self, text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        vector = np.zeros(len(self._words), dtype=np.float32)
        for word, count in Counter(_words(text)).items():
            if (place := self._words.get(word)) is not None:
                vector[place] = count
        length = float(np.linalg.norm(vector))
        return vector / length if length else vector


def _words(text: str) -> list[str]:
    return re.findall(r"\w{3,}", text.lower())
