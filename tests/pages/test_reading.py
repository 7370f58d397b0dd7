"""How texts are taken apart for reading: nothing of them is lost, and both sides of the wire say the same."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pages.payload import MOST_NODES, headline, node_of, segments
from gateway.pages.rendering import money, span
from gateway.pages.run_sheet import timeline
from holdfast.contracts import Event, EventKind
from tests.pages.browsers import Window
from tests.pages.staged import Stage

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
PROSE = st.text(st.sampled_from("ab [],;0129`\n") | st.characters(codec="utf-8"), max_size=60)


@given(PROSE, st.sets(st.integers(0, 20)))
def test_a_text_cut_at_its_citations_is_the_same_text(text: str, markers: set[int]) -> None:
    cut = segments(text, markers)
    assert "".join(segment.text for segment in cut) == text
    assert {segment.marker for segment in cut if segment.marker is not None} <= markers


@given(st.lists(JSON) | st.dictionaries(st.text(), JSON))
def test_a_tree_is_written_as_the_same_json(value: Any) -> None:
    node = node_of(json.dumps(value))
    assert node is not None
    assert json.loads(node.written()) == value


@given(st.text())
def test_what_is_no_json_is_no_tree(text: str) -> None:
    node = node_of(text)
    try:
        assert (node is not None) is isinstance(json.loads(text), list | dict)
    except ValueError:
        assert node is None


def test_numbers_and_double_names_are_kept_as_they_are_written() -> None:
    node = node_of('{"a": 1.10, "a": 1e400, "b": 12345678901234567890}')
    assert node is not None
    assert node.written() == '{\n  "a": 1.10,\n  "a": 1e400,\n  "b": 12345678901234567890\n}'


@pytest.mark.parametrize("text", ["[" * 5_000 + "]" * 5_000, json.dumps([0] * (MOST_NODES + 1)), '{"a": NaN}'])
def test_what_would_be_too_much_to_read_as_a_tree_is_shown_as_text(text: str) -> None:
    assert node_of(text) is None


@given(st.text())
def test_a_headline_is_one_short_line(text: str) -> None:
    line = headline(text, 40)
    assert len(line) <= 40
    assert len(line.splitlines()) <= 1


def test_a_steps_start_and_end_are_one_line_of_the_timeline() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    told = [
        (EventKind.STEP_STARTED, "generate"),
        (EventKind.STEP_FAILED, "generate"),
        (EventKind.STEP_STARTED, "generate"),
        (EventKind.TOOL_STARTED, "refund"),
        (EventKind.STEP_FINISHED, "generate"),
        (EventKind.APPROVAL_OPENED, "approve"),
        (EventKind.TOOL_FAILED, "refund"),
        (EventKind.FINISHED, "completed"),
    ]
    events = [Event(sequence=n, kind=kind, name=name, summary=str(n), at=at) for n, (kind, name) in enumerate(told, 1)]
    entries = [(entry.kind, entry.name, entry.summary) for entry in timeline(events)]
    assert entries == [
        ("failed", "generate", "2"),
        ("done", "generate", "5"),
        ("failed", "refund", "7"),
        ("people", "approve", "6"),
        ("end", "completed", "8"),
    ]


async def test_the_browser_words_time_as_the_server_does(stage: Stage, shown: Window) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    seconds = [0, 4, 5, 59, 60, 61, 3599, 3600, 3660, 7200, 86_399, 86_400, 90_000, 172_800, 604_800, 700_000]
    both = [*seconds, *(-second for second in seconds)]
    await shown.goto("/inbox/login")
    said = await shown.page.evaluate(
        """async (both) => { const { span } = await import("/static/time.js");
                             return both.map((second) => span(second * 1000, 0)); }""",
        both,
    )
    assert said == [span(now + timedelta(seconds=second), now) for second in both]


PAIRS = [
    ("", ""),
    ("", "one"),
    ("one", ""),
    ("a b c", "a x c"),
    ("a b c d e", "e d c b a"),
    ("line 1\nline 2\nline 3\n", "line 1\nline two\nline 3"),
    ("\n".join(f"line {n}" for n in range(400)), "\n".join(f"line {n * 2}" for n in range(400))),
    ("word " * 5_000, "word " * 4_000 + "other " * 1_000),
    ("<b>bold</b> & more", "<i>bold</i> & less"),
    ("e\u0301 \U0001f600 ü", "é \U0001f601 u"),
]


@pytest.mark.parametrize(("before", "after"), PAIRS)
async def test_a_comparison_holds_both_texts_whole(stage: Stage, shown: Window, before: str, after: str) -> None:
    await shown.goto("/inbox/login")
    old, new, html = await shown.page.evaluate(
        """async ([before, after]) => {
             const { compare, showChanges } = await import("/static/diff.js");
             const parts = compare([...before], [...after].slice(0, 2000));
             const text = (kinds) =>
               parts.filter(([kind]) => kinds.includes(kind)).flatMap(([, items]) => items).join("");
             const place = document.createElement("div");
             showChanges(place, before, after);
             for (const skipped of place.querySelectorAll(".skipped")) skipped.remove();
             return [text(["same", "del"]), text(["same", "ins"]), place.querySelectorAll(":not(ins, del)").length];
           }""",
        [before, after],
    )
    assert (old, new) == (before, "".join(list(after)[:2000]))
    assert html == 0


@given(st.decimals("1e-12", 1, allow_nan=False, allow_infinity=False))
def test_money_is_never_told_as_none_when_it_is_some(amount: Decimal) -> None:
    told = Decimal(money(amount).removeprefix("$"))
    assert told > 0
    assert abs(told - amount) <= max(amount / 10, Decimal("0.00005"))
    assert abs(told - amount) <= amount / 2
