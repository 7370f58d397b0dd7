"""`validate`: is the reply what was asked for? Mends what can be mended without a model."""

import asyncio
import json
from functools import partial

from pydantic import JsonValue
from temporalio import activity

from holdfast.contracts import Validated, ValidateInput, Violation
from holdfast.guards.spans import KINDS
from holdfast.ledger import Ledger
from holdfast.preparation import PASSAGES
from holdfast.validation import Validator, confidence_in

INLINE_CHARACTERS = 4_000
"""Up to this length a check takes less than a hop to a thread; repairing a long reply can take a second."""


class Validate:
    """Checks replies and edits against the agent's schema and the retrieved passages."""

    def __init__(self, validator: Validator, ledger: Ledger) -> None:
        self._validator = validator
        self._ledger = ledger

    @activity.defn(name="validate")
    async def validate(self, given: ValidateInput) -> Validated:
        """Judge one text."""
        contents, tenant = self._ledger.contents, given.tenant
        output = given.output
        if output is None:
            if given.text is None:
                return Validated(ok=False, rung="invalid", violations=(Violation(path="", message="no text given"),))
            output = await contents.put(tenant, given.text)
        text = await contents.get(tenant, output)
        schema = json.loads(await contents.get(tenant, given.output_schema)) if given.output_schema else None
        passages = PASSAGES.validate_json(await contents.get(tenant, given.passages)) if given.passages else None
        check = partial(
            self._validator.check,
            text,
            finish_reason=given.finish_reason,
            output_schema=schema,
            passages=passages,
            chat=given.chat,
        )
        verdict = check() if len(text) <= INLINE_CHARACTERS else await asyncio.to_thread(check)
        if not verdict.ok:
            return Validated(ok=False, rung=verdict.rung, violations=verdict.violations)
        content = output if verdict.text == text else await contents.put(tenant, verdict.text)
        said = confidence_in(verdict.text, given.confidence_field) if given.confidence_field else None
        met, why = None, ""
        if given.condition:
            judge = partial(_judge, given, verdict.text, given.confidence if said is None else said)
            met, why = judge() if len(text) <= INLINE_CHARACTERS else await asyncio.to_thread(judge)
        return Validated(
            ok=True,
            content=content,
            rung=verdict.rung,
            citations=len(verdict.citations),
            confidence=said,
            condition_met=met,
            why=why,
        )


def _judge(given: ValidateInput, text: str, confidence: float | None) -> tuple[bool, str]:
    """Whether people are asked about a valid text, and why, in words that hold none of it."""
    # Imported where a condition is met with: its library takes half a second, and most agents have none.
    from holdfast.conditions import Condition, ConditionProblem

    cost = given.spent.cost_usd
    values: dict[str, JsonValue] = {
        "output": json.loads(text) if given.output_schema else text,
        "usage": {"tokens": given.spent.total_tokens, "cost_usd": None if cost is None else float(cost)},
        "guards": {kind: given.masked.get(kind, 0) for kind in KINDS},
        "retrieval": {"score": given.retrieved_score},
        "confidence": confidence,
    }
    try:
        return Condition(given.condition).holds(values), f"`{given.condition}` holds"
    except ConditionProblem:
        return True, f"`{given.condition}` could not be evaluated"
