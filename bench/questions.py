"""A thousand questions to a help desk, drawn with a fixed seed from the labelled sentences that routing is measured on.

Three kinds that do not overlap, in any proportion: repetitions of popular questions, word for word; new simple ones;
new hard ones. Of the simple ones two fifths are wordings of eight well-known matters, for which an agent may have a
handler. No sentence trained or calibrated the complexity classifier, and no wording of a matter is among the examples
that the agent is given. Sentences are made distinct by salutations and closings, as people write them.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from typing import Literal

Kind = Literal["repeated", "known", "simple", "hard"]

POPULAR = 30
"""Questions that are asked again and again; half of them simple."""
KNOWN_SHARE = 0.4
"""Of the simple questions."""
_TAUGHT = 5
"""Of the ten test wordings of a matter, those that are added to the agent's examples."""

_OPENINGS = ("", "Hello, ", "Hi! ", "Good morning, ", "Dear team, ", "One question: ", "Hey, ", "Please tell me: ")
_CLOSINGS = ("", " Thanks!", " Thank you.", " Best regards", " Many thanks in advance.", " Cheers", " Regards, Kim")


@dataclass(frozen=True)
class Asked:
    """One question of the mix."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Mix:
    """What is asked.

    `popular` has been asked and answered once before; `asked` is in the order of arrival.
    """

    popular: tuple[str, ...]
    asked: tuple[Asked, ...]


def mix(requests: int, *, repeated: float = 0.3, simple: float = 0.5, seed: int = 1) -> Mix:
    """Draw a mix.

    Args:
        requests: How many.
        repeated: Share of them that repeat a popular question.
        simple: Share of them that are new and simple; the rest is new and hard.
        seed: Of the draw.
    """
    draw = random.Random(seed)
    simple_texts, hard_texts = _variants(_labelled("simple"), draw), _variants(_labelled("complex"), draw)
    known_texts = _variants(_wordings()[1], draw)
    popular = [next(simple_texts) for _ in range(POPULAR // 2)] + [next(hard_texts) for _ in range(POPULAR // 2)]
    repeats, new_simple = round(requests * repeated), round(requests * simple)
    known = round(new_simple * KNOWN_SHARE)
    asked = [Asked("repeated", draw.choice(popular)) for _ in range(repeats)]
    asked += [Asked("known", next(known_texts)) for _ in range(known)]
    asked += [Asked("simple", next(simple_texts)) for _ in range(new_simple - known)]
    asked += [Asked("hard", next(hard_texts)) for _ in range(requests - repeats - new_simple)]
    draw.shuffle(asked)
    return Mix(tuple(popular), tuple(asked))


def intents() -> dict[str, list[str]]:
    """Examples of every matter, as an agent lists them."""
    return _wordings()[0]


def _wordings() -> tuple[dict[str, list[str]], list[str]]:
    """The examples by matter, and the wordings that no example shows."""
    examples: dict[str, list[str]] = {}
    matches: dict[str, list[str]] = {}
    for row in _rows("intents.jsonl"):
        if row["role"] in ("example", "match"):
            (examples if row["role"] == "example" else matches).setdefault(row["intent"], []).append(row["text"])
    taught = {matter: [*texts, *matches[matter][:_TAUGHT]] for matter, texts in examples.items()}
    return taught, [text for texts in matches.values() for text in texts[_TAUGHT:]]


def _labelled(label: str) -> list[str]:
    rows = _rows("complexity.jsonl")
    return [row["text"] for row in rows if row["label"] == label and row["split"] == "test"]


def _variants(texts: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Every text once in each dress, the plain ones first, in random order."""
    dresses = sorted(product(_OPENINGS, _CLOSINGS), key=lambda dress: len(dress[0]) + len(dress[1]) > 0)
    for opening, closing in dresses:
        for text in draw.sample(texts, len(texts)):
            yield f"{opening}{text}{closing}"


def _rows(name: str) -> list[dict[str, str]]:
    stored = files("holdfast").joinpath(f"data/routing/{name}").read_text(encoding="utf-8")
    return [json.loads(line) for line in stored.splitlines()]
