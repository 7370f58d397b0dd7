"""`route explain` prints the decision of the real router, and calls nobody."""

import json
import shutil
from pathlib import Path

import pytest

from cli.main import execute

CONFIG = Path(__file__).parents[2] / "config"

MODELS = """
[deployments.small]
provider = "openai"
model = "small-1"
base_url = "http://127.0.0.1:9/v1"
tier = "small"
price = { input = "0.10", output = "0.20" }

[deployments.large]
provider = "openai"
model = "large-1"
base_url = "http://127.0.0.1:9/v1"
tier = "large"
price = { input = "0.80", output = "1.60" }

[deployments.password-reset]
provider = "handler"
model = "holdfast.handlers:password_reset"
parameters = { reset_url = "https://example.com/reset" }
"""

HELP = """
deployments = ["large", "small"]
prompt = "writer.md"
routing = "complexity"

[[intents]]
name = "password_reset"
deployment = "password-reset"
examples = ["I forgot my password", "How can I reset my password?", "Send me a link to set a new password"]
"""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A configuration with two models and a handler, and no settings but the defaults."""
    shutil.copytree(CONFIG, tmp_path / "config")
    shutil.rmtree(tmp_path / "config" / "agents")
    (tmp_path / "config" / "agents").mkdir()
    (tmp_path / "config" / "models.toml").write_text(MODELS, encoding="utf-8")
    (tmp_path / "config" / "agents" / "help.toml").write_text(HELP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_CONFIG", raising=False)


def test_without_an_embedding_the_list_decides(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["route", "explain", "help", "I forgot my password", "--no-embedding"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("large: of unknown complexity, so the first of the list")
    assert lines[1] == "then: small"
    assert not list(Path().glob("var*")), "the installation's ledger is left alone"


@pytest.mark.parametrize(
    ("question", "deployment", "why"),
    [
        ("I forgot my password, please help", "password-reset", "intent password_reset"),
        ("What is the capital of Portugal?", "small", "simple ("),
        ("Prove that pi is irrational, and compare two proofs by the tools they need.", "large", "complex ("),
    ],
)
def test_the_question_decides_with_the_real_embedding_model(
    question: str, deployment: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["route", "explain", "help", question, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["deployment"] == deployment
    assert document["line"].startswith(f"{deployment}: {why}")
    assert {reason["policy"] for reason in document["reasons"]} <= {"intent", "strategy", "price", "usable"}


def test_what_is_left_out_is_named_and_nothing_left_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["route", "explain", "help", "hello", "--no-embedding", "--without", "large"]
    assert execute(command) == 0
    assert "skipped: large failed this request" in capsys.readouterr().out
    assert execute([*command, "--without", "small"]) == 1
    assert "no deployment is left" in capsys.readouterr().out


def test_an_unknown_agent_is_answered_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["route", "explain", "helper", "hello"]) == 1
    assert "Did you mean 'help'?" in capsys.readouterr().err
