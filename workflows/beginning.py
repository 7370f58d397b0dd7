"""The part of a run before the first model call: make the input safe, look for an earlier answer, find passages, equip.

All of it is short steps, which share one workflow task.
"""

from typing import get_args

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    # In this form, because `from workflows import steps` makes a copy in the SDK's sandbox, whose errors are others.
    import workflows.steps as steps
    from holdfast import loop
    from holdfast.contracts import (
        Origin,
        Recalled,
        RecallInput,
        Retrieved,
        RetrieveInput,
        Sanitized,
        SanitizeInput,
        Step,
    )
    from workflows.batched import Batched


class Beginning(Batched):
    """Takes the steps of every request before it asks a model."""

    async def _begin(self) -> loop.LoopTick:
        if self._resumed:
            return loop.Began()
        refusal = await self._sanitize()
        if refusal:
            return loop.Refused(refusal)
        inherited = tuple(origin for origin in get_args(Origin) if origin in self._request.tainted)
        recalled = await self._recall()
        if recalled and recalled.content:
            # What an answer was drawn from taints whoever is given it again.
            drawn: tuple[Origin, ...] = ("documents",) if self._request.plan.collection else ()
            return loop.Began(recalled.content, tainted=(*inherited, *drawn))
        found = await self._retrieve()
        await self._equip()
        return loop.Began(tainted=(*inherited, "documents") if found else inherited)

    async def _sanitize(self) -> str | None:
        """Mask and refuse; the reason of a refusal, if there is one."""
        request = self._request
        sanitized = await steps.local(
            Step.SANITIZE,
            SanitizeInput(
                request_id=request.id,
                tenant=request.tenant,
                input=request.input,
                guards=request.plan.guards,
                conversation=request.conversation,
            ),
            Sanitized,
            f"{request.input.size} bytes",
            self._remaining(),
        )
        self._sanitized = True
        self._keep(
            masked=sanitized.masked,
            private=bool(sanitized.placeholders),
            conversation=sanitized.conversation,
            placeholders=sanitized.placeholders,
        )
        masked = ", ".join(f"{count} {kind}" for kind, count in sorted(sanitized.placeholders.items()))
        self._done(Step.SANITIZE, f"masked {masked}" if masked else "nothing to mask")
        return sanitized.refusal

    async def _recall(self) -> Recalled | None:
        """Look whether the identical question was answered before, if that may be."""
        request = self._request
        if not self._recallable:
            return None
        recalled = await steps.local(
            Step.RECALL,
            RecallInput(tenant=request.tenant, plan_version=request.plan.version, masked=self._state.masked),
            Recalled,
            "the identical question",
            self._remaining(),
        )
        if recalled.content:
            self._keep(passages=recalled.passages, recalled=True)
            self._done(Step.RECALL, f"answered before, by {recalled.from_request}")
        else:
            self._done(Step.RECALL, "not asked before")
        return recalled

    async def _retrieve(self) -> bool:
        """Find passages, if the agent has a collection; whether there are any."""
        request, plan = self._request, self._request.plan
        if not plan.collection:
            return False
        retrieved = await steps.local(
            Step.RETRIEVE,
            RetrieveInput(
                tenant=request.tenant, collection=plan.collection, query=self._state.masked, limit=plan.passages
            ),
            Retrieved,
            f"{plan.passages} passages of {plan.collection!r}",
            self._remaining(),
        )
        self._keep(passages=retrieved.passages, retrieved_score=retrieved.top_score)
        self._done(Step.RETRIEVE, f"{retrieved.count} passages, best score {retrieved.top_score:.2f}")
        return retrieved.count > 0
