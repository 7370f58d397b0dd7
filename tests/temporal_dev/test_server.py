"""The development server: ready when it says so, gone when it should be, and faithful across a crash."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.worker import Worker

from cli import temporal_server as module
from cli.temporal_files import DIRECTORY
from cli.temporal_server import TemporalServer
from holdfast.errors import ConfigurationError, Unavailable


@workflow.defn(sandboxed=False)  # the sandbox imports by name, and a test module has none it could import
class Count:
    """Counts updates until it is told to finish."""

    def __init__(self) -> None:
        self._count = 0
        self._finished = False

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self._finished)
        return self._count

    @workflow.update
    def increment(self) -> int:
        self._count += 1
        return self._count

    @workflow.signal
    def finish(self) -> None:
        self._finished = True


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def test_update_with_start_answers_from_a_workflow_that_did_not_exist(temporal_client: Client) -> None:
    async with Worker(temporal_client, task_queue="update-with-start", workflows=[Count]):
        start = WithStartWorkflowOperation(
            Count.run,
            id="update-with-start",
            task_queue="update-with-start",
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        count = await temporal_client.execute_update_with_start_workflow(
            Count.increment, start_workflow_operation=start
        )
        handle = await start.workflow_handle()
        await handle.signal(Count.finish)
        assert (count, await handle.result()) == (1, 1)


async def test_a_workflow_started_eagerly_goes_to_the_worker_beside_the_client(temporal_client: Client) -> None:
    async with Worker(temporal_client, task_queue="eager", workflows=[Count]):
        handle = await temporal_client.start_workflow(
            Count.run, id="eager", task_queue="eager", request_eager_start=True
        )
        await handle.signal(Count.finish)
        await handle.result()
    started = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
    assert started.eager_execution_accepted


async def test_requests_are_found_by_every_registered_search_attribute(temporal_client: Client) -> None:
    deadline = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    values = TypedSearchAttributes(
        [
            *(
                SearchAttributePair(SearchAttributeKey.for_keyword(f"Holdfast{name}"), name.lower())
                for name in ("Tenant", "User", "Agent", "Session", "Status", "Tier", "Model")
            ),
            SearchAttributePair(SearchAttributeKey.for_keyword_list("HoldfastApprovers"), ["ann", "bob"]),
            SearchAttributePair(SearchAttributeKey.for_datetime("HoldfastApprovalDeadline"), deadline),
            SearchAttributePair(SearchAttributeKey.for_float("HoldfastCostUsd"), 0.25),
            SearchAttributePair(SearchAttributeKey.for_int("HoldfastTokens"), 1234),
        ]
    )
    query = (
        "HoldfastTenant = 'tenant' AND HoldfastUser = 'user' AND HoldfastAgent = 'agent' AND "
        "HoldfastSession = 'session' AND HoldfastStatus = 'status' AND HoldfastTier = 'tier' AND "
        "HoldfastModel = 'model' AND HoldfastApprovers = 'bob' AND HoldfastCostUsd < 0.3 AND "
        "HoldfastTokens = 1234 AND HoldfastApprovalDeadline < '2030-01-02T03:04:06Z'"
    )
    handle = await temporal_client.start_workflow(
        Count.run, id="searched", task_queue="searched", search_attributes=values
    )

    async def found() -> bool:
        return [listed.id async for listed in temporal_client.list_workflows(query)] == ["searched"]

    await _until(found)
    await handle.terminate()


@pytest.mark.chaos
async def test_a_running_workflow_continues_after_the_server_is_killed(tmp_path: Path) -> None:
    async with TemporalServer(database=tmp_path / "state" / "temporal.db", port=0, ui=False) as server:
        client = await Client.connect(server.address)
        async with Worker(client, task_queue="survives", workflows=[Count]):
            handle = await client.start_workflow(Count.run, id="survives", task_queue="survives")
            await handle.execute_update(Count.increment)
            first_pid, first_port = server.pid, server.port
            server.kill()
            assert not server.running
            await server.restart()
            assert server.pid != first_pid
            assert server.port == first_port
            assert await handle.execute_update(Count.increment) == 2
            await handle.signal(Count.finish)
            assert await handle.result() == 2


async def test_the_database_is_in_write_ahead_mode(tmp_path: Path) -> None:
    async with TemporalServer(database=tmp_path / "temporal.db", port=0, ui=False):
        assert (tmp_path / "temporal.db-wal").exists()


async def test_a_database_gains_search_attributes_that_were_added_later(tmp_path: Path) -> None:
    files = _files_with_search_attributes(tmp_path, '[HoldfastTenant]\ntype = "Keyword"\nreason = "r"\n')
    database = tmp_path / "temporal.db"
    async with TemporalServer(database=database, port=0, ui=False, directory=files):
        pass
    async with TemporalServer(database=database, port=0, ui=False) as server:
        client = await Client.connect(server.address)
        registered = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace="default")
        )
        assert {"HoldfastTenant", "HoldfastApprovers", "HoldfastCostUsd"} <= set(registered.custom_attributes)


async def test_a_search_attribute_of_another_type_is_refused_with_the_remedy(tmp_path: Path) -> None:
    files = _files_with_search_attributes(tmp_path, '[HoldfastTenant]\ntype = "Int"\nreason = "r"\n')
    database = tmp_path / "temporal.db"
    async with TemporalServer(database=database, port=0, ui=False, directory=files):
        pass
    second = TemporalServer(database=database, port=0, ui=False)
    with pytest.raises(ConfigurationError, match=r"'HoldfastTenant' as Int, but .* says Keyword"):
        await second.start()
    assert not second.running


async def test_a_taken_port_is_replaced_and_reported() -> None:
    with taken_port() as port, taken_port() as ui_port:
        async with TemporalServer(port=port, ui_port=ui_port) as server:
            assert server.port != port
            assert server.ui_port != ui_port
            assert [str(taken) in sentence for taken, sentence in zip((port, ui_port), server.moved, strict=True)] == [
                True,
                True,
            ]
            reader, writer = await _connected(server.ui_port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.0 200")
            writer.close()
            await writer.wait_closed()


async def test_a_port_lost_between_the_look_and_the_bind_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with taken_port() as port:
        claim = module._claim
        answers = iter([port])
        monkeypatch.setattr(module, "_claim", lambda probe, wanted: next(answers, None) or claim(probe, wanted))
        async with TemporalServer(port=0, ui=False) as server:
            assert server.port != port


async def test_an_early_end_is_reported_with_the_last_lines_of_the_log(tmp_path: Path) -> None:
    database = tmp_path / "temporal.db"
    database.write_text("this is not a database, and long enough to be taken for a broken one" * 100)
    server = TemporalServer(database=database, port=0, ui=False)
    with pytest.raises(Unavailable, match=r"(?s)ended with code 1 before it was ready.*not a database"):
        await server.start()
    assert not server.running


async def test_a_server_that_is_never_ready_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)
    monkeypatch.setattr(module, "temporal_program", lambda: silent)
    server = TemporalServer(port=0, ui=False, start_timeout=timedelta(milliseconds=200))
    with pytest.raises(Unavailable, match="was not ready within"):
        await server.start()
    assert not server.running


async def test_a_server_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    async with TemporalServer(port=0, ui=False, stop_timeout=timedelta(milliseconds=200)) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)  # a stopped process handles no SIGTERM
        await server.stop()
        assert not server.running


async def test_a_second_server_on_the_same_file_is_refused(tmp_path: Path) -> None:
    async with TemporalServer(database=tmp_path / "temporal.db", port=0, ui=False) as first:
        second = TemporalServer(database=tmp_path / "temporal.db", port=0, ui=False)
        with pytest.raises(Unavailable, match=f"process id {first.pid}"):
            await second.start()
        assert first.running


def test_a_missing_program_is_reported_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ConfigurationError, match="make install"):
        TemporalServer(port=0)


_PARENT = """
import asyncio, os, signal, sys
from pathlib import Path
from cli.temporal_server import TemporalServer

