"""What an approval promises: decided by as many people as the rule asks, each entitled, in time, on what was shown."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import approval
from holdfast.contracts import Approval, ApprovalRule, ContentRef, Decision, EscalationStage, Vote
from holdfast.errors import DecisionRefused

OPENED = datetime(2026, 3, 1, 9, tzinfo=UTC)
UNTIL = OPENED + timedelta(days=2)
SHOWN = ContentRef(sha256="a" * 64, size=10)
EDITED = ContentRef(sha256="b" * 64, size=11)
OTHER = ContentRef(sha256="c" * 64, size=12)


def at(**span: float) -> datetime:
    return OPENED + timedelta(**span)


def opened(*, kind: str = "output", until: datetime = UNTIL, **rule: object) -> approval.ApprovalState:
    terms = ApprovalRule.model_validate({"approvers": ("ann", "bob"), "within": timedelta(hours=4)} | rule)
    return approval.ask(
        Approval.model_validate(
            {
                "request_id": "req_00000001",
                "content": SHOWN,
                "rule": terms,
                "requested_by": "bob",
                "opened_at": OPENED,
                "deadline": OPENED,
                "kind": kind,
            }
        ),
        until,
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


def take(
    state: approval.ApprovalState, decision: Decision, edited: ContentRef | None = None, **span: float
) -> tuple[approval.ApprovalState, approval.Verdict | None]:
    state, _ = approval.step(state, approval.Decided(decision, at(**span), edited))
    return state, state.verdict


def happenings(commands: tuple[approval.ApprovalCommand, ...]) -> list[str]:
    return [command.happening for command in commands if isinstance(command, approval.Happened)]


def code(state: approval.ApprovalState, decision: Decision, **span: float) -> str | None:
    problem = approval.refusal(state, decision, at(**span))
    return problem.code if problem else None


TWO: dict[str, Any] = {"approvers": ("ann", "bob", "cid"), "quorum": 2, "requester_may_decide": True}
CHAIN: dict[str, Any] = {"escalation": (EscalationStage(approvers=("boss",), within=timedelta(hours=2)),)}


@pytest.mark.parametrize(
    ("decision", "minutes", "code"),
    [
        (says("approve", actor="eve"), 1, "not_named"),
        (says("approve", actor="bob"), 1, "own_request"),
        (says("approve", content=EDITED), 1, "other_content"),
        (says("approve", round=2), 1, "other_content"),
        (says("approve"), 240, "too_late"),
        (says("edit", payload=None), 1, "no_payload"),
        (says("edit", payload=None, payload_text=" \n"), 1, "no_payload"),
        (says("edit"), 1, "no_payload"),
        (says("escalate"), 1, "no_escalation"),
    ],
)
def test_a_decision_outside_the_rule_is_refused_and_changes_nothing(
    decision: Decision, minutes: int, code: str
) -> None:
    state = opened()
    with pytest.raises(DecisionRefused) as refused:
        approval.step(state, approval.Decided(decision, OPENED + timedelta(minutes=minutes)))
    assert refused.value.code == code
    assert state == opened()


def test_a_decision_is_final() -> None:
    state, _ = take(opened(), says("reject", reason="wrong"))
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
    assert happenings(commands) == ["edited"]
    assert state.verdict == approval.Release(EDITED, "ann")
    assert state.receipt is not None
    assert state.receipt.content_sha256 == EDITED.sha256


@pytest.mark.parametrize(("default", "kind"), [("reject", approval.Withhold), ("approve", approval.Release)])
def test_the_deadline_takes_the_default_of_the_rule(default: str, kind: type) -> None:
    state, commands = approval.step(opened(default=default), approval.TimePassed(at(hours=4)))
    assert isinstance(commands[-1], kind)
    assert state.receipt is not None
    assert state.receipt.actor == approval.NOBODY


def test_the_requester_may_decide_only_where_the_rule_says_so() -> None:
    _, verdict = take(opened(requester_may_decide=True), says("approve", actor="bob"))
    assert verdict == approval.Release(SHOWN, "bob")


def test_a_role_decides_and_a_user_who_is_named_like_one_does_not() -> None:
    state = opened(approvers=("role:finance",))
    assert code(state, says("approve", actor="eve")) == "not_named"
    assert code(state, says("approve", actor="role:finance")) == "not_named"
    assert code(state, says("approve", actor="eve", roles=("sales",))) == "not_named"
    _, verdict = take(state, says("approve", actor="eve", roles=("sales", "finance")))
    assert verdict == approval.Release(SHOWN, "eve")


def test_a_quorum_counts_different_people_once() -> None:
    state, commands = approval.step(opened(**TWO), approval.Decided(says("approve"), OPENED))
    assert happenings(commands) == ["voted"]
    assert (state.receipts[-1].final, state.receipts[-1].missing, state.receipt) == (False, 1, None)
    assert [code(state, says(kind)) for kind in ("approve", "edit", "reject")] == ["already_voted"] * 3
    state, commands = approval.step(state, approval.Decided(says("approve", actor="cid"), OPENED))
    assert happenings(commands) == ["approved"]
    assert state.verdict == approval.Release(SHOWN, "cid")
    assert [vote.actor for vote in state.approval.votes] == ["ann", "cid"]


def test_one_rejection_ends_a_question_that_others_approved() -> None:
    state, _ = take(opened(**TWO), says("approve"))
    state, verdict = take(state, says("reject", actor="cid", reason="wrong sum"))
    assert verdict == approval.Withhold("cid", "wrong sum")


def test_an_edit_rides_on_nobody_s_vote() -> None:
    state, _ = take(opened(**TWO), says("approve"))
    state, commands = approval.step(state, approval.Decided(says("edit", actor="cid"), OPENED, EDITED))
    assert happenings(commands) == ["edited"]
    assert (state.verdict, state.missing, state.approval.content, state.approval.draft) == (None, 1, EDITED, SHOWN)
    assert code(state, says("approve", actor="ann")) == "other_content"
    state, verdict = take(state, says("approve", actor="ann", content=EDITED))
    assert verdict == approval.Release(EDITED, "ann"), "whoever approved the draft may approve the edit"


def test_an_edit_that_changes_nothing_is_an_approval() -> None:
    state, _ = take(opened(**TWO), says("approve"))
    state, verdict = take(state, says("edit", actor="cid"), SHOWN)
    assert verdict == approval.Release(SHOWN, "cid")
    assert state.approval.draft is None


def test_an_edit_back_to_the_draft_needs_its_votes_again() -> None:
    state, _ = take(opened(**TWO), says("approve"))
    state, _ = take(state, says("edit", actor="cid"), EDITED)
    state, verdict = take(state, says("edit", actor="bob", content=EDITED), SHOWN)
    assert (verdict, [vote.actor for vote in state.approval.votes]) == (None, ["bob"])


def test_an_escalation_asks_only_the_next_people_and_keeps_votes_on_the_same_content() -> None:
    state, _ = take(opened(**TWO | CHAIN), says("approve"))
    state, commands = approval.step(
        state, approval.Decided(says("escalate", actor="cid", reason="unsure"), at(hours=1))
    )
    assert happenings(commands) == ["escalated"]
    assert (state.approval.stage, state.approval.approvers) == (1, ("boss",))
    assert state.approval.deadline == at(hours=3)
    assert (state.receipts[-1].final, state.receipts[-1].missing) == (False, 1)
    assert code(state, says("approve", actor="bob"), hours=1) == "not_named"
    assert code(state, says("escalate", actor="boss"), hours=1) == "no_escalation"
    _, verdict = take(state, says("approve", actor="boss"), hours=2)
    assert verdict == approval.Release(SHOWN, "boss")


def test_whoever_approved_may_still_escalate() -> None:
    state, _ = take(opened(**TWO | CHAIN), says("approve"))
    state, _ = take(state, says("escalate"))
    assert state.approval.stage == 1


def test_a_deadline_escalates_and_the_last_one_takes_the_default() -> None:
    state, commands = approval.step(opened(**CHAIN), approval.TimePassed(at(hours=4)))
    assert happenings(commands) == ["escalated"]
    assert state.approval.deadline == at(hours=6)
    state, commands = approval.step(state, approval.TimePassed(at(hours=6)))
    assert happenings(commands) == ["rejected"]
    assert isinstance(state.verdict, approval.Withhold)


def test_a_decision_between_two_stages_is_told_who_is_asked_next() -> None:
    problem = approval.refusal(opened(**CHAIN), says("approve"), at(hours=4))
    assert problem is not None
    assert problem.code == "too_late"
    assert "boss" in str(problem)


def test_the_people_asked_next_have_their_whole_time_however_late_it_is() -> None:
    state, _ = approval.step(opened(**CHAIN), approval.TimePassed(at(hours=30)))
    assert state.approval.deadline == at(hours=32)


def test_no_deadline_is_behind_the_request_s_own_which_ends_the_question_without_a_default() -> None:
    state = opened(default="approve", until=at(hours=5), **CHAIN)
    state, _ = approval.step(state, approval.TimePassed(at(hours=4)))
    assert state.approval.deadline == at(hours=5)
    state, commands = approval.step(state, approval.TimePassed(at(hours=5)))
    assert (happenings(commands), state.verdict, state.receipts) == (["closed"], approval.Lapse(), ())
    assert code(state, says("approve", actor="boss"), hours=4) == "too_late"


def test_a_default_of_approving_does_not_release_what_one_of_several_people_wrote() -> None:
    state, _ = take(opened(default="approve", **TWO), says("edit"), EDITED)
    _, commands = approval.step(state, approval.TimePassed(at(hours=4)))
    assert commands[-1] == approval.Withhold(
        approval.NOBODY, "1 of 2 people approved it before 2026-03-01 13:00:00 UTC"
    )


def test_reminders_come_before_each_deadline_each_once() -> None:
    reminders = (timedelta(hours=1), timedelta(hours=3))
    state = opened(reminders=reminders, **CHAIN)
    moments = [approval.due(state)]
    told: list[str] = []
    while state.verdict is None:
        state, commands = approval.step(state, approval.TimePassed(approval.due(state)))
        told += happenings(commands)
        moments.append(approval.due(state))
    assert told == ["reminded", "reminded", "escalated", "reminded", "rejected"]
    assert moments[:5] == [at(hours=1), at(hours=3), at(hours=4), at(hours=5), at(hours=6)]


def test_reminders_that_were_missed_are_told_as_one() -> None:
    state = opened(reminders=(timedelta(hours=1), timedelta(hours=3)))
    state, commands = approval.step(state, approval.TimePassed(at(hours=3.5)))
    assert happenings(commands) == ["reminded"]
    assert approval.due(state) == at(hours=4)


def test_the_same_content_asked_about_again_takes_only_decisions_that_name_the_question() -> None:
    first = opened(kind="tool").approval.model_copy(update={"round": 2})
    state = approval.ask(first, UNTIL, [SHOWN.sha256])
    assert code(state, says("approve")) == "other_content"
    assert code(state, says("approve", round=1)) == "other_content"
    assert code(state, says("approve", round=2)) is None


def test_a_question_about_a_budget_is_not_edited() -> None:
    assert code(opened(kind="budget"), says("edit")) == "no_edit"


def test_a_vote_for_a_content_that_is_gone_does_not_count() -> None:
    state = opened(**TWO)
    stale = Vote(actor="cid", content_sha256=OTHER.sha256, at=OPENED)
    state = approval.ApprovalState(state.approval.model_copy(update={"votes": (stale,)}), UNTIL)
    _, verdict = take(state, says("approve"))
    assert verdict is None
