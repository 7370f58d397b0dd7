"""A server that is a program: started with the environment it is given, spoken to over its standard streams.

The protocol package's own transport hands variables of ours on, logs what it cannot read, and gathers a line of any
length; so the streams are read here. Lines that are no messages are dropped: many programs print on standard output.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams  # what `Client` takes has no public name
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, jsonrpc_message_adapter

from holdfast.errors import Unavailable
from holdfast.mcp.programs import find_program, not_found
from holdfast.mcp.watch import LEAST_CHARGE, MAX_MESSAGE, REQUEST_CHARGE, Watch

Streams = TransportStreams
"""What comes from a server, and what goes to it."""

_LEASH = Path(__file__).with_name("leash.py")
_LEAVING_SECONDS = 1.0
"""How long a program may take to end after its standard input was closed."""
_KILLED_SECONDS = 5.0
_MAX_STDERR = 1024 * 1024


@dataclass(frozen=True)
class Launch:
    """How to start a program."""

    command: str
    args: tuple[str, ...]
    environment: Mapping[str, str]
    """All it gets."""
    directory: Path | None
    stderr: Path | None

    def found(self) -> str:
        """The program's path.

        Raises:
            Unavailable: There is none.
        """
        path = find_program(self.command, self.environment.get("PATH", os.defpath))
        if path is None:
            raise Unavailable(f"its program {not_found(self.command)}")
        return path


@asynccontextmanager
async def stdio_transport(launch: Launch, watch: Watch) -> AsyncIterator[Streams]:
    """Start the program and yield the streams of its messages; at the end it and all it started are gone."""
    process = await ServerProcess.start(launch)
    into, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, leaving = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_read, process, into, watch)
            group.start_soon(_write, process, leaving)
            try:
                yield incoming, outgoing
            finally:
                group.cancel_scope.cancel()
    finally:
        for stream in (into, incoming, outgoing, leaving):
            stream.close()
        with anyio.CancelScope(shield=True):
            await process.stop()


async def _read(
    process: "ServerProcess", into: MemoryObjectSendStream[SessionMessage | Exception], watch: Watch
) -> None:
    with into:
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the reader's limit
                watch.end(f"it sent a message of more than {MAX_MESSAGE // 1024 // 1024} MB")
                return
            if not line:
                watch.end(await process.epitaph())
                return
            message = _message(line)
            charge = REQUEST_CHARGE if isinstance(message, JSONRPCRequest) else LEAST_CHARGE
            if not watch.received(len(line), least=charge):
                return
            if message is None:
                watch.junk += 1
                continue
            if isinstance(message, JSONRPCNotification) and message.method != "notifications/tools/list_changed":
                continue  # progress and log lines, which nobody here reads
            try:
                await into.send(SessionMessage(message))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return


async def _write(process: "ServerProcess", leaving: MemoryObjectReceiveStream[SessionMessage]) -> None:
    with leaving:
        async for item in leaving:
            line = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
            try:
                process.stdin.write(line)
                await process.stdin.drain()
            except OSError:
                return  # the reader learns how it ended


def _message(line: bytes) -> JSONRPCMessage | None:
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return None


class ServerProcess:
    """A program on its leash."""

    def __init__(
        self, process: asyncio.subprocess.Process, leash: socket.socket, stdin: asyncio.StreamWriter, stdout: "_Output"
    ) -> None:
        self._process = process
        self._leash = leash
        self.stdin = stdin
        self.stdout = stdout.reader
        self._outputs = [stdout]
        self._keeping: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, launch: Launch) -> Self:
        """Start it.

        Raises:
            Unavailable: There is no such program, or the system refuses to start one.
        """
        program = launch.found()
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair()
            undo = contextlib.ExitStack()
            undo.callback(ours.close)
            stack.callback(theirs.close)
            stdin_theirs, stdin_ours = _pipe(stack, undo, ours_writes=True)
            stdout_ours, stdout_theirs = _pipe(stack, undo, ours_writes=False)
            kept: tuple[BinaryIO, BinaryIO] | None = None
            if launch.stderr is not None:
                kept = _pipe(stack, undo, ours_writes=False)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", str(_LEASH), str(theirs.fileno()), program, *launch.args),
                    stdin=stdin_theirs,
                    stdout=stdout_theirs,
                    stderr=kept[1] if kept else asyncio.subprocess.DEVNULL,
                    env=dict(launch.environment),
                    cwd=launch.directory,
                    start_new_session=True,
                    pass_fds=(theirs.fileno(),),
                )
                ours.setblocking(False)
                protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
                transport, _ = await loop.connect_write_pipe(lambda: protocol, stdin_ours)
                stdin = asyncio.StreamWriter(transport, protocol, None, loop)
                started = cls(process, ours, stdin, await _Output.of(stdout_ours))
                if kept and launch.stderr is not None:
                    await started._keep(kept[0], launch.stderr)
            except OSError as error:
                undo.close()
                raise Unavailable(f"its program {launch.command!r} cannot be started: {error.strerror}") from None
            except BaseException:
                undo.close()
                raise
        return started

    async def _keep(self, pipe: BinaryIO, file: Path) -> None:
        output = await _Output.of(pipe)
        self._outputs.append(output)
        self._keeping = asyncio.create_task(_keep(output.reader, file))

    async def epitaph(self) -> str:
        """How it ended, once its output has."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING_SECONDS):
                await self._process.wait()
        try:
            kind, code = self._leash.recv(64).decode().split()
        except (OSError, ValueError):
            return "it closed its standard output"
        if kind == "start":
            return f"its program cannot be started: {os.strerror(int(code))}"
        return f"its program ended with exit code {code}"

    async def stop(self) -> None:
        """End it in order, then by force: standard input closed, then SIGTERM, then SIGKILL for the whole group."""
        try:
            if not self.stdin.transport.is_closing():
                self.stdin.transport.abort()
            if not await self._gone(_LEAVING_SECONDS):
                self._leash.close()
                if not await self._gone(_KILLED_SECONDS):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self._process.pid, signal.SIGKILL)
                    await self._gone(_KILLED_SECONDS)
        finally:
            self._leash.close()
            for output in self._outputs:
                output.transport.close()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    async def _gone(self, within_seconds: float) -> bool:
        try:
            async with asyncio.timeout(within_seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True


@dataclass(frozen=True)
class _Output:
    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport

    @classmethod
    async def of(cls, pipe: BinaryIO) -> Self:
        reader = asyncio.StreamReader(limit=MAX_MESSAGE)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        return cls(reader, transport)


def _pipe(theirs: contextlib.ExitStack, ours: contextlib.ExitStack, *, ours_writes: bool) -> tuple[BinaryIO, BinaryIO]:
    """A pipe; the end of ours is closed only if the start fails, the other one always."""
    reading, writing = os.pipe()
    reader, writer = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
    ours.callback((writer if ours_writes else reader).close)
    theirs.callback((reader if ours_writes else writer).close)
    return reader, writer


async def _keep(reader: asyncio.StreamReader, file: Path) -> None:
    """Append to the file as much as it may take; read on, so that the program is never held up."""
    left = _MAX_STDERR
    while piece := await reader.read(65_536):
        if left > 0:
            await asyncio.to_thread(_append, file, piece[:left])
            left -= len(piece)


def _append(file: Path, piece: bytes) -> None:
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as log:
            log.write(piece)