async def main():
    tied = sys.argv[2] == "tied"
    server = TemporalServer(database=Path(sys.argv[1]), port=0, ui=False, die_with_parent=tied)
    await server.start()
    print(server.pid, os.getsid(server.pid), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def _killed_parent(database: Path, mode: str) -> tuple[int, int]:
    """Process and session id of a server whose parent has died by SIGKILL."""
    root = Path(module.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", _PARENT, str(database), mode], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, session = done.stdout.split()
    return int(pid), int(session)


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal exists on Linux only")
async def test_the_server_dies_with_a_killed_parent_and_frees_its_file(tmp_path: Path) -> None:
    pid, session = await asyncio.to_thread(_killed_parent, tmp_path / "temporal.db", "tied")
    assert session == pid, "the server shares the terminal's session and would receive Ctrl-C"

    async def gone() -> bool:
        return not _alive(pid)

    try:
        await _until(gone)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise
    async with TemporalServer(database=tmp_path / "temporal.db", port=0, ui=False) as server:
        assert server.running


@pytest.mark.chaos
async def test_a_server_left_behind_on_purpose_keeps_its_file(tmp_path: Path) -> None:
    pid, _ = await asyncio.to_thread(_killed_parent, tmp_path / "temporal.db", "free")
    try:
        with pytest.raises(Unavailable, match=f"process id {pid}"):
            await TemporalServer(database=tmp_path / "temporal.db", port=0, ui=False).start()
    finally:
        os.kill(pid, signal.SIGKILL)


async def _connected(port: int | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the Web UI, which may listen a little later than the frontend."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


def _alive(pid: int) -> bool:
    """Whether a thread of the process still runs: the first can be a zombie while others hold the files open."""
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if thread.read_text().rpartition(")")[2].split()[0] not in "ZX":
                return True
    return False


def _files_with_search_attributes(directory: Path, content: str) -> Path:
    files = directory / "files"
    files.mkdir()
    for name in ("server.toml", "dynamicconfig.yaml"):
        (files / name).write_text((DIRECTORY / name).read_text())
    (files / "search-attributes.toml").write_text(content)
    return files
