"""A wrong file is named with key and remedy before anything is served, and what is shipped is right."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.submission import LimitsBody
from holdfast.agent_file import LimitSettings
from holdfast.configuration import load_configuration, reference
from holdfast.contracts import Limits
from holdfast.deployments import Deployment, resolve_key
from holdfast.errors import ConfigurationError, UnknownAgent

ROOT = Path(__file__).parents[2]

GOOD = {
    "models.toml": '[deployments.local]\nprovider = "extractive"\nmodel = "m"\n',
    "agents/docs.toml": 'deployments = ["local"]\nprompt = "docs.md"\noutput_schema = "point.json"\n',
    "prompts/docs.md": "Answer.\n",
    "schemas/point.json": '{"type": "object"}',
}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a configuration with some files replaced, removed (`None`) or given as bytes."""

    def written(**changes: Any) -> Path:
        for name, text in {**GOOD, **changes.get("files", {})}.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(text, bytes):
                file.write_bytes(text)
            elif text is not None:
                file.write_text(text)
        return tmp_path

    return written


AGENT = GOOD["agents/docs.toml"]
MODELS = GOOD["models.toml"]
DEEP = "[" * 100_000
PAID = """
[deployments.paid]
provider = "openai"
model = "m"
base_url = "https://api.example.org/v1"
price = { input = "1", output = "20" }
"""

