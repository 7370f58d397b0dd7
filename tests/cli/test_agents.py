"""`agents` reads, shows and begins agents, and never overwrites one."""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cli.main import execute

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = tmp_path / "config"
    shutil.copytree(CONFIG, copied)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_CONFIG_DIR", raising=False)
    return copied


def test_what_is_shipped_fits_together(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["agents", "check"]) == 0
    assert "fit together" in capsys.readouterr().out


def test_a_wrong_file_ends_with_1_and_its_remedy(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config / "agents" / "writer.toml").write_text('deployments = ["sim-lrge"]\nprompt = "writer.md"\n')
    assert execute(["agents", "check", "--json"]) == 1
    detail = json.loads(capsys.readouterr().out)["detail"]
    assert "writer.toml" in detail
    assert "Did you mean 'sim-large'?" in detail


def test_list_and_show_tell_who_uses_what_and_who_is_asked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["agents", "list", "--json"]) == 0
    rows = {row["agent"]: row for row in json.loads(capsys.readouterr().out)["agents"]}
    assert rows["refunds"]["tools"] == ["lookup_order", "refund"]
    assert execute(["agents", "show", "refunds", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (rule,) = shown["approvals"]
    assert (rule["on"], rule["approvers"]) == ("refund", ["role:finance"])
    assert shown["limits"]["tool_calls"] == 6
    assert len(shown["prompt_sha256"]) == 64
    assert execute(["agents", "show", "refnds"]) == 1
    told = capsys.readouterr().err
    assert "Did you mean 'refunds'?" in told
    assert "Next: `holdfast agents list`" in told


def test_times_are_shown_as_files_write_them(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = (config / "agents" / "refunds.toml").read_text().replace('within = "4h"', 'within = "1h30m"\nquorum = 2')
    (config / "agents" / "refunds.toml").write_text(agent)
    assert execute(["agents", "show", "refunds"]) == 0
    shown = capsys.readouterr().out
    assert "deadline 2d" in shown
    assert "approval on refund when args.amount > 20.0: 2 of role:finance within 1h30m, then reject" in shown


def test_an_agent_is_shown_with_its_prompt_why_people_are_asked_and_what_it_trusts(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = (
        (config / "agents" / "refunds.toml").read_text().replace("[[approvals]]", '[[approvals]]\nwhy = "It is money."')
    )
    (config / "agents" / "refunds.toml").write_text(agent)
    assert execute(["agents", "show", "refunds"]) == 0
    shown = capsys.readouterr().out
    assert f"prompt: {Path('config') / 'prompts' / 'refunds.md'}, SHA-256 " in shown
    assert "then reject\n  why: It is money.\n" in shown
    assert "taint: trust tools, side_effects refuse, skip_approvals false\n" in shown
    assert execute(["agents", "show", "refunds", "--json"]) == 0
    assert Path(json.loads(capsys.readouterr().out)["prompt_file"]).read_text()


def test_what_comes_next_is_told_as_steps_with_the_restart_before_the_question(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in (["new", "billing"], ["show", "billing"]):
        assert execute(["agents", *verb]) == 0
        steps = capsys.readouterr().out.partition("Next: ")[2].splitlines()
        assert steps[0].startswith(f"edit {Path('config') / 'agents' / 'billing.toml'}")
        assert steps[-2].startswith("then: restart gateway and workers")
        assert steps[-1] == "then: holdfast ask billing '...'"
        assert any("holdfast agents check" in step for step in steps[:-2])
    file = config / "agents" / "billing.toml"
    before, offered, rule = file.read_text().partition("# [[approvals]]")
    file.write_text(before + re.sub(r"^# ", "", offered + rule, flags=re.MULTILINE))
    assert execute(["agents", "check"]) == 0, "the rule that is offered works as it stands"


def test_a_new_agent_can_be_read_at_once_and_is_never_overwritten(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["agents", "new", "billing", "--description", 'Answers "billing" \\ questions.', "--json"]
    assert execute(begin) == 0
    written = json.loads(capsys.readouterr().out)
    assert [Path(path).exists() for path in written["files"]] == [True, True]
    assert execute(["agents", "show", "billing", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["description"] == 'Answers "billing" \\ questions.'
    before = (config / "agents" / "billing.toml").read_text()
    assert execute(begin) == 1
    assert "is there already" in capsys.readouterr().out
    assert (config / "agents" / "billing.toml").read_text() == before


def test_an_agent_that_is_begun_without_a_description_says_what_it_is_in_words(config: Path) -> None:
    assert execute(["agents", "new", "order-status"]) == 0
    assert 'description = "Helps with order status."' in (config / "agents" / "order-status.toml").read_text()
    assert "Helps with order status." in (config / "prompts" / "order-status.md").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["Billing"],
        ["billing", "--deployment", "nobody"],
        ["billing", "--description", "Answers\nquestions."],
        ["billing", "--description", "Answers \x1b[31mquestions."],
    ],
)
def test_a_name_deployment_or_description_that_cannot_be_writes_nothing(config: Path, arguments: list[str]) -> None:
    before = sorted(config.rglob("*"))
    assert execute(["agents", "new", *arguments]) == 2
    assert sorted(config.rglob("*")) == before


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("people.toml", "", ["agents/refunds.toml", "'role:finance'", "people.toml"]),
        ("notifications.toml", '[webhooks.ops]\nurl = "https://example.org/"\n', ["notifications.toml", "ops"]),
        ("tools.toml", '[tools.shop]\nuse = "sql_qery"\n', ["tools.toml", "sql_qery"]),
    ],
)
def test_check_reads_what_stands_beside_the_agents_too(
    config: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, words: list[str]
) -> None:
    (config / file).write_text(text)
    assert execute(["agents", "check", "--json"]) == 1
    detail = json.loads(capsys.readouterr().out)["detail"]
    assert all(word in detail for word in words), detail


def test_check_tells_of_a_database_that_is_not_there_and_refuses_one_that_no_variable_names(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert execute(["agents", "check", "--json"]) == 0
    (lacking,) = json.loads(capsys.readouterr().out)["lacking"]
    assert "tools.toml: tools.shop: `path` leads to" in lacking
    assert str(tmp_path / "var" / "samples" / "shop.db") in lacking
    assert "put it there, or correct the key" in lacking
    assert execute(["agents", "check"]) == 0
    assert "`path` leads to" in capsys.readouterr().out
    (tmp_path / "var" / "samples").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "var" / "samples" / "shop.db")) as made:
        made.execute("CREATE TABLE products (id integer)")
    assert execute(["agents", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lacking"] == []
    tools = (config / "tools.toml").read_text().replace('path = "var/samples/shop.db"', 'url_env = "SHOP_OF_NOBODY"')
    (config / "tools.toml").write_text(tools)
    assert execute(["agents", "check", "--json"]) == 1
    assert "tools.shop: the variable SHOP_OF_NOBODY is not set" in json.loads(capsys.readouterr().out)["detail"]
    monkeypatch.setenv("SHOP_OF_NOBODY", "postgresql://ann:hunter2@127.0.0.1:9/shop")
    assert execute(["agents", "check", "--json"]) == 0, "whether a server answers is for the calls to find out"
