"""What an approval promises: one decision, by someone entitled, in time, on what was shown."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import approval
from holdfast.contracts import Approval, ApprovalRule, ContentRef, Decision, DecisionKind
from holdfast.errors import DecisionRefused

OPENED = datetime(2026, 3, 1, 9, tzinfo=UTC)
SHOWN = ContentRef(sha256="a" * 64, size=10)
EDITED = ContentRef(sha256="b" * 64, size=11)


def opened(**rule: object) -> approval.ApprovalState:
    terms = ApprovalRule.model_validate({"approvers": ("ann", "bob"), "within": timedelta(hours=4)} | rule)
    return approval.ApprovalState(
        Approval(
            request_id="req_00000001",
            content=SHOWN,
            rule=terms,
            requested_by="bob",
            opened_at=OPENED,
            deadline=OPENED + terms.within,
        )
    )


def says(kind: str, actor: str = "ann", content: ContentRef = SHOWN, **more: object) -> Decision:
    return Decision.model_validate(
        {
            "decision": kind,
            "actor": actor,
            "content_sha256": content.sha256,
            "payload": EDITED if kind == "edit" else None,
        }
        | more
    )


@pytest.mark.parametrize(
    ("decision", "minutes", "code"),
    [
        (says("approve", actor="eve"), 1, "not_named"),
        (says("approve", actor="bob"), 1, "own_request"),
        (says("approve", content=EDITED), 1, "other_content"),
        (says("approve"), 240, "too_late"),
        (says("edit", payload=None), 1, "no_payload"),
        (says("edit", payload=None, payload_text=" \n"), 1, "no_payload"),
    ],
)
def test_a_decision_outside_the_rule_is_refused_and_changes_nothing(
    decision: Decision, minutes: int, code: str
) -> None:
    state = opened()
    with pytest.raises(DecisionRefused) as refused:
        approval.step(state, approval.Decided(decision, OPENED + timedelta(minutes=minutes)))
    assert refused.value.code == code
    assert state.receipt is None


def test_a_decision_is_final() -> None:
    state, _ = approval.step(opened(), approval.Decided(says("reject", reason="wrong"), OPENED))
    problem = approval.refusal(state, says("approve"), OPENED)
    assert problem is not None
    assert problem.code == "already_decided"
    assert "ann" in str(problem)


def test_nothing_can_be_decided_when_nothing_is_open() -> None:
    problem = approval.refusal(None, says("approve"), OPENED)
    assert problem is not None
    assert problem.code == "not_open"


def test_an_edit_releases_the_edited_text_only() -> None:
    state, commands = approval.step(opened(), approval.Decided(says("edit"), OPENED, EDITED))
    assert commands == (approval.Release(EDITED, "ann"),)
    assert state.receipt is not None
    assert state.receipt.content_sha256 == EDITED.sha256


@pytest.mark.parametrize(("default", "kind"), [("reject", approval.Withhold), ("approve", approval.Release)])
def test_the_deadline_takes_the_default_of_the_rule(default: str, kind: type) -> None:
    state, (command,) = approval.step(opened(default=default), approval.DeadlinePassed(OPENED + timedelta(hours=4)))
    assert isinstance(command, kind)
    assert state.receipt is not None
    assert state.receipt.actor == approval.NOBODY


def test_the_requester_may_decide_only_where_the_rule_says_so() -> None:
    _, commands = approval.step(
        opened(requester_may_decide=True), approval.Decided(says("approve", actor="bob"), OPENED)
    )
    assert commands == (approval.Release(SHOWN, "bob"),)


ticks = st.one_of(
    st.builds(
        approval.Decided,
        st.builds(
            says,
            st.sampled_from(["approve", "edit", "reject"]),
            st.sampled_from(["ann", "bob", "eve", "cid"]),
            st.sampled_from([SHOWN, EDITED]),
        ),
        st.integers(0, 300).map(lambda minutes: OPENED + timedelta(minutes=minutes)),
        st.sampled_from([None, EDITED]),
    ),
    st.just(approval.DeadlinePassed(OPENED + timedelta(hours=4))),
)


@given(st.lists(ticks, max_size=12), st.booleans())
def test_exactly_one_verdict_comes_of_any_sequence(sequence: list[approval.ApprovalTick], requester: bool) -> None:
    state = opened(requester_may_decide=requester)
    verdicts: list[approval.ApprovalCommand] = []
    for tick in sequence:
        try:
            state, commands = approval.step(state, tick)
        except DecisionRefused:
            continue
        verdicts += commands
        if isinstance(tick, approval.Decided) and commands:
            assert tick.decision.actor in ("ann", "bob")
            assert tick.decision.actor != "bob" or requester
            assert tick.decision.content_sha256 == SHOWN.sha256
            assert tick.at < OPENED + timedelta(hours=4)
            released = [c for c in commands if isinstance(c, approval.Release)]
            assert bool(released) == (tick.decision.decision is not DecisionKind.REJECT)
    assert len(verdicts) <= 1
    assert (state.receipt is not None) == bool(verdicts)
