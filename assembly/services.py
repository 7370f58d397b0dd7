"""The library's objects that a process has one of each."""

import asyncio
import gc
from contextlib import AsyncExitStack
from dataclasses import dataclass

from holdfast.batches import Batches
from holdfast.calls import ModelCaller
from holdfast.gate import Gate
from holdfast.guards import Sanitizer
from holdfast.knowledge import Embedder, Knowledge
from holdfast.ledger import Ledger
from holdfast.mcp import McpServers
from holdfast.notify import Notifier
from holdfast.relay import Relay
from holdfast.router import Router
from holdfast.telemetry import Metrics
from holdfast.tools.equipment import Equipment
from holdfast.validation import Validator


@dataclass
class Services:
    """The library's objects that activities are built from; share one among everything in a process."""

    ledger: Ledger
    knowledge: Knowledge
    sanitizer: Sanitizer
    validator: Validator
    caller: ModelCaller
    gate: Gate
    batches: Batches
    router: Router
    relay: Relay
    metrics: Metrics
    embedder: Embedder
    servers: McpServers
    equipment: Equipment
    notifier: Notifier
    stack: AsyncExitStack
    """What closes them."""

    async def warm_up(self) -> None:
        """Load the models before the first request needs them."""
        await asyncio.gather(
            self.embedder.embed(["warm up"]), asyncio.to_thread(self.sanitizer.warm_up), self.servers.warm_up()
        )
        # The models' hundred thousands of objects live as long as the process; collections need not visit them again.
        gc.collect()
        gc.freeze()

    async def aclose(self) -> None:
        """Close files and connections, in reverse order of opening."""
        await self.stack.aclose()