BAD: dict[str, tuple[dict[str, str | bytes | None], list[str]]] = {
    "no models file": ({"models.toml": None}, ["models.toml", "does not exist", "config_dir"]),
    "models file is not TOML": ({"models.toml": "[deployments\n"}, ["models.toml", "not valid TOML", "line 1"]),
    "models file is not UTF-8": ({"models.toml": b"model = '\xff'"}, ["models.toml", "not UTF-8"]),
    "unknown table": ({"models.toml": MODELS + "[agents]\n"}, ["models.toml", "'agents'", "[deployments.<name>]"]),
    "no deployment": ({"models.toml": ""}, ["models.toml", "no deployment", "[deployments.<name>]"]),
    "deployments is a value": ({"models.toml": "deployments = 3"}, ["models.toml", "`deployments`", "tables"]),
    "a deployment is a value": ({"models.toml": "[deployments]\nlocal = 3"}, ["models.toml", "`deployments.local"]),
    "a name no agent can say": (
        {"models.toml": MODELS + '[deployments."My GPT"]\nprovider = "extractive"\nmodel = "m"\n'},
        ["models.toml", "`deployments.My GPT`", "lower case"],
    ),
    "unknown key of a deployment": (
        {"models.toml": MODELS + 'modle = "m"\n'},
        ["models.toml", "`deployments.local.modle`", "Did you mean 'model'?"],
    ),
    "unknown key of a table of a deployment": (
        {"models.toml": MODELS + 'timeouts = { first_tokn = "5s" }\n'},
        ["models.toml", "`deployments.local.timeouts.first_tokn`", "Did you mean 'first_token'?"],
    ),
    "unknown provider": (
        {"models.toml": MODELS.replace("extractive", "opnai")},
        ["models.toml", "`deployments.local.provider`", "'openai'"],
    ),
    "no model": (
        {"models.toml": MODELS.replace('model = "m"', "")},
        ["models.toml", "`deployments.local.model`", "is missing; add it"],
    ),
    "a URL without a scheme": (
        {"models.toml": '[deployments.local]\nprovider = "openai"\nmodel = "m"\nbase_url = "api.example.org"\n'},
        ["models.toml", "`deployments.local`", "`base_url`", "http"],
    ),
    "a negative price": (
        {"models.toml": MODELS + 'price = { input = "-1", output = "1" }\n'},
        ["models.toml", "`deployments.local.price.input`", "greater than or equal to 0"],
    ),
    "half a price": (
        {"models.toml": MODELS + 'price = { input = "1" }\n'},
        ["models.toml", "`deployments.local.price.output`", "is missing; add it"],
    ),
    "a duration without a unit": (
        {"models.toml": MODELS + "timeouts = { total = 90 }\n"},
        ["models.toml", "`deployments.local.timeouts.total`", "needs a unit", "'90s'"],
    ),
    "a duration of nothing": (
        {"models.toml": MODELS + 'timeouts = { total = "0s" }\n'},
        ["models.toml", "`deployments.local.timeouts.total`", "greater than"],
    ),
    "no agents": ({"agents/docs.toml": None}, ["agents", "holds no agent", "<name>.toml"]),
    "an agent is not TOML": ({"agents/docs.toml": "deployments = ["}, ["docs.toml", "not valid TOML"]),
    "an agent's name": ({"agents/My Agent.toml": AGENT}, ["My Agent.toml", "`agent`", "pattern"]),
    "unknown key of an agent": (
        {"agents/docs.toml": AGENT + 'promt = "x"\n'},
        ["docs.toml", "`promt`", "Did you mean 'prompt'?"],
    ),
    "a key like no other": (
        {"agents/docs.toml": AGENT + "zzz = 1\n"},
        ["docs.toml", "`zzz`", "Known keys: ", "prompt"],
    ),
    "unknown key of a table of an agent": (
        {"agents/docs.toml": AGENT + '[approval]\napprovers = ["ann"]\nwithn = "1h"\n'},
        ["docs.toml", "`approval.withn`", "Did you mean 'within'?"],
    ),
    "unknown deployment": (
        {"agents/docs.toml": AGENT.replace('"local"', '"locl"')},
        ["docs.toml", "`deployments`", "'locl'", "models.toml", "Did you mean 'local'?"],
    ),
    "no deployments": (
        {"agents/docs.toml": AGENT.replace('["local"]', "[]")},
        ["docs.toml", "`deployments`", "name at least one"],
    ),
    "missing prompt": (
        {"agents/docs.toml": AGENT.replace("docs.md", "dosc.md")},
        ["docs.toml", "`prompt`", "dosc.md", "does not exist"],
    ),
    "no prompt": ({"agents/docs.toml": 'deployments = ["local"]\n'}, ["docs.toml", "`prompt`", "is missing; add it"]),
    "an empty prompt name": ({"agents/docs.toml": AGENT.replace("docs.md", "")}, ["docs.toml", "`prompt`", "file in"]),
    "a prompt that is a directory": (
        {"agents/docs.toml": AGENT.replace("docs.md", "more"), "prompts/more/x.md": "x"},
        ["docs.toml", "`prompt`", "more", "directory"],
    ),
    "a prompt outside": (
        {"agents/docs.toml": AGENT.replace("docs.md", "../models.toml")},
        ["docs.toml", "`prompt`", "file in", "'../models.toml'"],
    ),
    "a prompt anywhere": (
        {"agents/docs.toml": AGENT.replace("docs.md", "/etc/hostname")},
        ["docs.toml", "`prompt`", "file in"],
    ),
    "a prompt that is not UTF-8": ({"prompts/docs.md": b"\xff\xfe"}, ["docs.md", "not valid UTF-8", "byte 0"]),
    "a schema that is not JSON": ({"schemas/point.json": "{type: object}"}, ["point.json", "not valid JSON", "line 1"]),
    "a schema nested without end": ({"schemas/point.json": DEEP}, ["point.json", "not valid JSON"]),
    "a schema that is a list": ({"schemas/point.json": "[]"}, ["point.json", "object", "list"]),
    "a schema that is no schema": (
        {"schemas/point.json": '{"type": "objet"}'},
        ["point.json", "the JSON Schema is not valid", "`/type`"],
    ),
    "a schema that fetches another": (
        {"schemas/point.json": '{"$ref": "https://example.org/s.json"}'},
        ["point.json", "never fetched", "$defs"],
    ),
    "a schema outside": (
        {"agents/docs.toml": AGENT.replace("point.json", "../../point.json")},
        ["docs.toml", "`output_schema`", "file in"],
    ),
    "nobody may approve": (
        {"agents/docs.toml": AGENT + "[approval]\napprovers = []\n"},
        ["docs.toml", "`approval.approvers`", "name at least one"],
    ),
    "an approval that defaults to something else": (
        {"agents/docs.toml": AGENT + '[approval]\napprovers = ["ann"]\ndefault = "escalate"\n'},
        ["docs.toml", "`approval.default`", "'reject'"],
    ),
    "an approval until yesterday": (
        {"agents/docs.toml": AGENT + '[approval]\napprovers = ["ann"]\nwithin = "-PT1H"\n'},
        ["docs.toml", "`approval.within`", "duration"],
    ),
    "a limit below nothing": (
        {"agents/docs.toml": AGENT + "[limits]\ntokens = -5\n"},
        ["docs.toml", "`limits.tokens`", "greater than 0"],
    ),
    "a deadline without a unit": (
        {"agents/docs.toml": AGENT + '[limits]\ndeadline = "90"\n'},
        ["docs.toml", "`limits.deadline`", "needs a unit", "'90s'"],
    ),
    "a deadline beyond time": (
        {"agents/docs.toml": AGENT + '[limits]\ndeadline = "99999999999999999999d"\n'},
        ["docs.toml", "`limits.deadline`", "longer than"],
    ),
    "a deadline in words": (
        {"agents/docs.toml": AGENT + '[limits]\ndeadline = "an hour"\n'},
        ["docs.toml", "`limits.deadline`", "'2h'"],
    ),
    "a refusal pattern that is none": (
        {"agents/docs.toml": AGENT + '[guards]\nrefuse = ["ok", "("]\n'},
        ["docs.toml", "`guards.refuse`", "pattern 2"],
    ),
    "a price list that there is not": (
        {"models.toml": MODELS + 'vendor = "opnai"\n'},
        ["models.toml", "`deployments.local`", "`vendor` is 'opnai'", "did you mean 'openai'?"],
    ),
    "a price list like no other": (
        {"models.toml": MODELS + 'vendor = "zzzzzz"\n'},
        ["models.toml", "`vendor` is 'zzzzzz'", "leave it out"],
    ),
    "fewer tokens than a reply has": (
        {"agents/docs.toml": AGENT + "[limits]\ntokens = 1_000\noutput_tokens = 1_000\n"},
        ["docs.toml", "`limits.tokens` is 1000", "1000 for a reply", "lower `limits.output_tokens`"],
    ),
    "fewer tokens than the instructions have": (
        {"agents/docs.toml": AGENT + "[limits]\ntokens = 2_000\n", "prompts/docs.md": "Answer well. " * 1_000},
        ["docs.toml", "`limits.tokens` is 2000", "for the instructions and 1024 for a reply"],
    ),
    "fewer dollars than a call costs": (
        {
            "models.toml": MODELS + PAID,
            "agents/docs.toml": AGENT.replace('"local"', '"paid"') + '[limits]\ncost_usd = "0.01"\n',
        },
        ["docs.toml", "`limits.cost_usd` is 0.01", "may cost 0.0", "cheaper deployment"],
    ),
    "an answer that is sent to who gave it": (
        {"agents/docs.toml": AGENT + '[escalation]\nbelow = 0.5\nto = ["local"]\n'},
        ["docs.toml", "`escalation.to` names 'local'", "name another deployment"],
    ),
    "a question that is sent to who was asked": (
        {
            "agents/docs.toml": AGENT
            + '[approval]\napprovers = ["ann", "bob"]\n[[approval.escalation]]\napprovers = ["eve"]\n'
            '[[approval.escalation]]\napprovers = ["eve"]\n'
        },
        ["docs.toml", "`approval`", "`escalation.1.approvers` names nobody who has not been asked before"],
    ),
    "a question that is sent to some of everybody": (
        {
            "agents/docs.toml": AGENT
            + '[approval]\napprovers = ["*"]\n[[approval.escalation]]\napprovers = ["role:boss"]\n'
        },
        ["docs.toml", "`escalation.0.approvers`", "more time with `within`"],
    ),
    "too many passages": (
        {"agents/docs.toml": AGENT + "passages = 51\n"},
        ["docs.toml", "`passages`", "less than or equal to 50"],
    ),
}


