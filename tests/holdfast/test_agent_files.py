"""What an agent's file says of tools, delegates and approvals is checked whole, and pinned to the run."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.configuration import Agent, load_configuration
from holdfast.contracts import Toolbox
from holdfast.errors import ConfigurationError

MODELS = """
[deployments.local]
provider = "extractive"
model = "m"

[deployments.model]
provider = "openai"
model = "m"
base_url = "http://127.0.0.1:9/v1"
"""
AGENT = 'description = "Counts."\ndeployments = ["model"]\nprompt = "any.md"\n'
TOOLS = 'tools = ["calculator"]\n'


def load(directory: Path, agents: dict[str, str], tools: str = "") -> dict[str, Agent]:
    for name in ("agents", "prompts"):
        (directory / name).mkdir(exist_ok=True)
    (directory / "models.toml").write_text(MODELS)
    (directory / "prompts" / "any.md").write_text("Answer.\n")
    if tools:
        (directory / "tools.toml").write_text(tools)
    for name, text in agents.items():
        (directory / "agents" / f"{name}.toml").write_text(text)
    return load_configuration(directory).agents


def refused(directory: Path, text: str, **more: str) -> str:
    with pytest.raises(ConfigurationError) as found:
        load(directory, {"clerk": text, **more})
    assert "agents/" in str(found.value), "the message names the file"
    return str(found.value)


def test_an_agent_with_tools_is_pinned_to_its_toolbox(tmp_path: Path) -> None:
    policy = '[[approvals]]\non = "calculator"\nwhen = "args.expression != \'1\'"\napprovers = ["ann"]\nwithin = "4h"\n'
    agent = load(tmp_path, {"clerk": AGENT + TOOLS + policy})["clerk"]
    assert agent.plan.toolbox is not None
    (text,) = [text for text in agent.texts if '"policies"' in text]
    pinned = Toolbox.model_validate(json.loads(text))
    assert pinned == agent.toolbox
    assert pinned.tools == ("calculator",)
    assert (pinned.policies[0].on, pinned.policies[0].rule.within) == ("calculator", timedelta(hours=4))
    assert agent.plan.recall is False, "what tools helped to write is not the same tomorrow"
    assert agent.limits.attempts == 2 * agent.limits.iterations, "each iteration is a model call"


def test_an_agent_without_tools_has_no_toolbox_and_the_usual_limits(tmp_path: Path) -> None:
    agent = load(tmp_path, {"clerk": AGENT})["clerk"]
    assert (agent.plan.toolbox, agent.plan.recall, agent.limits.attempts) == (None, True, 6)


def test_the_version_changes_with_a_tool(tmp_path: Path) -> None:
    before = load(tmp_path, {"clerk": AGENT + TOOLS})["clerk"].plan.version
    after = load(tmp_path, {}, tools="[tools.calculator]\noutput_tokens = 50\n")["clerk"].plan.version
    assert before != after


def test_delegates_come_with_their_descriptions(tmp_path: Path) -> None:
    agents = load(tmp_path, {"lead": AGENT + 'delegates = ["clerk-two"]\n', "clerk-two": AGENT})
    (delegate,) = agents["lead"].toolbox.delegates
    assert (delegate.agent, delegate.description, delegate.tool) == ("clerk-two", "Counts.", "ask_clerk_two")


def test_a_pattern_may_cover_the_tools_of_a_server_and_the_delegates(tmp_path: Path) -> None:
    server = '[mcp.files]\ncommand = "files-server"\ntools = ["*"]\n'
    rules = "".join(
        f'[[approvals]]\non = "{on}"\napprovers = ["ann"]\n' for on in ("files.delete_*", "files__*", "ask_*")
    )
    text = AGENT + 'tools = ["files.*"]\ndelegates = ["other"]\n' + rules
    policies = load(tmp_path, {"clerk": text, "other": AGENT}, tools=server)["clerk"].toolbox.policies
    assert [policy.on for policy in policies] == ["files__delete_*", "files__*", "ask_*"]


def test_every_rule_may_say_why_people_are_asked(tmp_path: Path) -> None:
    letters = '[approval]\napprovers = ["ann"]\nwhy = " Letters are read first. "\n'
    budget = '[budget_approval]\napprovers = ["cfo"]\n'
    on_tool = '[[approvals]]\non = "calculator"\napprovers = ["bob"]\nwhy = "Sums above 100 \u20ac need two."\n'
    agent = load(tmp_path, {"clerk": AGENT + TOOLS + letters + budget + on_tool})["clerk"]
    assert agent.plan.approval is not None
    assert agent.plan.budget_approval is not None
    assert (agent.plan.approval.why, agent.plan.budget_approval.why) == ("Letters are read first.", "")
    assert [policy.rule.why for policy in agent.toolbox.policies] == ["Sums above 100 \u20ac need two."]
    assert "why" not in agent.plan.budget_approval.model_fields_set, "what is unset is left out of histories"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('tools = ["calculatr"]\n', ["`tools`", "'calculatr'", "Did you mean 'calculator'?"]),
        ('tools = ["calculator", "calculator"]\n', ["`tools`", "'calculator' twice"]),
        ('tools = ["files.read"]\n', ["no MCP server 'files'"]),
        ('delegates = ["nobody"]\n', ["`delegates`", "'nobody'", "no file defines"]),
        ('delegates = ["clerk"]\n', ["closes a circle, clerk -> clerk"]),
        (TOOLS + "recall = true\n", ["`recall = true`", "leave it out"]),
        (
            TOOLS + '[[approvals]]\non = "refund"\napprovers = ["ann"]\n',
            ["approvals.0", "'refund'", "output, calculator"],
        ),
        (
            TOOLS + '[[approvals]]\non = "calculator"\napprovers = ["ann"]\nwitin = "1m"\n',
            ["`approvals.0.witin` (the rule on 'calculator')", "is no key here", "Did you mean 'within'?"],
        ),
        (
            TOOLS + '[[approvals]]\non = "calculator"\n',
            ["`approvals.0.approvers` (the rule on 'calculator'): is missing; add it"],
        ),
        ("[approval]\napprovers = []\n", ["`approval.approvers`: is empty; name at least one"]),
        (
            TOOLS + '[[approvals]]\non = "calculator"\napprovers = "ann"\n',
            ["`approvals.0.approvers`", 'write a list, in square brackets: ["..."]'],
        ),
        (
            '[approval]\napprovers = ["ann"]\n[[approvals]]\non = "output"\napprovers = ["bob"]\n',
            ["the output has two rules"],
        ),
        ('[approval]\napprovers = ["ann"]\nquorum = 2\n', ["`quorum` asks for 2", "`approvers` names 1"]),
        (
            '[approval]\napprovers = ["*"]\nquorum = 2\n[[approval.escalation]]\napprovers = ["cfo"]\n',
            ["`quorum` asks for 2", "`escalation.0.approvers` names 1"],
        ),
        ('[approval]\napprovers = ["role:"]\n', ["empty name"]),
        ('[approval]\napprovers = ["ann"]\nwhy = "Two\\nlines."\n', ["`approval.why`", "one line of plain text"]),
        ('[approval]\napprovers = ["ann"]\nwhy = "Pay\\u202e001"\n', ["`approval.why`", "nobody sees"]),
        (f'[approval]\napprovers = ["ann"]\nwhy = "{"x" * 301}"\n', ["`approval.why`", "300"]),
        ('[approval]\napprovers = ["ann"]\nwithin = "1h"\nreminders = ["2h"]\n', ["`reminders`", "7200 s"]),
        ('[taint]\ntrust = ["the web"]\n', ["`taint.trust.0`"]),
        ("[limits]\niterations = 0\n", ["`limits.iterations`"]),
        ('[approval]\napprovers = ["ann"]\nqorum = 2\n', ["`approval.qorum`", "Did you mean 'quorum'?"]),
    ],
)
def test_what_cannot_work_is_refused_with_its_key_and_a_remedy(tmp_path: Path, text: str, words: list[str]) -> None:
    message = refused(tmp_path, AGENT + text)
    assert all(word in message for word in words), message


def test_a_delegate_without_a_description_is_refused(tmp_path: Path) -> None:
    silent = AGENT.replace('description = "Counts."\n', "")
    message = refused(tmp_path, AGENT + 'delegates = ["other"]\n', other=silent)
    assert "agents/other.toml" in message
    assert "`description`" in message


def test_tools_need_a_model_that_can_call_them(tmp_path: Path) -> None:
    message = refused(tmp_path, AGENT.replace('"model"', '"local"') + TOOLS)
    assert "add a deployment of a model" in message


def test_a_quorum_of_a_role_is_for_the_role_to_meet(tmp_path: Path) -> None:
    rule = '[approval]\napprovers = ["role:finance"]\nquorum = 2\nreminders = ["15m", "1h", "1h"]\n'
    approval = load(tmp_path, {"clerk": AGENT + rule})["clerk"].plan.approval
    assert approval is not None
    assert approval.quorum == 2
    assert approval.reminders == (timedelta(hours=1), timedelta(minutes=15)), "the earliest first, each once"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            '[[approvals]]\non = "calculator"\nwhen = "arg.x > 1"\napprovers = ["ann"]\n',
            ["approvals.0 (the rule on 'calculator'): `when`", "arg"],
        ),
        ('[approval]\nwhen = "output ="\napprovers = ["ann"]\n', ["`approval.when`"]),
    ],
)
def test_a_condition_that_cannot_be_evaluated_is_refused(tmp_path: Path, rule: str, words: list[str]) -> None:
    message = refused(tmp_path, AGENT + TOOLS + rule)
    assert all(word in message for word in words), message


def rule(on: str, when: str) -> str:
    return f'[[approvals]]\non = "{on}"\nwhen = "{when}"\napprovers = ["ann"]\n'


@pytest.mark.parametrize(
    ("on", "when", "words"),
    [
        (
            "calculator",
            "args.expresion != '1'",
            ["the rule on 'calculator'): `when`", "args.expresion", "Did you mean 'expression'"],
        ),
        (
            "calculator",
            "expression == ''",
            ["names 'expression', which there is not", "Did you mean 'args.expression'?"],
        ),
        ("calc*", "size(args.expr) > 9", ["'args.expr'", "`args` has expression"]),
        ("ask_other", "args.tsk == ''", ["'args.tsk'", "Did you mean 'task'"]),
        ("output", "output.total > 3", ["`output` is a value without names"]),
    ],
)
def test_a_rule_that_names_what_its_tool_does_not_take_is_refused(
    tmp_path: Path, on: str, when: str, words: list[str]
) -> None:
    message = refused(tmp_path, AGENT + TOOLS + 'delegates = ["other"]\n' + rule(on, when), other=AGENT)
    assert all(word in message for word in words), message


def test_a_rule_may_name_what_any_of_its_tools_takes_and_whatever_a_server_may_know(tmp_path: Path) -> None:
    text = AGENT + 'tools = ["calculator", "files.read_*"]\ndelegates = ["other"]\n'
    text += rule("ask_*", "size(args.task) > 9") + rule("*", "has(args.path) && args.path == '/'")
    assert "clerk" in load(tmp_path, {"clerk": text, "other": AGENT}, '[mcp.files]\ncommand = "true"\ntools = ["*"]\n')
    text = AGENT + TOOLS + 'delegates = ["other"]\n' + rule("*", "has(args.task) && args.task == ''")
    assert "clerk" in load(tmp_path, {"clerk": text, "other": AGENT})


def test_a_rule_on_an_answer_with_a_schema_may_name_what_the_schema_has(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "sum.json").write_text('{"type": "object", "properties": {"total": {"type": "number"}}}')
    answering = AGENT + 'output_schema = "sum.json"\n'
    assert "clerk" in load(
        tmp_path, {"clerk": answering + '[approval]\nwhen = "output.total > 3"\napprovers = ["a"]\n'}
    )
    message = refused(tmp_path, answering + '[approval]\nwhen = "output.totl > 3"\napprovers = ["a"]\n')
    assert all(word in message for word in ["`approval.when`", "'output.totl'", "Did you mean 'total'"]), message


def test_a_prompt_that_is_not_there_is_answered_with_the_nearest_file(tmp_path: Path) -> None:
    message = refused(tmp_path, AGENT.replace("any.md", "anny.md"))
    assert "`prompt` names" in message
    assert "Did you mean 'any.md'?" in message
