"""`equip`: what a run may call is looked up once, and fixed for as long as the run lasts."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.contracts import CatalogEntry, EquipInput, Equipped, Toolbox
from holdfast.contracts.conversation import MAX_TOOLS
from holdfast.errors import HoldfastError
from holdfast.ledger import Ledger
from holdfast.preparation import CATALOG
from holdfast.tools.delegates import delegate_entry
from holdfast.tools.rules import unmet_names
from holdfast.tools.servers import Servers
from holdfast.tools.toolset import Toolset

PATIENCE_SECONDS = 6.0
"""How long one server or database may take to say what it offers; what does not answer is left out of the run."""


class _Found(NamedTuple):
    entries: tuple[CatalogEntry, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Equipping:
    """The step."""

    toolset: Toolset
    servers: Servers
    ledger: Ledger

    async def equip(self, given: EquipInput) -> Equipped:
        """Fix the catalog of a run. What cannot be had is left out, and told.

        Raises:
            ContentMissing: The toolbox is gone.
        """
        contents = self.ledger.contents
        toolbox = Toolbox.model_validate_json(await contents.get(given.tenant, given.toolbox))
        found = await asyncio.gather(*(self._look_up(name) for name in toolbox.tools))
        offered = [entry for one in found for entry in one.entries]
        catalog, left_out = _without_clashes([*offered, *(delegate_entry(one) for one in toolbox.delegates)])
        return Equipped(
            catalog=await contents.put(given.tenant, CATALOG.dump_json(catalog).decode()),
            count=len(catalog),
            origins=tuple(dict.fromkeys(entry.origin for entry in catalog if entry.origin)),
            missing=(
                *(one.missing for one in found if one.missing),
                *left_out,
                *unmet_names(toolbox.policies, catalog),
            ),
        )

    async def _look_up(self, name: str) -> _Found:
        server, dot, pattern = name.partition(".")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if not dot:
                    return await self._own(name)
                entries = await self.servers.entries(server, pattern)
        except TimeoutError:
            return _Found(missing=f"{name}: no answer within {PATIENCE_SECONDS:g} s")
        except HoldfastError as error:
            return _Found(missing=f"{name}: {' '.join(str(error).split())}")
        if not entries:
            return _Found(missing=f"{name}: the server has no such tool, or its `tools` do not admit it")
        return _Found(entries)

    async def _own(self, name: str) -> _Found:
        tool = self.toolset.tools.get(name)
        if tool is None:
            return _Found(missing=f"{name}: this worker has no such tool")
        return _Found((tool.entry(await tool.describe()),))


def _without_clashes(entries: Iterable[CatalogEntry]) -> tuple[tuple[CatalogEntry, ...], list[str]]:
    catalog: dict[str, CatalogEntry] = {}
    left_out: list[str] = []
    for entry in entries:
        name = entry.offer.name
        there = catalog.get(name)
        if there is not None:
            if (there.source, there.tool) != (entry.source, entry.tool):
                left_out.append(
                    f"{name}: {there.source} and {entry.source} have a tool of this name; the first is used"
                )
        elif len(catalog) == MAX_TOOLS:
            left_out.append(f"{name}: a model is offered at most {MAX_TOOLS} tools")
        else:
            catalog[name] = entry
    return tuple(catalog.values()), left_out