@pytest.mark.parametrize(("files", "told"), BAD.values(), ids=BAD.keys())
def test_a_wrong_file_is_named_with_key_and_remedy(
    write: Write, files: dict[str, str | bytes | None], told: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        load_configuration(write(files=files))
    message = str(wrong.value)
    assert [piece for piece in told if piece not in message] == [], message
    assert "\n" not in message


def test_the_good_configuration_of_these_tests_is_good(write: Write) -> None:
    configuration = load_configuration(write())
    agent = configuration.agent("docs")
    assert agent.plan.instructions == reference("Answer.\n")
    assert agent.texts == ("Answer.\n", '{"type":"object"}')


def test_limits_that_some_deployment_meets_are_good(write: Write) -> None:
    limits = '[limits]\ntokens = 1_100\ncost_usd = "0.01"\n'
    for deployments, more in (('"paid", "local"', ""), ('"paid"', '[fallbacks]\nbudget = ["local"]\n')):
        agent = AGENT.replace('"local"', deployments) + limits + more
        assert load_configuration(write(files={"models.toml": MODELS + PAID, "agents/docs.toml": agent})).agents
    unpriced = PAID.replace('price = { input = "1", output = "20" }', 'vendor = "anthropic"')
    agent = AGENT.replace('"local"', '"paid"') + limits
    assert load_configuration(write(files={"models.toml": MODELS + unpriced, "agents/docs.toml": agent})).agents


def test_an_escalation_that_asks_somebody_new_is_good(write: Write) -> None:
    more = '[escalation]\nbelow = 0.5\nto = ["local"]\n[approval]\napprovers = ["ann"]\n'
    more += '[[approval.escalation]]\napprovers = ["ann", "eve"]\n[[approval.escalation]]\napprovers = ["*"]\n'
    agent = AGENT.replace('["local"]', '["paid", "local"]') + more
    rule = load_configuration(write(files={"models.toml": MODELS + PAID, "agents/docs.toml": agent}))
    assert rule.agent("docs").plan.escalation is not None


def test_two_mistakes_are_told_together(write: Write) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        load_configuration(write(files={"agents/docs.toml": AGENT + 'passages = 0\npromt = "x"\n'}))
    assert "`passages`" in str(wrong.value)
    assert "`promt`" in str(wrong.value)


def test_the_configuration_that_is_shipped_is_right() -> None:
    configuration = load_configuration(ROOT / "config")
    assert set(configuration.agents) >= {"docs", "triage", "writer"}
    for agent in configuration.agents.values():
        assert agent.description
        assert all(configuration.deployments[name].enabled for name in agent.plan.deployments)
    for name, deployment in configuration.deployments.items():
        assert resolve_key(name, deployment, {}) is None, "a first start needs no key"


def test_defaults_are_the_safe_ones(write: Write) -> None:
    agent = load_configuration(write(files={"agents/docs.toml": AGENT + '[approval]\napprovers = ["ann"]\n'})).agent(
        "docs"
    )
    rule = agent.plan.approval
    assert rule is not None
    assert (rule.default, rule.requester_may_decide, rule.within) == ("reject", False, timedelta(hours=24))
    assert agent.plan.guards.mask
    assert agent.limits.attempts <= 10
    assert agent.limits.tokens <= 100_000


@pytest.mark.parametrize(
    "files",
    [
        {"agents/docs.toml": AGENT + "passages = 5\n"},
        {"prompts/docs.md": "Answer well.\n"},
        {"schemas/point.json": '{"type": "object", "required": ["x"]}'},
    ],
    ids=["file", "prompt", "schema"],
)
def test_the_version_of_an_agent_follows_everything_that_defines_it(write: Write, files: dict[str, str]) -> None:
    before = load_configuration(write()).agent("docs").plan.version
    assert load_configuration(write(files=files)).agent("docs").plan.version != before


def test_the_version_of_an_agent_does_not_follow_layout(write: Write) -> None:
    before = load_configuration(write()).agent("docs").plan.version
    files = {"agents/docs.toml": "# a comment\n" + AGENT, "schemas/point.json": '{ "type":\n "object" }'}
    assert load_configuration(write(files=files)).agent("docs").plan.version == before


def test_limits_keep_the_product_s_defaults_where_a_file_is_silent(write: Write) -> None:
    limits = '[limits]\ncost_usd = "0.25"\ndeadline = "1h30m"\n'
    agent = load_configuration(write(files={"agents/docs.toml": AGENT + limits})).agent("docs")
    assert agent.limits.cost_usd == Decimal("0.25")
    assert agent.limits.deadline == timedelta(minutes=90)
    assert agent.limits.repairs == 2
    assert agent.limits.model_fields_set == set(type(agent.limits).model_fields), (
        "what is unset would be left out of a history, and a later default would change a run under way"
    )
    assert agent.plan.model_fields_set == set(type(agent.plan).model_fields)


def test_files_and_bodies_choose_the_same_limits_within_the_same_bounds() -> None:
    for kind in (LimitSettings, LimitsBody):
        assert set(kind.model_fields) == set(Limits.model_fields)
        for name, limit in Limits.model_fields.items():
            field = kind.model_fields[name]
            assert field.default is None
            assert field.description == limit.description
            assert all(bound in field.metadata for bound in limit.metadata), name


def test_an_unknown_agent_is_answered_with_the_nearest(write: Write) -> None:
    configuration = load_configuration(write())
    with pytest.raises(UnknownAgent, match="Did you mean 'docs'") as unknown:
        configuration.agent("dosc")
    assert unknown.value.field == "agent"
    with pytest.raises(UnknownAgent, match="Known agents: docs"):
        configuration.agent("zzz")


def test_a_key_comes_from_the_variable_that_the_deployment_names() -> None:
    deployment = Deployment(provider="openai", model="m", base_url="https://x.example/v1", api_key_env="KEY_OF_X")
    key = resolve_key("x", deployment, {"KEY_OF_X": "s3cret"})
    assert isinstance(key, SecretStr)
    assert key.get_secret_value() == "s3cret"
    for environment in ({}, {"KEY_OF_X": ""}):
        with pytest.raises(ConfigurationError, match=r"'x' takes its key from KEY_OF_X, which is not set.*enabled"):
            resolve_key("x", deployment, environment)
