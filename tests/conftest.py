"""What many tests share: one Temporal server for the whole session, and a client of it."""

from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from cli.temporal_server import TemporalServer


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
