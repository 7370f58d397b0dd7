"""What agents work with: the four steps around a call, each in a module of its own."""

from holdfast.contracts import (
    CallToolInput,
    EquipInput,
    Equipped,
    ToolReturned,
    Transcribed,
    TranscribeInput,
    VetInput,
    Vetted,
)
from holdfast.guards import Sanitizer
from holdfast.ledger import Ledger
from holdfast.tools.calling import MOST_TRIES, Calling
from holdfast.tools.context import Searches
from holdfast.tools.equipping import Equipping
from holdfast.tools.servers import Servers
from holdfast.tools.toolset import Toolset
from holdfast.tools.transcribing import Transcribing
from holdfast.tools.vetting import Vetting


class Equipment:
    """Tools, servers and everything that their use needs.

    Args:
        toolset: The installation's tools.
        servers: Its MCP servers.
        ledger: Has the texts, the calls and the vault.
        sanitizer: Masks results.
        knowledge: What tools can search.
    """

    def __init__(
        self,
        toolset: Toolset,
        servers: Servers,
        ledger: Ledger,
        sanitizer: Sanitizer,
        knowledge: Searches | None = None,
    ) -> None:
        self._equipping = Equipping(toolset, servers, ledger)
        self._vetting = Vetting(toolset, ledger)
        self._calling = Calling(toolset, servers, ledger, knowledge)
        self._transcribing = Transcribing(ledger, sanitizer)

    async def equip(self, given: EquipInput) -> Equipped:
        """Look up and fix the tools of a run."""
        return await self._equipping.equip(given)

    async def vet(self, given: VetInput) -> Vetted:
        """Look at the calls that a model asked for, or at one that a person edited."""
        return await self._vetting.vet(given)

    async def call(self, given: CallToolInput, *, attempt: int = 1, most: int = MOST_TRIES) -> ToolReturned:
        """Make one call; see `Calling.call`."""
        return await self._calling.call(given, attempt=attempt, most=most)

    async def transcribe(self, given: TranscribeInput) -> Transcribed:
        """Put a reply and the results of its calls into what the model is shown next."""
        return await self._transcribing.transcribe(given)
