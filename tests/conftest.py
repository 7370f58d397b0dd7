"""What many tests share: one Temporal server for the whole session, and a client of it."""

from collections.abc import AsyncIterator

import hypothesis
import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from cli.temporal_server import TemporalServer

# A shared machine pauses at any time: no deadline per example, and slow generation is not a defect.
hypothesis.settings.register_profile("holdfast", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("holdfast")


@pytest.fixture(scope="session")
async def temporal_server() -> AsyncIterator[TemporalServer]:
    """A server in memory on a free port, configured by `temporal-dev/` like the one of `holdfast dev`."""
    async with TemporalServer(port=0, ui=False) as server:
        yield server


@pytest.fixture(scope="session")
async def temporal_client(temporal_server: TemporalServer) -> Client:
    """A client of the session's server that speaks pydantic."""
    return await Client.connect(
        temporal_server.address, namespace=temporal_server.namespace, data_converter=pydantic_data_converter
    )
