"""`holdfast dev` as a user runs it: a process of its own, every part real."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli import demo

REPOSITORY = Path(__file__).parents[2]
HOLDFAST = Path(sys.prefix) / "bin" / "holdfast"
ANY_PORT = ("--port", "0", "--temporal-port", "0", "--ui-port", "0", "--simulator-port", "0")
PATIENCE_SECONDS = 270


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a user who has set none."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return kept | {"HOLDFAST_CONFIG_DIR": str(REPOSITORY / "config")}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with something to ask about."""
    text = "When the worker is killed in the middle of a request, another worker goes on and nothing is lost.\n"
    (tmp_path / "README.md").write_text(f"# Holdfast\n\n{text}", encoding="utf-8")
    return tmp_path


@contextmanager
def dev(project: Path, environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`holdfast dev`, killed at the end if it still runs or hangs."""
    with (project / "stderr").open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [HOLDFAST, "dev", *ANY_PORT, *arguments],
            cwd=project,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    watchdog = threading.Timer(PATIENCE_SECONDS, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What the process writes, up to the line with the words."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if words in line:
            return read
    raise AssertionError(f"{words!r} never came; it ended with {process.wait()} after:\n{read}")


def test_dev_once_answers_from_the_repositorys_own_documents_and_delivers_after_approval(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = subprocess.run(
            [HOLDFAST, "dev", "--once", "--json", *ANY_PORT[2:], "--data", tmp_path / "data"],
            cwd=REPOSITORY,
            env=environment | {"HOLDFAST_GATEWAY__PORT": port},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    document = json.loads(ran.stdout)
    request, answer = document["request"], document["answer"]
    assert document["question"] == demo.QUESTION
    assert request["status"] == "completed", request
    assert (request["user"], request["decided_by"]) == (demo.ASKER, demo.APPROVER)
    assert answer["text"] == document["approval"]["content"]
    assert answer["citations"]
    for citation in answer["citations"]:
        source = (REPOSITORY / citation["source"]).read_text(encoding="utf-8")
        assert source[citation["start"] : citation["end"]] == citation["quote"]
        assert f"[{citation['marker']}]" in answer["text"]
    assert document["trace"] == f"{document['urls']['ui']}/namespaces/default/workflows/{request['id']}"
    assert [sentence for sentence in document["moved"] if f"Port {port} is taken" in sentence]
    assert not document["urls"]["gateway"].endswith(f":{port}")


def test_the_shown_command_approves_and_sigterm_ends_with_0(project: Path, environment: dict[str, str]) -> None:
    with dev(project, environment) as process:
        shown = read_until(process, "stop with Ctrl-C")
        command = re.search(r"Next: (\S*holdfast decide (req_\w+) approve .*)", shown)
        assert command, shown
        decided = subprocess.run(
            command[1],
            shell=True,
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert decided.returncode == 0, decided.stderr
        url = re.search(r"gateway +(http\S+)", shown)
        assert url
        show = [HOLDFAST, "requests", "show", command[2], "--wait", "30", "--json", "--url", url[1]]
        read = subprocess.run(
            show, cwd=project, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        assert json.loads(read.stdout)["status"] == "completed"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    assert "Stopped." in (project / "stderr").read_text(encoding="utf-8")
    assert not _locked(project / "var" / "temporal.db.lock")


def test_a_temporal_server_that_dies_ends_with_1_and_the_next_start_goes_on_with_the_same_question(
    project: Path, environment: dict[str, str]
) -> None:
    with dev(project, environment) as process:
        asked = re.search(r"holdfast decide (req_\w+) approve", read_until(process, "stop with Ctrl-C"))
        assert asked
        os.kill(int((project / "var" / "temporal.db.lock").read_text(encoding="utf-8")), signal.SIGKILL)
        assert process.wait() == 1
    error = (project / "stderr").read_text(encoding="utf-8")
    assert "The Temporal server has died. Last lines of" in error
    assert "temporal.log" in error
    with dev(project, environment, "--once", "--json") as process:
        assert process.stdout is not None
        document = json.loads(process.stdout.read())
        assert process.wait() == 0
    assert (document["request"]["id"], document["request"]["status"]) == (asked[1], "completed")


def _locked(path: Path) -> bool:
    import fcntl  # only where the server locks its file

    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
