"""`call_tool`: one call of one tool, claimed in the ledger before it is made.

What is on record is not made again. A call that was begun and whose end nobody knows is repeated only if the tool says
that it may be. Whatever goes wrong becomes a result that the model is told, so that a tool never ends a request.
"""

import asyncio
import hashlib
import json
import logging
import secrets
import traceback
from dataclasses import dataclass

from pydantic import JsonValue

from holdfast.contracts import CallToolInput, CatalogEntry, Origin, PlannedCall, ToolReturned
from holdfast.errors import ConfigurationError, ContentMissing, OutcomeUnknown, ToolProblem, Unavailable
from holdfast.guards import normalise, restore_within
from holdfast.ledger import Begun, Ledger, ToolCallKey
from holdfast.preparation import CATALOG
from holdfast.tools.arguments import check_arguments
from holdfast.tools.context import Searches, ToolContext
from holdfast.tools.results import cut_to_tokens
from holdfast.tools.servers import Servers
from holdfast.tools.toolset import Toolset

MOST_TRIES = 3
"""Times an idempotent tool is called for one call when it fails."""
INLINE_CHARACTERS = 20_000
"""Up to this length counting tokens takes less than a hop to a thread is worth."""
SERVER_SLACK_SECONDS = 2.0
KEEP_TRYING_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses between tries to record a result; together shorter than what the engine gives a call beyond its timeout."""
MAX_EDIT_SHOWN = 2_000
"""Characters of edited arguments that the model is told."""

log = logging.getLogger(__name__)


class _Failed(Exception):
    """A tool failed without saying anything for the model."""

    def __init__(self, told: str, summary: str) -> None:
        super().__init__(told)
        self.told = told
        self.summary = summary


@dataclass(frozen=True)
class _Result:
    text: str
    ok: bool
    summary: str
    tainting: Origin | None


@dataclass(frozen=True)
class Calling:
    """The step."""

    toolset: Toolset
    servers: Servers
    ledger: Ledger
    knowledge: Searches | None

    async def call(self, given: CallToolInput, *, attempt: int = 1, most: int = MOST_TRIES) -> ToolReturned:
        """Make the call, or tell what came of it before.

        Args:
            given: The call.
            attempt: Which attempt of the engine this is, counted from 1.
            most: The last attempt; from then on a failure is told to the model.

        Raises:
            Unavailable: An idempotent tool failed, or the ledger does not answer: try again.
        """
        call = given.call
        key = ToolCallKey(given.tenant, given.request_id, call.key)
        idempotency_key = hashlib.sha256(f"{given.request_id}\0{call.key}".encode()).hexdigest()[:32]
        entry = await self._entry(given)
        try:
            begun = await self.ledger.tool_calls.begin(
                key,
                tool=call.name[:64],
                agent=given.agent,
                idempotency_key=idempotency_key,
                arguments_sha256=call.arguments.sha256 if call.arguments else "",
                idempotent=entry is not None and entry.idempotent,
            )
        except OutcomeUnknown as unknown:
            return _returned(call, ok=False, problem=str(unknown), summary="outcome unknown, not repeated")
        except ToolProblem as problem:
            return _returned(call, ok=False, problem=str(problem), summary="not made")
        if not isinstance(begun, Begun):
            return begun
        again = entry is not None and entry.idempotent and attempt < min(most, MOST_TRIES)
        try:
            result = await self._made(given, entry, idempotency_key)
        except _Failed as failed:
            if again:
                raise Unavailable(f"Tool {call.name!r} failed ({failed.summary}); it is called again.") from None
            ended = _returned(call, ok=False, problem=failed.told, summary=failed.summary)
            return await self._kept(key, ended, None)
        return await self._ended(key, given, entry, result)

    async def _entry(self, given: CallToolInput) -> CatalogEntry | None:
        catalog = CATALOG.validate_json(await self.ledger.contents.get(given.tenant, given.catalog))
        return next((entry for entry in catalog if entry.offer.name == given.call.name), None)

    async def _made(self, given: CallToolInput, entry: CatalogEntry | None, idempotency_key: str) -> _Result:
        try:
            if entry is None:
                raise ToolProblem("There is no tool of this name.")
            arguments = await self._arguments(given, entry)
            # A server's call has a clock of its own, which knows more about what became of the call.
            slack = SERVER_SLACK_SECONDS if entry.source.startswith("mcp:") else 0.0
            timeout = asyncio.timeout(given.call.timeout.total_seconds() + slack)
            try:
                async with timeout:
                    return await self._run(given, entry, arguments, idempotency_key)
            except TimeoutError:
                if not timeout.expired():
                    raise
                waited = f"{given.call.timeout.total_seconds():g} s"
                effect = "" if entry.idempotent else " It may or may not have taken effect."
                raise _Failed(f"The tool did not answer within {waited}.{effect}", f"no answer in {waited}") from None
        except ToolProblem as problem:
            origin = entry.origin if entry else None
            unknown = isinstance(problem, OutcomeUnknown)
            if unknown and entry and entry.idempotent:
                raise _Failed(str(problem), "outcome unknown") from None
            return _Result(str(problem), False, "outcome unknown" if unknown else "the tool reported a problem", origin)
        except (_Failed, ContentMissing):
            raise
        except (Exception, SystemExit) as error:
            raise _unexpected(error, given.call.name, told_effect=not (entry and entry.idempotent)) from None

    async def _arguments(self, given: CallToolInput, entry: CatalogEntry) -> dict[str, JsonValue]:
        contents = self.ledger.contents
        text = await contents.get(given.tenant, given.call.arguments) if given.call.arguments else "{}"
        arguments = json.loads(text)
        if entry.personal_data:
            arguments = restore_within(arguments, await self.ledger.vault.load(given.tenant, given.request_id))
        if not isinstance(arguments, dict):
            raise ToolProblem("The arguments are not one JSON object.")
        check_arguments(arguments, entry.offer.parameters)
        return arguments

    async def _run(
        self, given: CallToolInput, entry: CatalogEntry, arguments: dict[str, JsonValue], idempotency_key: str
    ) -> _Result:
        kind, _, server = entry.source.partition(":")
        if kind == "mcp":
            answered = await self.servers.call(
                server,
                entry.tool,
                arguments,
                digest=entry.digest,
                timeout=given.call.timeout,
                idempotency_key=idempotency_key,
            )
            summary = "" if answered.ok else "the tool reported a problem"
            return _Result(answered.text, answered.ok, summary, entry.origin)
        tool = self.toolset.tools.get(entry.tool)
        if kind != "function" or tool is None:
            raise ToolProblem("The tool is not there any more.")
        # The worker may be newer than the run: its tool decides whether the arguments still fit.
        tool.check(arguments)
        context = ToolContext(
            idempotency_key=idempotency_key,
            tenant=given.tenant,
            user=given.user,
            session=given.session,
            agent=given.agent,
            request_id=given.request_id,
            key=given.call.key,
            knowledge=self.knowledge,
        )
        return _Result(await tool.call(arguments, context), True, "", entry.origin)

    async def _ended(
        self, key: ToolCallKey, given: CallToolInput, entry: CatalogEntry | None, result: _Result
    ) -> ToolReturned:
        most = entry.output_tokens if entry else 200
        if len(result.text) <= INLINE_CHARACTERS:
            text, tokens = _presentable(result.text, most)
        else:
            text, tokens = await asyncio.to_thread(_presentable, result.text, most)
        if given.call.edited and given.call.arguments:
            arguments = await self.ledger.contents.get(given.tenant, given.call.arguments)
            text = f"(A person changed the arguments to {arguments[:MAX_EDIT_SHOWN]} before the call.)\n{text}"
        ended = _returned(
            given.call,
            ok=result.ok,
            problem="" if result.ok else "The tool reported a problem.",
            summary=result.summary or f"{tokens} tokens",
            tokens=tokens,
            tainting=result.tainting,
        )
        return await self._kept(key, ended, text)

    async def _kept(self, key: ToolCallKey, ended: ToolReturned, text: str | None) -> ToolReturned:
        """Record what came of a call. A ledger that is away is waited for: the call was made, and nobody else knows."""
        for pause in KEEP_TRYING_SECONDS:
            try:
                return await self.ledger.tool_calls.end(key, ended, text)
            except Unavailable:
                await asyncio.sleep(pause)
        return await self.ledger.tool_calls.end(key, ended, text)


def _presentable(text: str, most: int) -> tuple[str, int]:
    """A result of bounded length, in one spelling."""
    # What is far beyond the bound is not looked at; spelling changes the length a little.
    near = normalise(text[: most * 64])
    return cut_to_tokens(near, most, whole=len(near) if len(text) <= most * 64 else len(text))


def _returned(
    call: PlannedCall,
    *,
    ok: bool,
    problem: str = "",
    summary: str,
    tokens: int = 0,
    tainting: Origin | None = None,
) -> ToolReturned:
    return ToolReturned(
        key=call.key,
        id=call.id,
        name=call.name,
        ok=ok,
        problem=problem,
        summary=summary,
        tokens=tokens,
        tainting=tainting,
    )


def _unexpected(error: Exception | SystemExit, name: str, *, told_effect: bool) -> _Failed:
    """What an error of a tool's own becomes: its message may hold anything, so only its type is told."""
    reference = secrets.token_hex(4)
    where = "".join(traceback.format_tb(error.__traceback__))
    kind = type(error).__name__
    log.error("%s in tool %s, reference %s\n%s", kind, name, reference, where)
    effect = " It may have taken effect, wholly or in part." if told_effect else ""
    if isinstance(error, ConfigurationError | Unavailable):
        return _Failed("The tool is not available now.", f"not available, reference {reference}")
    return _Failed(f"The tool failed ({kind}).{effect}", f"failed: {kind}, reference {reference}")
