"""What a notification says: ids, names, digests and links, and never a text."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contracts import (
    Approval,
    ApprovalHappening,
    ApprovalRule,
    ContentRef,
    EscalationStage,
    Limits,
    NoteInput,
    Plan,
    Request,
    Status,
    Vote,
)
from holdfast.ledger import Delivery
from holdfast.notify import EVENTS, Links, Notifications, ended_messages, note_messages
from holdfast.notify.configuration import Wanted
from holdfast.people import People as RealPeople
from tests.notify.targets import People, hook, mail_server

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CONTENT = ContentRef(sha256="a" * 64, size=10)
RULE = ApprovalRule(
    approvers=("ann", "role:finance", "*"),
    quorum=2,
    escalation=(EscalationStage(approvers=("boss",), within=timedelta(1)),),
    why="Refunds above 100 EUR need two people.",
)
PEOPLE = People(
    {"finance": ("bob", "cid", "ada")}, {user: f"{user}@example.org" for user in ("ann", "bob", "ada", "boss")}
)
LINKS = Links("https://holdfast.example.org/")
HOOKS = Notifications({"ops": hook("https://hooks.example.org:443/")})
BOTH = Notifications(HOOKS.webhooks, mail_server(25))
TEXT = "the customer's iban is DE89370400440532013000"


def note(happening: ApprovalHappening = "opened", sequence: int = 1, **changes: Any) -> NoteInput:
    """Something that happened to a question that Ada's request asks."""
    question = Approval(
        request_id="req_00000001",
        content=CONTENT,
        rule=RULE,
        requested_by="ada",
        opened_at=NOW,
        deadline=NOW + timedelta(hours=4),
        kind="tool",
        subject="refund",
        why="`args.amount > 100` holds",
    )
    return NoteInput(
        tenant="acme",
        agent="support",
        approval=question.model_copy(update=changes),
        happening=happening,
        sequence=sequence,
        actor="ann" if happening in ("approved", "rejected", "edited") else "",
        reason=TEXT,
        content_sha256=CONTENT.sha256,
        at=NOW,
    )


def request(**changes: Any) -> Request:
    """Ada's request."""
    plan = Plan(agent="support", version="1", deployments=("sim",), instructions=CONTENT)
    made = Request(
        id="req_00000001", tenant="acme", user="ada", plan=plan, input=CONTENT, limits=Limits(), submitted_at=NOW
    )
    return made.model_copy(update=changes)


def told(found: tuple[Delivery, ...]) -> list[str]:
    """The targets."""
    return [delivery.target for delivery in found]


def test_an_opened_approval_is_told_with_all_that_a_receiver_needs_to_act() -> None:
    (delivery,) = note_messages(note(), HOOKS, PEOPLE, LINKS)
    assert json.loads(delivery.payload) == {
        "type": "approval.opened",
        "timestamp": "2026-11-21T12:00:00.000Z",
        "data": {
            "tenant": "acme",
            "request_id": "req_00000001",
            "root": None,
            "agent": "support",
            "kind": "tool",
            "subject": "refund",
            "why": "`args.amount > 100` holds",
            "rule_why": "Refunds above 100 EUR need two people.",
            "round": 1,
            "stage": 0,
            "approvers": ["ann", "role:finance", "*"],
            "quorum": 2,
            "votes": 0,
            "deadline": "2026-11-21T16:00:00.000Z",
            "content_sha256": "a" * 64,
            "status": "waiting",
            "actor": "",
            "links": {
                "inbox": "https://holdfast.example.org/inbox/req_00000001",
                "request": "https://holdfast.example.org/requests/req_00000001",
            },
        },
    }


@pytest.mark.parametrize("status", [status for status in Status if status.is_final])
def test_every_ending_of_a_request_is_told_with_its_status(status: Status) -> None:
    (delivery,) = ended_messages(request(), status, HOOKS, PEOPLE, LINKS, NOW, decided_by="ann")
    payload = json.loads(delivery.payload)
    assert payload["type"] == delivery.event == "request.completed"
    assert payload["data"]["status"] == status.value
    assert payload["data"]["links"] == {"request": "https://holdfast.example.org/requests/req_00000001"}


