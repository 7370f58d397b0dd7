"""One run of an agent with tools, step by step, without an engine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import JsonValue

from holdfast.contracts import (
    AssistantTurn,
    CallToolInput,
    CatalogEntry,
    ContentRef,
    Delegate,
    EquipInput,
    Equipped,
    Guards,
    PlannedCall,
    Toolbox,
    ToolCall,
    ToolOffer,
    ToolPolicy,
    ToolReturned,
    Transcribed,
    TranscribeInput,
    Turn,
    VetInput,
    Vetted,
)
from holdfast.errors import Unavailable
from holdfast.ledger import Ledger
from holdfast.mcp.listing import offered_name
from holdfast.preparation import CATALOG, PASSAGES, TRANSCRIPT
from holdfast.tools import Toolset
from holdfast.tools.equipment import Equipment

TENANT = "acme"
REQUEST = "req_12345678"


@dataclass(frozen=True)
class Said:
    """What a server's tool returned."""

    text: str
    ok: bool = True


@dataclass
class Shelf:
    """MCP servers by name: `files` has two tools, `away` does not answer."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    answer: Said | Exception = Said("from the shelf")

    async def entries(self, server: str, pattern: str) -> tuple[CatalogEntry, ...]:
        """Tools of `files`."""
        if server == "away":
            raise Unavailable("The MCP server 'away' cannot be used: no such program.")
        names = ["read_file", "read_dir"] if pattern.endswith("*") else [pattern]
        return tuple(
            CatalogEntry(
                offer=ToolOffer(
                    name=offered_name(server, name),
                    description="Read.",
                    parameters={"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
                ),
                source=f"mcp:{server}",
                tool=name,
                digest="0123456789abcdef",
                side_effects=False,
                origin="mcp",
            )
            for name in names
            if name != "nothing"
        )

    async def call(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, JsonValue],
        *,
        digest: str,
        timeout: timedelta,
        idempotency_key: str,
    ) -> Said:
        """Say what the test wants."""
        self.calls.append(
            {"server": server, "tool": tool, "arguments": arguments, "digest": digest, "key": idempotency_key}
        )
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass
class Desk:
    """The run."""

    ledger: Ledger
    toolset: Toolset
    shelf: Shelf
    equipment: Equipment
    toolbox: Toolbox = field(default_factory=Toolbox)
    equipped: Equipped | None = None

    async def text(self, reference: ContentRef | None) -> str:
        """A text of the tenant's."""
        assert reference is not None
        return await self.ledger.contents.get(TENANT, reference)

    async def equip(
        self, *tools: str, delegates: tuple[Delegate, ...] = (), policies: tuple[ToolPolicy, ...] = ()
    ) -> tuple[CatalogEntry, ...]:
        """Begin the run with these tools."""
        self.toolbox = Toolbox(tools=tools, delegates=delegates, policies=policies)
        kept = await self.ledger.contents.put(TENANT, self.toolbox.model_dump_json())
        self.equipped = await self.equipment.equip(EquipInput(tenant=TENANT, agent="desk", toolbox=kept))
        return CATALOG.validate_json(await self.text(self.equipped.catalog))

    async def reply(self, *calls: tuple[str, str], text: str = "", ids: tuple[str, ...] = ()) -> ContentRef:
        """A reply with calls, as `generate` keeps it."""
        turn = AssistantTurn(
            text=text,
            tool_calls=tuple(
                ToolCall(id=ids[place] if ids else f"call_{place}", name=name, arguments=arguments)
                for place, (name, arguments) in enumerate(calls)
            ),
        )
        return await self.ledger.contents.put(TENANT, turn.model_dump_json())

    async def vet(self, *calls: tuple[str, str], turn: int = 1, **given: Any) -> Vetted:
        """Have calls looked at."""
        return await self.vet_reply(await self.reply(*calls), turn, **given)

    async def vet_reply(self, reply: ContentRef, turn: int = 1, **given: Any) -> Vetted:
        """Have the calls of a reply looked at."""
        return await self.equipment.vet(await self._vet_input(turn, reply=reply, **given))

    async def vet_edit(self, call: PlannedCall, text: str, **given: Any) -> PlannedCall:
        """Have one call looked at as a person edited it."""
        vetted = await self.equipment.vet(await self._vet_input(1, call=call, edited_text=text, **given))
        return vetted.calls[0]

    async def _vet_input(self, turn: int, **given: Any) -> VetInput:
        assert self.equipped is not None
        toolbox = await self.ledger.contents.put(TENANT, self.toolbox.model_dump_json())
        return VetInput(
            tenant=TENANT, request_id=REQUEST, turn=turn, catalog=self.equipped.catalog, toolbox=toolbox, **given
        )

    async def call(self, planned: PlannedCall, **attempt: int) -> ToolReturned:
        """Make a call."""
        assert self.equipped is not None
        given = CallToolInput(
            tenant=TENANT,
            user="ada",
            request_id=REQUEST,
            agent="desk",
            call=planned,
            catalog=self.equipped.catalog,
        )
        return await self.equipment.call(given, **attempt)

    async def use(self, name: str, turn: int = 1, **arguments: Any) -> ToolReturned:
        """Ask for one call and make it."""
        vetted = await self.vet((name, json.dumps(arguments)), turn=turn)
        assert vetted.calls[0].problem == ""
        return await self.call(vetted.calls[0])

    async def transcribe(
        self, reply: ContentRef, *results: ToolReturned, mask: bool = True, **given: Any
    ) -> Transcribed:
        """Put results into the transcript."""
        return await self.equipment.transcribe(
            TranscribeInput(
                tenant=TENANT, request_id=REQUEST, reply=reply, results=results, guards=Guards(mask=mask), **given
            )
        )

    async def turns(self, transcribed: Transcribed) -> tuple[Turn, ...]:
        """What the model is shown."""
        return TRANSCRIPT.validate_json(await self.text(transcribed.transcript))

    async def said(self, text: str, key: str = "1.0", **fields: Any) -> ToolReturned:
        """A result with a text of the test's own."""
        kept = await self.ledger.contents.put(TENANT, text)
        return ToolReturned.model_validate(
            {"key": key, "id": "call_0", "name": "read_page", "ok": True, "result": kept, "tainting": "web", **fields}
        )

    async def passages(self, *texts: str) -> ContentRef:
        """Passages that the run has already."""
        shown = [{"source": f"{n}.md", "start": 0, "end": len(t), "text": t, "score": 0.5} for n, t in enumerate(texts)]
        return await self.ledger.contents.put(
            TENANT, PASSAGES.dump_json(PASSAGES.validate_python(tuple(shown))).decode()
        )
