"""What a question shows of its difficulty on the surface; beside the embedding, the classifier's input.

English words only: in other languages the embedding and the language-free features (length, code, figures) remain.
"""

import math
import re

import numpy as np
from numpy.typing import NDArray

FEATURES = (
    "characters",
    "sentences",
    "clauses",
    "code",
    "figures",
    "symbols",
    "reasoning",
    "making",
    "trade_offs",
    "conditions",
    "steps",
    "asks_why_or_how",
    "asks_for_a_fact",
    "asks_yes_or_no",
    "small_service",
    "technical",
    "questions",
)
"""In the order of the vector; a change needs new weights."""

_HEAD, _TAIL = 700, 300
"""Characters looked at: what is asked stands at the start or at the end, and a pasted document in between."""

_WORD = re.compile(r"[a-z']+")
_CODE = re.compile(r"```|`[^`]+`|[{}();]\s*$|\b(?:def|class|return|select|import|const|async)\b.*[(:;=]", re.MULTILINE)
_FIGURE = re.compile(r"\d+(?:[.,]\d+)*")
_SYMBOL = re.compile(r"[=<>^+*/\\|\[\]]")
_NUMBERED = re.compile(r"(?:^|\s)\d[.)]\s")
_FACT = re.compile(r"\b(?:what is|what's|what are|who|when|where|which|how (?:many|much|old|long|far|big)|what \w+)\b")
_WHY = re.compile(r"\b(?:why|how (?:would|should|could|can|does|do|did))\b")
_YES_NO = re.compile(r"(?:is|are|do|does|did|can|could|may|has|have|will|was|were)\b")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_REASONING = _words(
    "prove proof derive show explain analyse analyze evaluate assess interpret infer deduce determine diagnose debug "
    "investigate argue discuss justify critique reason reasons reasoning critically cause causes implications imply "
    "mechanism counterexample simulate trace estimate forecast predict reconcile compute solve find formalise formalize"
)
_MAKING = _words(
    "design implement build develop create plan draft architect model formulate construct devise refactor optimise "
    "optimize compose outline propose decompose prioritise prioritize migrate schedule strategy algorithm essay"
)
_TRADE_OFFS = _words(
    "compare comparison versus vs trade-off trade-offs tradeoffs offs better best worse weigh rank recommend choose "
    "decide between against alternatives options pros cons risks both sides objection prefer"
)
_CONDITIONS = _words(
    "if given suppose assuming assume constraint constraints must without under unless at least most so such when "
    "exactly only within limit budget"
)
_SMALL_SERVICE = _words(
    "translate spell define synonym antonym convert typo typos capitalise capitalize lowercase extract rename shorten "
    "hello hi thanks cancel reset password unsubscribe remind confirm address invoice order opening number name list "
    "show send change round count"
)
_CLAUSES = _words("and that which who because while whether")
_STEPS = _words("first second third then next finally afterwards after including cover each every step")
_TECHNICAL = _words(
    "algorithm architecture database schema distributed latency concurrency protocol equation probability theorem "
    "regression statistical integral matrix compiler kubernetes cluster cache query index encryption migration "
    "complexity gradient equilibrium liability clause compliance hypothesis variance consensus transaction lock thread"
)


def features(text: str) -> NDArray[np.float32]:
    """Measure a question.

    Args:
        text: As the user wrote it; only its beginning and end are looked at when it is long.

    Returns:
        `(17,)` float32 in the order of `FEATURES`, not scaled.
    """
    seen = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    folded = seen.casefold().strip()
    words = _WORD.findall(folded)
    counts = (
        math.log1p(len(text)),
        math.log1p(sum(map(folded.count, (". ", "? ", "! ", "\n"))) + 1),
        math.log1p(sum(map(folded.count, ",;:")) + _count(words, _CLAUSES)),
        math.log1p(len(_CODE.findall(folded))),
        math.log1p(len(_FIGURE.findall(folded))),
        math.log1p(len(_SYMBOL.findall(folded))),
        _weight(words, _REASONING),
        _weight(words, _MAKING),
        _weight(words, _TRADE_OFFS),
        _weight(words, _CONDITIONS),
        math.log1p(_count(words, _STEPS) + len(_NUMBERED.findall(folded))),
        float(bool(_WHY.search(folded))),
        float(bool(_FACT.search(folded))),
        float(bool(_YES_NO.match(folded))),
        _weight(words, _SMALL_SERVICE),
        _weight(words, _TECHNICAL),
        math.log1p(folded.count("?")),
    )
    return np.array(counts, np.float32)


def _weight(words: list[str], listed: frozenset[str]) -> float:
    return math.log1p(_count(words, listed))


def _count(words: list[str], listed: frozenset[str]) -> int:
    return sum(map(listed.__contains__, words))