def test_the_end_of_a_delegate_is_told_to_nobody() -> None:
    assert ended_messages(request(parent="req_00000000"), Status.COMPLETED, BOTH, PEOPLE, LINKS, NOW) == ()


def test_a_vote_that_settles_nothing_is_told_to_nobody() -> None:
    assert note_messages(note("voted"), BOTH, PEOPLE, LINKS) == ()
    assert note_messages(note("edited"), BOTH, PEOPLE, LINKS) == ()
    (decided, _) = note_messages(note("edited", rule=RULE.model_copy(update={"quorum": 1})), BOTH, PEOPLE, LINKS)
    assert decided.event == "approval.decided"
    assert json.loads(decided.payload)["data"]["status"] == "edited"


def test_mail_goes_to_those_who_may_decide_and_have_an_address(tmp_path: Path) -> None:
    (tmp_path / "people.toml").write_text(
        '[tenants.acme.roles]\nfinance = ["bob", "cid", "ada"]\n[tenants.acme.emails]\nann = "ann@example.org"\n'
        'bob = "bob@example.org"\nada = "ada@example.org"\ndan = "dan@example.org"\n'
    )
    # Cid has no address, Ada asked herself, and Dan may decide only because everybody may.
    found = note_messages(note(), BOTH, RealPeople(tmp_path / "people.toml"), LINKS)
    assert told(found) == ["webhook:ops", "email:ann", "email:bob"]


def test_a_reminder_does_not_go_to_those_who_have_decided() -> None:
    vote = Vote(actor="ann", content_sha256=CONTENT.sha256, at=NOW)
    assert told(note_messages(note("reminded", votes=(vote,)), BOTH, PEOPLE, LINKS)) == ["webhook:ops", "email:bob"]


def test_after_an_escalation_the_next_people_are_asked() -> None:
    assert told(note_messages(note("escalated", stage=1), BOTH, PEOPLE, LINKS)) == ["webhook:ops", "email:boss"]


def test_mail_about_a_decision_and_an_end_goes_to_who_asked() -> None:
    assert told(note_messages(note("approved"), BOTH, PEOPLE, LINKS)) == ["webhook:ops", "email:ada"]
    assert told(ended_messages(request(), Status.FAILED, BOTH, PEOPLE, LINKS, NOW)) == ["webhook:ops", "email:ada"]


def test_each_target_hears_of_each_happening_once_under_its_own_id() -> None:
    first = note_messages(note(), BOTH, PEOPLE, LINKS)
    again = note_messages(note(), BOTH, PEOPLE, LINKS)
    later = note_messages(note(sequence=2), BOTH, PEOPLE, LINKS)
    ended = ended_messages(request(), Status.COMPLETED, BOTH, PEOPLE, LINKS, NOW)
    assert first == again
    ids = [delivery.id for delivery in (*first, *later, *ended)]
    assert len(set(ids)) == len(ids)


def test_a_target_of_one_tenant_hears_nothing_of_another() -> None:
    only = Wanted(frozenset(EVENTS), frozenset(), frozenset({"globex"}))
    targets = Notifications({"ops": hook("https://hooks.example.org:443/", wanted=only)})
    assert note_messages(note(), targets, PEOPLE, LINKS) == ()
    assert ended_messages(request(), Status.COMPLETED, targets, PEOPLE, LINKS, NOW) == ()
    assert ended_messages(request(tenant="globex"), Status.COMPLETED, targets, PEOPLE, LINKS, NOW) != ()


@given(st.sampled_from(get_args(ApprovalHappening)), st.integers(1, 1_000), st.integers(0, 1))
def test_no_notification_holds_a_text(happening: ApprovalHappening, sequence: int, stage: int) -> None:
    for delivery in note_messages(note(happening, sequence, stage=stage), BOTH, PEOPLE, LINKS):
        assert TEXT not in delivery.payload
        assert delivery.event in EVENTS
        assert delivery.created_at == NOW
