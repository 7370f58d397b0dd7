"""MCP servers that were not written here: installed once into a place of their own, and started as their users do.

They are kept beside the tests' own environment, because a server may want other versions of the same packages. A
download that fails or stalls is tried once more. Without npm, or without a package registry, the tests are skipped with
the reason; where `CI` is set they fail instead.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest

NPM = ("@modelcontextprotocol/server-everything@2026.8.31", "@modelcontextprotocol/server-filesystem@2026.8.31")
PYPI = ("mcp-server-time==2026.10.19",)
INSTALL_SECONDS = 240
START_SECONDS = 120


def npm_programs(directory: Path) -> Path:
    """Install the servers from npm; returns the directory of their programs."""
    npm = shutil.which("npm")
    if npm is None:
        missing("npm is not installed: install Node.js 20 or newer")
    _install([npm, "install", "--prefix", str(directory), "--no-audit", "--no-fund", "--ignore-scripts", *NPM])
    return directory / "node_modules" / ".bin"


def pypi_programs(directory: Path) -> Path:
    """Install the servers from PyPI into a virtual environment; returns the directory of their programs."""
    _install([sys.executable, "-m", "venv", "--without-pip", str(directory)])
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin" / "python")]
    _install([*pip, "install", "--quiet", "--disable-pip-version-check", *PYPI])
    return directory / "bin"


@asynccontextmanager
async def everything_over_http(programs: Path, port: int) -> AsyncIterator[str]:
    """Run the reference server `everything` over streamable HTTP and yield its endpoint; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        str(programs / "mcp-server-everything"),
        "streamableHttp",
        env={"PATH": os.environ["PATH"], "PORT": str(port)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await _listens(port):
                assert process.returncode is None, f"the server ended with code {process.returncode} before it listened"
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.wait()


def missing(reason: str) -> NoReturn:
    """Skip, or fail where nothing may be skipped."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def _install(command: list[str]) -> None:
    first = _failure(command)
    if first and (second := _failure(command)):
        missing(f"{' '.join(command)} failed twice.\nFirst: {first}\nThen: {second}")


def _failure(command: list[str]) -> str:
    """What was wrong, with the last words of the program; empty when it did what it should."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it did not finish within {INSTALL_SECONDS} s"
    said = (done.stdout + done.stderr).strip()
    return f"exit code {done.returncode}: {said[-1_000:]}" if done.returncode else ""
