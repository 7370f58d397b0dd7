"""A team that would never end, or go too deep, is refused when the configuration is read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contracts import MAX_DEPTH
from holdfast.errors import ConfigurationError
from holdfast.teams import check_teams

HERE = Path("config/agents")


def test_a_tree_and_a_shared_delegate_are_fine() -> None:
    check_teams({"lead": ("a", "b"), "a": ("c",), "b": ("c",), "c": ()}, HERE)


def test_a_name_that_no_file_defines_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"agents/lead.toml: `delegates` names 'slq'.*Did you mean 'sql'"):
        check_teams({"lead": ("slq",), "sql": ()}, HERE)


@pytest.mark.parametrize("circle", [{"a": ("a",)}, {"a": ("b",), "b": ("c",), "c": ("a",)}])
def test_a_circle_is_shown_whole(circle: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ConfigurationError, match=r"closes a circle, a -> .*a, in which work would never end"):
        check_teams(circle, HERE)


def test_a_chain_longer_than_a_run_admits_is_refused() -> None:
    names = [f"a{number}" for number in range(MAX_DEPTH + 1)]
    chain = {name: tuple(names[at + 1 : at + 2]) for at, name in enumerate(names)}
    with pytest.raises(ConfigurationError, match=rf"a0.toml.*chain of {MAX_DEPTH + 1} agents, and a run admits"):
        check_teams(chain, HERE)
    check_teams({name: listed for name, listed in chain.items() if name != "a0"}, HERE)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_whatever_is_accepted_ends(listed: dict[str, list[str]]) -> None:
    delegates = {name: tuple(listed.get(name, ())) for name in "abcdef"}
    try:
        check_teams(delegates, HERE)
    except ConfigurationError:
        return
    at_work = set(delegates)
    for _ in range(MAX_DEPTH):
        at_work = {below for name in at_work for below in delegates[name]}
    assert not at_work, "somebody still hands work on after the longest chain"
