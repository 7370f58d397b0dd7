"""`validate`: is the reply what was asked for? Mends what can be mended without a model."""

import asyncio
import json
from functools import partial

from temporalio import activity

from holdfast.contracts import Validated, ValidateInput, Violation
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
        return Validated(
            ok=True,
            content=content,
            rung=verdict.rung,
            citations=len(verdict.citations),
            confidence=confidence_in(verdict.text, given.confidence_field) if given.confidence_field else None,
        )
