"""What tests of workflows share: a house for each module on the session's server, a server that skips time, and one
that takes every history for a long one.
"""

import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from cli.temporal_files import DIRECTORY, read_server_files
from cli.temporal_server import TemporalServer, temporal_program
from tests.house import House, open_house
from tests.workflows.record_histories import SHORT_HISTORY
from workflows.connection import DATA_CONVERTER


@pytest.fixture(scope="session")
async def short_history() -> AsyncIterator[Client]:
    """A client of a server that calls 20 events a long history."""
    async with TemporalServer(port=0, ui=False, dynamic_config=SHORT_HISTORY) as server:
        yield await Client.connect(server.address, namespace=server.namespace, data_converter=DATA_CONVERTER)


@pytest.fixture(scope="session")
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    """The development server of `temporal-dev/` with time skipping."""
    files = read_server_files(DIRECTORY)
    arguments = ["--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true"]
    for key, value in files.dynamic_config.items():
        arguments += ["--dynamic-config-value", f"{key}={json.dumps(value)}"]
    for name, kind in files.search_attributes.items():
        arguments += ["--search-attribute", f"{name}={kind}"]
    async with await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=str(temporal_program()),
        dev_server_extra_args=arguments,
        dev_server_startup_timeout=timedelta(seconds=120),
    ) as environment:
        yield environment


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
