"""What many tests share: one Temporal server for the whole session, and a client of it.

A test that hangs is failed after `timeout` of `pyproject.toml`, and its report says where every task stood.
"""

import asyncio
import gc
import io
from collections.abc import AsyncIterator, Generator
from datetime import timedelta

import hypothesis
import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from cli.temporal_server import TemporalServer
from holdfast.leaving import leave
from tests import ports

# A shared machine pauses at any time: no deadline per example, and slow generation is not a defect.
hypothesis.settings.register_profile("holdfast", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("holdfast")

_EXIT_CODE = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember the verdict for `pytest_unconfigure`."""
    session.config.stash[_EXIT_CODE] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End with the verdict: after the engine's SDK was used, the interpreter's own end may abort; see `leave`."""
    if _EXIT_CODE in config.stash:
        leave(config.stash[_EXIT_CODE])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say where every task stands when a test hangs: the stack of the thread shows the idle event loop only."""
    report = yield
    if report.failed and "Timeout (>" in report.longreprtext:
        report.sections.append(("where the asyncio tasks stand", _stacks_of_tasks()))
    return report


def _stacks_of_tasks() -> str:
    written = io.StringIO()
    for task in [found for found in gc.get_objects() if isinstance(found, asyncio.Task)]:
        if not task.done():
            task.print_stack(file=written)
    return written.getvalue()


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on, and that nobody else is given meanwhile."""
    return ports.free_port()


@pytest.fixture(scope="session")
async def temporal_server() -> AsyncIterator[TemporalServer]:
    """A server in memory on a free port, configured by `temporal-dev/` like the one of `holdfast dev`."""
    async with TemporalServer(port=0, ui=False, start_timeout=timedelta(minutes=2)) as server:
        yield server


@pytest.fixture(scope="session")
async def temporal_client(temporal_server: TemporalServer) -> Client:
    """A client of the session's server that speaks pydantic."""
    return await Client.connect(
        temporal_server.address, namespace=temporal_server.namespace, data_converter=pydantic_data_converter
    )
