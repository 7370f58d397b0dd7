"""The process: what it loads, and that its exit code is the command's own."""

import importlib.metadata
import json
import subprocess
import sys

import pytest

from cli import main
from cli.main import execute
from tests.cli.scripted import ScriptedGateway

NOWHERE = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=180)


def test_client_verbs_load_neither_engine_nor_models_nor_gateway() -> None:
    heavy = ["temporalio", "torch", "gateway", "worker", "numpy", "sqlalchemy", "uvicorn", "opentelemetry"]
    ran = python(f"import cli.main, sys; print([name for name in {heavy} if name in sys.modules])")
    assert ran.stdout == "[]\n", ran.stderr


@pytest.mark.parametrize("loaded", ["temporalio.client", "json"])
def test_the_exit_code_and_the_output_survive_however_the_process_ends(loaded: str) -> None:
    code = f"import atexit, sys, {loaded}; atexit.register(print, 'shut down'); from cli.main import run; run()"
    ran = python(code, "requests", "list", "--json", "--url", NOWHERE)
    assert ran.returncode == 3
    document, _, end = ran.stdout.rpartition("}\n")
    assert "does not answer" in json.loads(document + "}")["detail"]
    # With the SDK loaded the interpreter's own shutdown, in which it aborts, must not be entered.
    assert end == ("" if loaded.startswith("temporalio") else "shut down\n")


def test_spans_are_flushed_before_the_interpreter_is_left_behind() -> None:
    ran = python(
        "import temporalio.client, sys\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider, SpanProcessor\n"
        "class Last(SpanProcessor):\n"
        "    def shutdown(self): print('flushed')\n"
        "provider = TracerProvider(shutdown_on_exit=False)\n"
        "provider.add_span_processor(Last())\n"
        "trace.set_tracer_provider(provider)\n"
        "from cli.main import run\n"
        "run()",
        "requests",
        "list",
        "--url",
        NOWHERE,
    )
    assert ran.stdout == "flushed\n", ran.stderr


def test_a_reader_that_goes_away_causes_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import run; input(); run()", "requests", "list", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"HOLDFAST_URL": NOWHERE},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=180) == 1


def test_no_gateway_ends_with_3_and_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["requests", "list", "--url", NOWHERE]) == 3
    error = capsys.readouterr().err
    assert f"The gateway at {NOWHERE} does not answer" in error
    assert "holdfast dev" in error


def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["ask"]) == 2
    assert "Missing argument 'AGENT'" in capsys.readouterr().err


def test_wrong_usage_in_json_is_a_problem_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["ask", "--json"]) == 2
    problem = json.loads(capsys.readouterr().out)
    assert problem["detail"] == "Missing argument 'AGENT'."
    assert "--help" in problem["remedy"]


def test_json_behind_two_dashes_is_a_word_and_not_an_option(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["ask", "--", "docs", "--json"]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert gateway.calls[0].body == {"agent": "docs", "input": "--json"}


def test_help_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--help"]) == 0
    assert "holdfast dev" in capsys.readouterr().out


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"holdfast {importlib.metadata.version('holdfast')}\n"


def test_a_fault_of_ours_ends_with_1_and_a_problem_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(main, "app", fail)
    assert execute(["requests", "list", "--json"]) == 1
    written = capsys.readouterr()
    assert "ZeroDivisionError" in written.err
    assert json.loads(written.out)["title"] == "The command failed"


def test_an_address_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["requests", "list", "--url", "ftp://127.0.0.1"]) == 2
    assert "'ftp://127.0.0.1' is not a gateway's address" in capsys.readouterr().err
