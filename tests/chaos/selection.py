"""Which of many kills every run of the tests makes, and which only `make chaos` does."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import pytest

CaseT = TypeVar("CaseT")


def cases(every: Sequence[CaseT], often: Collection[str], *, name: Callable[[CaseT], str]) -> list[object]:
    """The cases as parameters; those that are not named in `often` are marked `thorough`.

    Args:
        every: All of them.
        often: Names of those that every run makes: one for each way in which work can be lost or done twice.
        name: What a case is called.
    """
    names = [name(case) for case in every]
    if unknown := set(often) - set(names):
        raise ValueError(f"No case is called {sorted(unknown)[0]!r}.")
    return [
        pytest.param(case, id=called, marks=() if called in often else pytest.mark.thorough)
        for case, called in zip(every, names, strict=True)
    ]
