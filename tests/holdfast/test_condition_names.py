"""A condition that names what its tool does not take, or its answer does not hold, is found at start."""

from typing import Any

import pytest

from holdfast.conditions import ON_OUTPUT, ON_TOOL, check_condition
from holdfast.errors import ConfigurationError
from holdfast.shapes import Shape

REFUND: dict[str, Any] = {
    "type": "object",
    "properties": {
        "amount": {"type": "number"},
        "currency": {"enum": ["EUR", "USD"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
        "customer": {"anyOf": [{"$ref": "#/$defs/Customer"}, {"type": "null"}]},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "extra": {"type": "object"},
        "free": {},
        "x_ids": {"type": "object", "patternProperties": {"^x_": {"type": "object", "properties": {"n": {}}}}},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"$ref": "#/$defs/Line"}], "items": False},
        "tree": {"$ref": "#/$defs/Tree"},
    },
    "additionalProperties": False,
    "$defs": {
        "Line": {
            "type": "object",
            "properties": {"sum": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}},
        },
        "Customer": {"allOf": [{"properties": {"name": {"type": "string"}}}, {"properties": {"country": {}}}]},
        "Tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}, "value": {"type": "number"}}},
    },
}


def check(expression: str, *schemas: Any, of: str = "args") -> None:
    variables = ON_TOOL if of == "args" else ON_OUTPUT
    check_condition(expression, variables, "refunds.toml: `when`", {of: Shape.of(of, *(schemas or (REFUND,)))})


@pytest.mark.parametrize(
    "expression",
    [
        "args.amount > 50",
        "args['amount'] > 50.0 && args.currency == 'EUR'",
        "args.lines.exists(line, line.sum > 5 && size(line.tags) > 1)",
        "args.lines.filter(line, line.sum > 1)[0].sum > 2",
        "args.lines[0].tags[0].startsWith('a')",
        "args.customer.name == 'x' || args.customer.country == 'y'",
        "args.labels.anything == 'x' && args.labels['else'] == 'y'",
        "args.extra.whatever.it.is == 1",
        "args.free.whatever[3].it.is == 1",
        "args.x_ids.x_1.n == 1",
        "args.pair[1].sum > 3",
        "args.tree.left.left.left.value > 1",
        "has(args.amount) ? args.amount > 1 : true",
        "'amount' in args && args.exists(name, name == 'amount')",
        "{'b': args.amount}.b > 1 && [1, 2].exists(x, x > 1)",
        "usage.tokens > 100 || usage.cost_usd > 1.0 || tainted || tool == 'x'",
        "args[args.currency] == 1",
        "(args).amount > 1 && .args.amount > 1 && !(args.amount > 2) && -args.amount < 0",
    ],
)
def test_what_can_be_there_may_be_named(expression: str) -> None:
    check(expression)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("args.amuont > 50", "'args.amuont', which there is not. Did you mean 'amount'?"),
        ("args['amuont'] > 50", "'args.amuont'"),
        ("has(args.amuont)", "Did you mean 'amount'?"),
        ("!has(args.amuont)", "Did you mean 'amount'?"),
        ("'amuont' in args", "Did you mean 'amount'?"),
        ("tool == 'refund' && (args.amount > 1 || args.zzz == 1)", "`args` has amount, currency"),
        ("args.lines.exists(line, line.sun > 5)", "'args.lines[].sun', which there is not. Did you mean 'sum'?"),
        ("args.lines.filter(line, line.sum > 1)[0].sun > 2", "Did you mean 'sum'?"),
        ("args.lines.map(line, line.sun) == [1]", "Did you mean 'sum'?"),
        ("args.lines[0].sun > 5", "Did you mean 'sum'?"),
        ("args.lines.sum > 5", "`args.lines` is a value without names"),
        ("args.amount.value > 5", "`args.amount` is a value without names"),
        ("args.customer.nmae == 'x'", "Did you mean 'name'?"),
        ("args.x_ids.y_1 == 1", "'args.x_ids.y_1'"),
        ("args.tree.left.left.valve > 1", "Did you mean 'value'?"),
        ("size(args.lines.filter(l, l.sum > args.amuont)) > 1", "Did you mean 'amount'?"),
        ("args.amount > 1 ? args.curency == 'EUR' : false", "Did you mean 'currency'?"),
        (".args.amuont > 1", "Did you mean 'amount'?"),
        (".agrs.amount > 1", "Did you mean 'args'?"),
        ("usage.token > 5", "Did you mean 'tokens'?"),
        ("-args.amuont < 0", "Did you mean 'amount'?"),
    ],
)
def test_what_cannot_be_there_is_refused_with_what_there_is(expression: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check(expression)
    assert "refunds.toml: `when`: the condition names" in str(refused.value)
    assert said in str(refused.value)


def test_an_answer_with_a_schema_has_its_names_and_one_of_text_has_none() -> None:
    schema = {"type": "object", "properties": {"urgency": {"enum": ["low", "high"]}}}
    check("output.urgency == 'high' && guards.EMAIL > 0 && retrieval.score < 0.5", schema, of="output")
    with pytest.raises(ConfigurationError, match=r"'output\.urgancy'.*Did you mean 'urgency'"):
        check("output.urgancy == 'high'", schema, of="output")
    with pytest.raises(ConfigurationError, match="`output` is a value without names"):
        check("output.urgency == 'high'", {"type": "string"}, of="output")
    with pytest.raises(ConfigurationError, match="Did you mean 'EMAIL'"):
        check("guards.EMAILS > 0", schema, of="output")
    check("output.contains('refund') && size(output) > 3", {"type": "string"}, of="output")


def test_a_rule_on_several_tools_may_name_what_one_of_them_takes() -> None:
    other = {"type": "object", "properties": {"path": {"type": "string"}}}
    check("has(args.path) && args.path == '/' || args.amount > 3", REFUND, other)
    with pytest.raises(ConfigurationError, match="Did you mean 'path'"):
        check("args.paht == '/'", REFUND, other)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {}}, "unevaluatedProperties": True},
        {"$ref": "https://example.org/elsewhere.json"},
        {"$ref": "#/$defs/Self", "$defs": {"Self": {"$ref": "#/$defs/Self"}}},
        {"$ref": "#/$defs/missing"},
        {"anyOf": [{"type": "object", "properties": {"a": {}}}, {}]},
        {"type": "object", "patternProperties": {"(?<n>unreadable": {}}},
        {"const": {"amount": 1}},
    ],
)
def test_a_schema_that_leaves_it_open_refuses_nothing(schema: Any) -> None:
    check("args.amount.value[0].x > 1 && args.b.exists(x, x.y > 1) && 'z' in args", schema)


def test_names_that_depend_on_others_may_be_named() -> None:
    card = {"properties": {"billing": {"type": "object", "properties": {"country": {}}}}}
    schema = {"type": "object", "properties": {"card": {}}, "dependentSchemas": {"card": card}}
    check("has(args.card) && args.billing.country == 'x'", schema)
    with pytest.raises(ConfigurationError, match="Did you mean 'billing'"):
        check("args.biling.country == 'x'", schema)
    with pytest.raises(ConfigurationError, match="Did you mean 'card'"):
        check("args.cart == 'x'", schema | {"unevaluatedProperties": False})
