"""No sequence of decisions, edits, escalations and hours makes an approval break its promises."""

from datetime import datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast import approval
from holdfast.contracts import ApprovalRule, ContentRef, Decision, DecisionKind, EscalationStage
from holdfast.errors import DecisionRefused
from tests.holdfast.test_approval import OPENED, opened

PEOPLE = ("ann", "bob", "cid", "dan", "role:finance")
ROLES = ("finance", "legal")
CONTENTS = tuple(ContentRef(sha256=digit * 64, size=10) for digit in "abc")
NAMES = st.lists(st.sampled_from([*PEOPLE, "role:legal", "*"]), min_size=1, max_size=3, unique=True).map(tuple)
HOURS = st.integers(1, 6).map(lambda hours: timedelta(hours=hours))
RULES = st.builds(
    ApprovalRule,
    approvers=NAMES,
    within=HOURS,
    quorum=st.integers(1, 3),
    escalation=st.lists(st.builds(EscalationStage, approvers=NAMES, within=HOURS), max_size=2).map(tuple),
    reminders=st.lists(HOURS, max_size=2, unique=True).map(tuple),
    default=st.sampled_from(["reject", "approve"]),
    requester_may_decide=st.booleans(),
)


class Questions(RuleBasedStateMachine):
    """A question, whoever may come by, and a clock; and beside it a plain account of who agreed to what."""

    @initialize(terms=RULES, lasts=st.integers(1, 30))
    def open(self, terms: ApprovalRule, lasts: int) -> None:
        self.now: datetime = OPENED
        self.until = OPENED + timedelta(hours=lasts)
        self.state = opened(until=self.until, **{name: getattr(terms, name) for name in ApprovalRule.model_fields})
        self.terms = terms
        self.agreed: dict[str, set[str]] = {}
        """Who agreed to each content since it was last put in place of another."""
        self.verdicts: list[approval.Verdict] = []
        self.reminded = 0

    @rule(
        kind=st.sampled_from(list(DecisionKind)),
        actor=st.sampled_from(PEOPLE),
        roles=st.lists(st.sampled_from(ROLES), max_size=2, unique=True).map(tuple),
        content=st.sampled_from(CONTENTS),
        edited=st.sampled_from(CONTENTS),
    )
    def decide(
        self, kind: DecisionKind, actor: str, roles: tuple[str, ...], content: ContentRef, edited: ContentRef
    ) -> None:
        """Somebody says something, perhaps about something that is not there."""
        before = self.state
        said = Decision(
            decision=kind, actor=actor, content_sha256=content.sha256, roles=roles, payload=edited, reason="because"
        )
        asked_of, waits = before.approval.approvers, before.approval.content
        try:
            self.state, commands = approval.step(
                before, approval.Decided(said, self.now, edited if kind is DecisionKind.EDIT else None)
            )
        except DecisionRefused:
            assert self.state is before
            assert approval.refusal(before, said, self.now) is not None
            return
        assert approval.refusal(before, said, self.now) is None, "a validator refuses exactly what the step refuses"
        assert before.verdict is None
        assert self.now < before.approval.deadline
        assert content == waits
        named = "*" in asked_of or (actor in asked_of and not actor.startswith("role:"))
        assert named or any(f"role:{role}" in asked_of for role in roles)
        assert actor != "bob" or self.terms.requester_may_decide
        if kind is DecisionKind.EDIT and edited != waits:
            self.agreed[edited.sha256] = set()
        if kind in (DecisionKind.APPROVE, DecisionKind.EDIT):
            agreed = self.agreed.setdefault((edited if kind is DecisionKind.EDIT else content).sha256, set())
            assert actor not in agreed, "nobody counts twice"
            agreed.add(actor)
        if kind is DecisionKind.ESCALATE:
            assert self.state.approval.stage == before.approval.stage + 1
        if kind is DecisionKind.REJECT:
            assert isinstance(self.state.verdict, approval.Withhold)
        self.hear(commands)

    @rule(span=st.integers(0, 420).map(lambda minutes: timedelta(minutes=minutes)))
    def let_time_pass(self, span: timedelta) -> None:
        """The engine's timers may be late, never early."""
        self.now += span
        self.tick()

    @precondition(lambda self: self.state.verdict is None)
    @rule()
    def sleep_until_due(self) -> None:
        """What is due is done: no moment comes twice."""
        due = approval.due(self.state)
        self.now = max(self.now, due)
        before = self.state
        self.tick()
        assert self.state.verdict is not None or approval.due(self.state) > due
        assert self.state is not before

    def tick(self) -> None:
        """Tell the time."""
        before = self.state
        self.state, commands = approval.step(before, approval.TimePassed(self.now))
        self.hear(commands)
        if isinstance(self.state.verdict, approval.Release) and before.verdict is None:
            assert self.state.verdict.by == approval.NOBODY
            assert self.terms.default == "approve"
            assert self.state.verdict.content == CONTENTS[0], "only the model's own content is released by default"
            assert self.now >= before.approval.deadline

    def hear(self, commands: tuple[approval.ApprovalCommand, ...]) -> None:
        """Keep what was commanded."""
        for command in commands:
            if isinstance(command, approval.Happened):
                self.reminded += command.happening == "reminded"
            else:
                self.verdicts.append(command)

    @invariant()
    def releases_have_their_quorum(self) -> None:
        """People release only what enough different people agreed on, and no edit takes a vote over."""
        verdict = self.state.verdict
        if isinstance(verdict, approval.Release) and verdict.by != approval.NOBODY:
            assert len(self.agreed[verdict.content.sha256]) >= self.terms.quorum
        votes = self.state.approval.votes
        assert {vote.actor for vote in votes} == self.agreed.get(self.state.approval.content.sha256, set())
        assert len({vote.actor for vote in votes}) == len(votes)

    @invariant()
    def settles_once_and_in_time(self) -> None:
        """One verdict, no deadline behind the request's, none open behind the last one, and a receipt for each."""
        assert len(self.verdicts) == (self.state.verdict is not None)
        assert self.state.approval.deadline <= self.until
        assert self.state.approval.stage <= len(self.terms.escalation)
        assert self.reminded <= len(self.terms.reminders) * (1 + len(self.terms.escalation))
        final = [receipt for receipt in self.state.receipts if receipt.final]
        assert len(final) == (self.state.verdict is not None and not isinstance(self.state.verdict, approval.Lapse))

    def teardown(self) -> None:
        """Left alone, every question settles: after each stage's deadline once, at the latest at the request's."""
        if not hasattr(self, "state"):
            return
        for _ in range(1 + len(self.terms.escalation)):
            self.state, _ = approval.step(self.state, approval.TimePassed(self.state.approval.deadline))
        assert self.state.verdict is not None


class RestartedQuestions(Questions):
    """The same, when the run starts over in between: only what is carried comes along."""

    @precondition(lambda self: self.state.verdict is None)
    @rule()
    def start_over(self) -> None:
        """A question that is carried over goes on as it was."""
        carried = type(self.state.approval).model_validate_json(self.state.approval.model_dump_json())
        self.state = approval.ApprovalState(carried, self.until)

    def teardown(self) -> None:
        """As above."""
        super().teardown()


_EFFORT = settings(max_examples=150, stateful_step_count=25, deadline=None)


def test_no_sequence_of_decisions_and_hours_breaks_an_approval() -> None:
    run_state_machine_as_test(Questions, settings=_EFFORT)


def test_no_sequence_breaks_an_approval_whose_run_starts_over() -> None:
    run_state_machine_as_test(RestartedQuestions, settings=_EFFORT)
