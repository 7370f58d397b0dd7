"""What a working day's inbox holds, for pictures and for reading the pages as their users do."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from gateway.execution import Execution
from holdfast.contracts import (
    DecisionKind,
    DecisionReceipt,
    Event,
    EventKind,
    Passage,
    Progress,
    Status,
    Usage,
)
from holdfast.contracts.plan import EscalationStage
from holdfast.contracts.tools import Delegated, ToolLine
from tests.pages.staged import Stage

POLICY = (
    "Orders that arrive damaged are refunded in full, shipping included, when the customer reports the damage within "
    "14 days and sends a photo. A return is not required below 150 EUR."
)
CARRIER = "Parcels of the carrier Nordpost are insured up to 500 EUR. Claims are filed by the shop, not the customer."
LETTER = (
    "Dear Mrs Okafor,\n\nthank you for the photo, and I am sorry about the broken lamp. You reported it four days "
    "after delivery, so we refund the full 129.00 EUR, shipping included [1]. You need not send it back [1].\n\nThe "
    "money is on your card within three working days. We claim the damage from the carrier ourselves [2].\n\n"
    "Kind regards\nCustomer care"
)
QUESTION = (
    "My order A-2291 arrived with the lamp in pieces (photo attached). I ordered it for a birthday on Saturday. "
    "What now? You can reach me at <EMAIL_1>."
)


async def a_working_day(stage: Stage) -> list[str]:
    """Seven questions of four kinds."""
    refund = {
        "tool": "refund",
        "arguments": {
            "order": "A-2291",
            "amount": 129.00,
            "currency": "EUR",
            "reason": "Lamp broken on arrival, photo received",
            "notify": {"customer": True, "carrier": "Nordpost", "channels": ["mail"]},
        },
    }
    triage = {
        "category": "billing",
        "urgency": 4,
        "summary": "Charged twice for invoice 2026-1180; asks for one of the payments back before month end.",
        "actions": [
            {"do": "check_payments", "invoice": "2026-1180"},
            {"do": "reply", "template": "double-charge", "language": "de"},
        ],
        "confidence": 0.82,
        "escalate": False,
    }
    passages = [
        Passage(source="policies/refunds.md", start=1204, end=1204 + len(POLICY), text=POLICY, score=0.81),
        Passage(source="carriers/nordpost.md", start=310, end=310 + len(CARRIER), text=CARRIER, score=0.66),
        Passage(
            source="policies/returns.md",
            start=0,
            end=52,
            text="Returns are free within 30 days of delivery.",
            score=0.4,
        ),
    ]
    now = datetime.now(UTC)
    return [
        await stage.ask(
            json.dumps(refund, indent=2, sort_keys=True).replace("129.0,", "129.00,"),
            agent="refunds",
            kind="tool",
            subject="refund",
            why="args.amount > 100: refunds above 100 EUR need two people.",
            due=timedelta(minutes=41),
            rule={
                "quorum": 2,
                "escalation": (EscalationStage(approvers=("role:finance-lead",), within=timedelta(hours=2)),),
            },
            approvers=("ann", "bob", "role:finance"),
            asked=QUESTION,
            cost="0.0184",
            votes=({"actor": "bob", "content_sha256": "0" * 64, "at": now - timedelta(minutes=5)},),
        ),
        await stage.ask(LETTER, agent="letters", passages=passages, asked=QUESTION, cost="0.0131"),
        await stage.ask(json.dumps(triage), agent="triage", user="intake-bot", due=timedelta(hours=5, minutes=2)),
        await stage.ask(
            "May this request go past a budget? Budget `research-monthly` of tenant `local` has 0.12 of 50.00 USD left "
            "until 1 December; this request may cost up to 1.80 USD.",
            agent="market-research",
            kind="budget",
            user="dora",
            due=timedelta(hours=8),
            cost="1.4210",
        ),
        await stage.ask(
            json.dumps({"tool": "files__write", "arguments": {"path": "reports/q4.md", "bytes": 18234}}, indent=2),
            agent="reporting",
            kind="tool",
            subject="files__write",
            due=timedelta(days=1, hours=4),
        ),
        await stage.ask(
            "Hello Jonas, your contract renews on 1 March at the same price. To change the plan, reply before 15 "
            "February and name the seats you need.",
            agent="letters",
            due=timedelta(days=2),
        ),
        await stage.ask(
            "Summary of the call with Adler & Sohn: they accept the delivery in week 7 and ask for net 45.",
            agent="notes",
            user="ann",
            approvers=("*",),
            due=timedelta(days=3),
        ),
    ]


async def a_team_at_work(stage: Stage) -> str:
    """A request with tools, a delegate and a decision, in the middle."""
    began = datetime.now(UTC) - timedelta(seconds=74)
    request_id = "req_01m7ytkqcfdz7xhyjbdzb67d35"
    stage.engine.put(
        Execution(
            request_id, "local", "carl", "refunds", Status.RUNNING, submitted_at=began, cost_usd=Decimal("0.0217")
        )
    )
    told = [
        (EventKind.STEP_FINISHED, "sanitize", "masked 1 EMAIL", 0),
        (EventKind.STEP_FINISHED, "equip", "4 tools, 1 delegate", 0),
        (EventKind.STEP_FINISHED, "route", "sim-large: first of the agent's list", 0),
        (EventKind.STEP_FINISHED, "generate", "sim-large, attempt 1, 1204 tokens, 2 calls", 3),
        (EventKind.TOOL_FINISHED, "lookup_order", "returned 212 tokens", 4),
        (EventKind.TOOL_FINISHED, "ask_policies", "delegated to policies, completed", 9),
        (EventKind.STEP_FINISHED, "generate", "sim-large, attempt 2, 1877 tokens, 1 call", 12),
        (EventKind.APPROVAL_OPENED, "approve", "refund: waiting for ann, bob until 16:20 UTC", 12),
        (EventKind.DECISION_ACCEPTED, "approve", "approve by ann, content 4f30fd5a924b", 61),
        (EventKind.TOOL_FINISHED, "refund", "returned 41 tokens", 62),
        (EventKind.STEP_STARTED, "generate", "sim-large, attempt 3", 63),
    ]
    order = {"id": "A-2291", "total": "129.00", "currency": "EUR", "delivered": "2026-11-17", "carrier": "Nordpost"}
    stage.engine.sheets[request_id] = Progress(
        request_id=request_id,
        status=Status.RUNNING,
        step="generate",
        spent=Usage(input_tokens=4120, output_tokens=702, cost_usd=Decimal("0.0217")),
        attempts=3,
        tool_calls=3,
        iterations=3,
        asked=await stage.text(QUESTION),
        events=tuple(
            Event(sequence=n, kind=kind, name=name, summary=summary, at=began + timedelta(seconds=second))
            for n, (kind, name, summary, second) in enumerate(told, start=1)
        ),
        tools=(
            ToolLine(
                key="1.0",
                name="lookup_order",
                state="done",
                arguments=await stage.text('{"order":"A-2291"}'),
                result=await stage.text(json.dumps(order, indent=2)),
                summary="returned 212 tokens",
            ),
            ToolLine(
                key="1.1",
                name="ask_policies",
                state="done",
                delegate="req_01m7ytkw3k8vsn1t0k2b3q9f4c",
                arguments=await stage.text('{"task":"May a broken lamp be refunded without a return?"}'),
                summary="completed",
            ),
            ToolLine(
                key="2.0",
                name="refund",
                state="done",
                arguments=await stage.text('{"amount":129.00,"currency":"EUR","order":"A-2291"}'),
                result=await stage.text("refunded 129.00 EUR to the card ending 4711"),
                summary="returned 41 tokens",
            ),
        ),
        delegates=(
            Delegated(
                request_id="req_01m7ytkw3k8vsn1t0k2b3q9f4c",
                agent="policies",
                key="1.1",
                ok=True,
                status="completed",
                usage=Usage(input_tokens=811, output_tokens=96, cost_usd=Decimal("0.0012")),
            ),
        ),
        decisions=(
            DecisionReceipt(
                request_id=request_id,
                decision=DecisionKind.APPROVE,
                actor="ann",
                content_sha256="4" * 64,
                decided_at=began + timedelta(seconds=61),
                kind="tool",
                reason="photo is clear, below the limit",
            ),
        ),
        tainted=("tools", "delegates"),
    )
    return request_id
