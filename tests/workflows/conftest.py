"""One house for the tests of a module, on the session's Temporal server."""

from collections.abc import AsyncIterator, Callable

import pytest
from temporalio.client import Client

from tests.house import House, open_house


@pytest.fixture(scope="module")
async def shared_house(temporal_client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """Workers, stores, gateway and simulator of one module."""
    async with open_house(tmp_path_factory.mktemp("house"), temporal_client) as opened:
        yield opened


@pytest.fixture
def house(shared_house: House) -> House:
    """The module's house with an empty script and bill, and every deployment well."""
    shared_house.reset()
    return shared_house


@pytest.fixture
def script(house: House) -> Callable[..., None]:
    """Queue behaviours of the simulated model."""
    return house.simulator.script
