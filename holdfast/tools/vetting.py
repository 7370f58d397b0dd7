"""`vet`: what a model asked for is looked at before anything is done. Nothing here calls a tool.

A problem that is found is told to the model in words of our own, because it goes through a history.
"""

import asyncio
import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue, ValidationError

from holdfast.conditions import Condition, ConditionProblem
from holdfast.contracts import (
    AssistantTurn,
    CatalogEntry,
    ContentRef,
    PlannedCall,
    Toolbox,
    ToolCall,
    ToolPolicy,
    VetInput,
    Vetted,
)
from holdfast.errors import ToolProblem
from holdfast.guards import restore_within
from holdfast.ledger import Ledger
from holdfast.preparation import CATALOG
from holdfast.tools.arguments import canonical, check_arguments, read_arguments
from holdfast.tools.rules import applies
from holdfast.tools.toolset import Toolset

_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Control and format characters, and separators of lines: all stand within strings, where JSON has escapes for them."""
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff]"
)
"""Letters, marks and unassigned ones that are drawn as nothing: those of the property Default_Ignorable_Code_Point that
are not in the categories above (Unicode 16, DerivedCoreProperties.txt), and the blank of Braille."""
INLINE_BYTES = 4_000
"""Up to this size of its arguments a call is judged in less than a hop to a thread is worth; others take seconds."""
MAX_NAMED = 40
"""Tools that are named to a model which asked for one that is not there."""


@dataclass(frozen=True)
class _Case:
    """What all calls of one reply are looked at with."""

    given: VetInput
    catalog: tuple[CatalogEntry, ...]
    policies: tuple[ToolPolicy, ...]
    mapping: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Vetting:
    """The step."""

    toolset: Toolset
    ledger: Ledger

    async def vet(self, given: VetInput) -> Vetted:
        """Look at the calls of a reply, or at one call as a person edited it.

        Raises:
            ContentMissing: A text is gone.
        """
        contents, tenant = self.ledger.contents, given.tenant
        catalog, toolbox = await contents.get_many(tenant, (given.catalog, given.toolbox))
        case = _Case(
            given,
            CATALOG.validate_json(catalog),
            Toolbox.model_validate_json(toolbox).policies,
            await self.ledger.vault.load(tenant, given.request_id),
        )
        if given.call is not None:
            return Vetted(calls=(await self._edited(case, given.call),))
        if given.reply is None:
            raise AssertionError("There is either a reply or an edited call to vet.")
        try:
            reply = AssistantTurn.model_validate_json(await contents.get(tenant, given.reply))
        except ValidationError:  # a text: some servers say that a reply asks for calls, and there are none in it
            return Vetted(calls=())
        asked = reply.tool_calls[: given.most]
        calls = [await self._planned(case, position, call) for position, call in enumerate(asked)]
        return Vetted(calls=tuple(calls), left_out=len(reply.tool_calls) - len(asked))

    async def _planned(self, case: _Case, position: int, call: ToolCall) -> PlannedCall:
        planned = PlannedCall(
            key=f"{case.given.turn}.{position}",
            id=call.id,
            name=call.name,
            # Calls that cannot be made count as repetitions too, or a model could ask for one for ever.
            digest=_digest(call.name, call.arguments),
        )
        entry = next((entry for entry in case.catalog if entry.offer.name == call.name), None)
        if entry is None:
            return planned.model_copy(update={"problem": _unknown(call.name, case.catalog)})
        try:
            arguments = read_arguments(call.arguments)
            return await self._filled(case, planned, entry, arguments)
        except ToolProblem as problem:
            return planned.model_copy(update={"problem": str(problem), **_traits(entry)})

    async def _edited(self, case: _Case, call: PlannedCall) -> PlannedCall:
        text = case.given.edited_text
        if case.given.edited is not None:
            text = await self.ledger.contents.get(case.given.tenant, case.given.edited)
        entry = next((entry for entry in case.catalog if entry.offer.name == call.name), None)
        if entry is None:
            raise AssertionError("A call that people are asked about is in the catalog.")
        bare = call.model_copy(update={"rule": None, "why": "", "shown": None, "edited": True, "problem": ""})
        try:
            edited = await self._filled(case, bare, entry, _without_cover(read_arguments(text or ""), call.name))
        except ToolProblem as problem:
            return call.model_copy(update={"problem": str(problem)})
        # It was asked about, so it goes on being asked about, whatever the conditions say of the new arguments.
        rule, why = edited.rule or call.rule, edited.why or call.why
        shown = edited.shown or await self._shown(case.given.tenant, entry, edited.arguments)
        return edited.model_copy(update={"rule": rule, "why": why, "shown": shown})

    async def _filled(
        self, case: _Case, planned: PlannedCall, entry: CatalogEntry, arguments: dict[str, JsonValue]
    ) -> PlannedCall:
        """A call whose arguments are good.

        Raises:
            ToolProblem: They are not.
        """
        meant = _restored(arguments, case.mapping) if entry.personal_data else arguments
        self._check(entry, meant)
        kept = await self.ledger.contents.put(case.given.tenant, canonical(arguments))
        if kept.size <= INLINE_BYTES:
            policy, why = _policy(case, entry, meant)
        else:
            policy, why = await asyncio.to_thread(_policy, case, entry, meant)
        shown = await self._shown(case.given.tenant, entry, kept) if policy else None
        update = {
            "arguments": kept,
            "digest": _digest(entry.offer.name, canonical(arguments)),
            "rule": policy.rule if policy else None,
            "why": why,
            "shown": shown,
            **_traits(entry),
        }
        return planned.model_copy(update=update)

    def _check(self, entry: CatalogEntry, arguments: dict[str, JsonValue]) -> None:
        check_arguments(arguments, entry.offer.parameters)
        if entry.source != "function":
            return
        tool = self.toolset.tools.get(entry.tool)
        if tool is None:
            raise ToolProblem("The tool is not there any more.")
        tool.check(arguments)

    async def _shown(self, tenant: str, entry: CatalogEntry, arguments: ContentRef | None) -> ContentRef:
        given = json.loads(await self.ledger.contents.get(tenant, arguments)) if arguments else {}
        cover = {"tool": entry.offer.name, "arguments": given}
        written = json.dumps(cover, sort_keys=True, indent=2, ensure_ascii=False)
        return await self.ledger.contents.put(tenant, _visible(written))


def _visible(written: str) -> str:
    """JSON with escapes for characters that nobody sees, or that make a reader see others in another order."""
    return "".join(json.dumps(one)[1:-1] if _unseen(one) else one for one in written)


def _unseen(character: str) -> bool:
    return character != "\n" and (unicodedata.category(character) in _UNSEEN or bool(_BLANK.match(character)))


def _traits(entry: CatalogEntry) -> dict[str, object]:
    kind, _, agent = entry.source.partition(":")
    return {
        "kind": "delegate" if kind == "delegate" else "tool",
        "agent": agent if kind == "delegate" else "",
        "source": entry.source,
        "side_effects": entry.side_effects,
        "tainting": entry.origin,
        "timeout": entry.timeout,
        "idempotent": entry.idempotent,
    }


def _policy(case: _Case, entry: CatalogEntry, arguments: dict[str, JsonValue]) -> tuple[ToolPolicy | None, str]:
    """The first policy that matches and whose condition holds, and why people are asked."""
    spent = case.given.spent
    values: dict[str, JsonValue] = {
        "tool": entry.offer.name,
        "args": arguments,
        "usage": {
            "tokens": spent.total_tokens,
            "cost_usd": None if spent.cost_usd is None else float(spent.cost_usd),
        },
        "tainted": case.given.tainted or case.given.run_tainted,
    }
    for policy in case.policies:
        if not applies(policy, entry):
            continue
        if not policy.when:
            return policy, "this tool is always asked about"
        if case.given.tainted:
            return policy, f"the run has read text from outside, so `{policy.when}` is not relied on"
        why = _met(policy.when, values)
        if why:
            return policy, why
    return None, ""


def _met(when: str, values: dict[str, JsonValue]) -> str:
    """Why a condition counts as met; empty if it is not."""
    try:
        return f"`{when}` holds" if Condition(when).holds(values) else ""
    except ConditionProblem:
        return f"`{when}` could not be evaluated"


def _restored(arguments: Mapping[str, JsonValue], mapping: dict[str, str]) -> dict[str, JsonValue]:
    restored = restore_within(dict(arguments), mapping)
    return restored if isinstance(restored, dict) else {}


def _without_cover(edited: dict[str, JsonValue], name: str) -> dict[str, JsonValue]:
    """The arguments alone, if a person edited all of what was shown.

    Raises:
        ToolProblem: The tool was changed, which is another call.
    """
    arguments = edited.get("arguments")
    if set(edited) != {"tool", "arguments"} or not isinstance(arguments, dict):
        return edited
    if edited["tool"] != name:
        raise ToolProblem("An edit may change the arguments, not the tool.")
    return arguments


def _unknown(name: str, catalog: tuple[CatalogEntry, ...]) -> str:
    names = [entry.offer.name for entry in catalog]
    near = difflib.get_close_matches(name, names, n=1)
    listed = ", ".join(names[:MAX_NAMED]) or "none"
    return f"There is no tool of this name.{f' Did you mean {near[0]}?' if near else ''} The tools are: {listed}."


def _digest(name: str, arguments: str) -> str:
    return hashlib.sha256(f"{name}\0{arguments}".encode("utf-8", "replace")).hexdigest()[:32]
