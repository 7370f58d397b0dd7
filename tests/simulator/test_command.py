"""`python -m simulator` as a process: its line, its signals, its exit codes, its bill after SIGKILL."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulator.__main__ import main

ROOT = Path(__file__).parents[2]


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A simulator process and its URL."""
    command = [sys.executable, "-m", "simulator", "--port", "0", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield process, process.stdout.readline().strip().rsplit(" ", 1)[-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def chat(url: str, read_seconds: float = 60) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
    return httpx.post(
        f"{url}/v1/chat/completions", json=body, timeout=httpx.Timeout(60, read=read_seconds), trust_env=False
    )


def billed(url: str, requests: int) -> dict[str, Any]:
    """The bill once so many calls are on it."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        bill: dict[str, Any] = httpx.get(f"{url}/_simulator/bill", timeout=60, trust_env=False).json()
        if bill["requests"] >= requests:
            return bill
    raise AssertionError(f"{requests} calls never came")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly_even_while_a_call_hangs(tmp_path: Path, number: signal.Signals) -> None:
    profile = tmp_path / "hang.toml"
    profile.write_text("[models.m]\nkind = 'hang'\n")
    with (
        started("--profile", str(profile)) as (process, url),
        socket.create_connection((httpx.URL(url).host, httpx.URL(url).port or 0)) as hanging,
    ):
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        hanging.sendall(head + body)
        billed(url, 1)
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.chaos
def test_the_bill_survives_sigkill(tmp_path: Path) -> None:
    bill = tmp_path / "bill.jsonl"
    with started("--bill", str(bill)) as (process, url):
        assert chat(url).status_code == 200
        httpx.post(f"{url}/_simulator/script", json=[{"kind": "hang"}], timeout=60, trust_env=False)
        with pytest.raises(httpx.ReadTimeout):
            chat(url, read_seconds=1)
        before = billed(url, 2)
        process.kill()
        process.wait()
    with started("--bill", str(bill)) as (_, url):
        assert httpx.get(f"{url}/_simulator/bill", trust_env=False).json() == before
    assert [entry["completed"] for entry in before["entries"]] == [True, False]


def test_a_taken_port_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port), "--bill", str(tmp_path / "bill.jsonl")]) == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--profile", "--bill"])
def test_a_wrong_file_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    path = tmp_path / "missing" / "file"
    assert main(["--port", "0", option, str(path)]) == 1
    assert str(path) in capsys.readouterr().err
