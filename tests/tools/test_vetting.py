"""Calls are looked at before anything is done: are they possible, whom must be asked, and what are they shown."""

import json
from pathlib import Path

import pytest

from holdfast.agent_file import AgentFile
from holdfast.contracts import ApprovalRule, Delegate, PlannedCall, ToolPolicy
from holdfast.toolboxes import toolbox_of
from tests.tools.desk import REQUEST, TENANT, Desk
from tests.tools.shop import effects

ANN = ApprovalRule(approvers=("ann",))
BOB = ApprovalRule(approvers=("bob",))
ALWAYS = ToolPolicy(on="refund", rule=ANN)
OVER_100 = ToolPolicy(on="refund", when="args.amount > 100.0", rule=BOB)


async def test_a_good_call_is_planned_with_canonical_arguments_and_its_tools_traits(desk: Desk) -> None:
    await desk.equip("refund", "lookup_order")
    vetted = await desk.vet(("refund", '{ "order" : "7",\n"amount": 9.50}'), ("lookup_order", '{"order": "7"}'), turn=3)
    assert vetted.left_out == 0
    refund, lookup = vetted.calls
    assert (refund.key, refund.id, refund.name, refund.kind, refund.problem) == ("3.0", "call_0", "refund", "tool", "")
    assert await desk.text(refund.arguments) == '{"amount":9.5,"order":"7"}'
    assert (refund.side_effects, refund.idempotent, refund.tainting, refund.source) == (
        True,
        False,
        "tools",
        "function",
    )
    assert (lookup.key, lookup.side_effects, lookup.idempotent) == ("3.1", False, True)
    assert (refund.rule, refund.why, refund.shown) == (None, "", None)
    assert effects() == [], "nothing was called"


async def test_the_same_call_has_the_same_digest_however_it_is_spelt(desk: Desk) -> None:
    await desk.equip("refund", "lookup_order", "reprint")
    calls = (
        ("refund", '{"order": "7", "amount": 9.5}'),
        ("refund", '{"amount": 9.50, "order": "7",}'),
        ("refund", '{"order": "7", "amount": 9.6}'),
        ("lookup_order", '{"order": "7"}'),
        ("reprint", '{"order": "7"}'),
        ("nobody", '{"order": "7"}'),
        ("nobody", '{"order": "7"}'),
    )
    one, same, other, lookup, reprint, unknown, again = (await desk.vet(*calls)).calls
    assert one.digest == same.digest
    assert len({one.digest, other.digest, lookup.digest, reprint.digest, unknown.digest}) == 5
    assert unknown.digest == again.digest, "a call that cannot be made repeats itself too"


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("refnd", "{}", "Did you mean refund?"),
        ("hunter2", "{}", "The tools are: refund, lookup_order"),
        ("refund", '{"order": "7", "amount": "hunter2', "not one JSON object"),
        ("refund", "I would rather not", "not one JSON object"),
        ("refund", '["hunter2"]', "must be one JSON object"),
        ("refund", '{"order": "hunter2", "amount": 5}', "/order"),
        ("refund", '{"order": "7", "amount": 5000}', "/amount"),
        ("refund", '{"order": "7", "amount": 5, "hunter2": 1}', "not a parameter"),
        ("refund", '{"order": "7"}', '"amount" is a required property'),
        ("refund", '{"order": "7", "amount": 5}{"order": "8", "amount": 5}', "2 JSON values"),
        ("refund", "[" * 5_000, "nested"),
    ],
)
async def test_what_cannot_be_called_is_told_in_words_of_ours(desk: Desk, name: str, arguments: str, told: str) -> None:
    await desk.equip("refund", "lookup_order")
    (call,) = (await desk.vet((name, arguments))).calls
    assert told in call.problem
    assert "hunter2" not in call.problem
    assert call.arguments is None
    assert call.digest


async def test_one_bad_call_leaves_its_neighbours_alone(desk: Desk) -> None:
    await desk.equip("refund")
    good = '{"order": "7", "amount": 5}'
    vetted = await desk.vet(("refund", good), ("refund", "{"), ("refund", good))
    assert [bool(call.problem) for call in vetted.calls] == [False, True, False]
    assert [call.key for call in vetted.calls] == ["1.0", "1.1", "1.2"]


async def test_calls_beyond_the_most_are_counted_and_left_out(desk: Desk) -> None:
    await desk.equip("lookup_order")
    vetted = await desk.vet(*[("lookup_order", '{"order": "7"}')] * 50, most=8)
    assert (len(vetted.calls), vetted.left_out) == (8, 42)


async def test_a_reply_that_says_it_asks_for_calls_and_holds_none_has_none(desk: Desk) -> None:
    await desk.equip("refund", policies=(ALWAYS,))
    text = await desk.ledger.contents.put(TENANT, "Let me look that up.")
    vetted = await desk.vet_reply(text)
    assert (vetted.calls, vetted.left_out) == ((), 0)


@pytest.mark.parametrize(("size", "asked"), [(1, True), (20_000, True), (20_000, False)])
async def test_arguments_of_any_size_are_judged(desk: Desk, size: int, asked: bool) -> None:
    await desk.equip("write_mail", policies=(ToolPolicy(on="write_mail", when='args.text.contains("pay")', rule=ANN),))
    arguments = {"to": "ada@example.org", "text": "x" * size + (" pay" if asked else "")}
    (call,) = (await desk.vet(("write_mail", json.dumps(arguments)))).calls
    assert call.problem == ""
    assert call.rule == (ANN if asked else None)


async def test_people_are_shown_the_tool_and_its_arguments_for_reading(desk: Desk) -> None:
    await desk.equip("refund", policies=(ALWAYS,))
    (call,) = (await desk.vet(("refund", '{"order": "7", "amount": 9.5}'))).calls
    assert (call.rule, call.why) == (ANN, "this tool is always asked about")
    assert await desk.text(call.shown) == (
        '{\n  "arguments": {\n    "amount": 9.5,\n    "order": "7"\n  },\n  "tool": "refund"\n}'
    )


async def test_people_see_characters_that_hide_or_turn_what_they_read(desk: Desk) -> None:
    await desk.equip("write_mail", policies=(ToolPolicy(on="write_mail", rule=ANN),))
    arguments = {"to": "a\u202e7@b\u200b.c", "text": "one\n\x9btwo\u2028 \U000e0041 ä"}
    (call,) = (await desk.vet(("write_mail", json.dumps(arguments)))).calls
    shown = await desk.text(call.shown)
    assert json.loads(shown)["arguments"] == arguments
    assert "a\\u202e7@b\\u200b.c" in shown
    assert "one\\n\\u009btwo\\u2028 \\udb40\\udc41 ä" in shown


# Of the property Default_Ignorable_Code_Point, and the blank of Braille.
@pytest.mark.parametrize(
    "hidden", "\u034f\u115f\u1160\u17b4\u180b\u180f\u2800\u3164\ufe00\ufe0f\uffa0\U000e0100\U000e01ef"
)
async def test_people_see_letters_and_marks_that_are_drawn_as_nothing(desk: Desk, hidden: str) -> None:
    await desk.equip("write_mail", policies=(ToolPolicy(on="write_mail", rule=ANN),))
    arguments = {"to": f"ann{hidden}@example.org", "text": "Grüße, 말, e\u0301 ⠁"}
    (call,) = (await desk.vet(("write_mail", json.dumps(arguments)))).calls
    shown = await desk.text(call.shown)
    assert json.loads(shown)["arguments"] == arguments
    assert hidden not in shown
    assert f"ann{json.dumps(hidden)[1:-1]}@example.org" in shown
    assert "Grüße, 말, e\u0301 ⠁" in shown


@pytest.mark.parametrize(
    ("amount", "tainted", "rule", "why"),
    [
        (100, False, None, ""),
        (100.01, False, BOB, "`args.amount > 100.0` holds"),
        (5, True, BOB, "the run has read text from outside, so `args.amount > 100.0` is not relied on"),
    ],
)
async def test_a_condition_decides_unless_the_run_is_tainted(
    desk: Desk, amount: float, tainted: bool, rule: ApprovalRule | None, why: str
) -> None:
    await desk.equip("refund", policies=(OVER_100,))
    (call,) = (await desk.vet(("refund", json.dumps({"order": "7", "amount": amount})), tainted=tainted)).calls
    assert (call.rule, call.why) == (rule, why)
    assert (call.shown is not None) == (rule is not None)


async def test_the_first_policy_that_matches_and_holds_decides(desk: Desk) -> None:
    everyone = ToolPolicy(on="*", when='tool != "lookup_order"', rule=ANN)
    await desk.equip("refund", "lookup_order", policies=(OVER_100, everyone))
    calls = (("refund", '{"order": "7", "amount": 500}'), ("refund", '{"order": "7", "amount": 5}'))
    large, small, lookup = (await desk.vet(*calls, ("lookup_order", '{"order": "7"}'))).calls
    assert [call.rule for call in (large, small, lookup)] == [BOB, ANN, None]


@pytest.mark.parametrize("when", ["args.nothing > 1", "args.order > 100", "1 / 0 == 1"])
async def test_a_condition_that_cannot_be_evaluated_counts_as_met(desk: Desk, when: str) -> None:
    await desk.equip("refund", policies=(ToolPolicy(on="refund", when=when, rule=ANN),))
    (call,) = (await desk.vet(("refund", '{"order": "7", "amount": 5}'))).calls
    assert (call.rule, call.why) == (ANN, f"`{when}` could not be evaluated")


async def test_conditions_see_what_was_spent_and_whether_the_run_is_tainted(desk: Desk) -> None:
    policy = ToolPolicy(on="refund", when="usage.tokens > 1000 || tainted", rule=ANN)
    await desk.equip("refund", policies=(policy,))
    call = ("refund", '{"order": "7", "amount": 5}')
    assert (await desk.vet(call)).calls[0].rule is None
    assert (await desk.vet(call, spent={"input_tokens": 2_000, "cost_usd": None})).calls[0].rule == ANN
    assert (await desk.vet(call, run_tainted=True)).calls[0].why == f"`{policy.when}` holds"


async def test_policies_name_servers_tools_either_way_and_delegates(desk: Desk) -> None:
    for on in ("files__*", "files.read_*", "ask_*"):
        delegate = Delegate(agent="sql", description="Asks.")
        await desk.equip("files.read_*", delegates=(delegate,), policies=(ToolPolicy(on=on, rule=ANN),))
        file, sql = (await desk.vet(("files__read_file", '{"path": "a"}'), ("ask_sql", '{"task": "b"}'))).calls
        assert [call.rule for call in (file, sql)] == ([None, ANN] if on == "ask_*" else [ANN, None])
        assert (sql.kind, sql.agent, sql.tainting) == ("delegate", "sql", "delegates")
        assert (file.kind, file.source, file.tainting) == ("tool", "mcp:files", "mcp")


@pytest.mark.parametrize("tool", ["issue.delete", "delete issue", "d" * 70])
async def test_a_policy_names_a_servers_tool_as_the_server_does(desk: Desk, tool: str) -> None:
    spec = AgentFile.model_validate(
        {
            "deployments": ("sim",),
            "prompt": "plain.md",
            "tools": (f"files.{tool}",),
            "approvals": ({"on": f"files.{tool}", "approvers": ("ann",)},),
        }
    )
    policies = toolbox_of(spec, {}, Path("desk.toml")).policies
    (entry,) = await desk.equip(f"files.{tool}", policies=policies)
    assert entry.offer.name != f"files__{tool}", "a model may not write it, so it is offered under another name"
    (call,) = (await desk.vet((entry.offer.name, '{"path": "a"}'))).calls
    assert call.rule is not None, "the tool would be called unasked"
    assert call.rule.approvers == ("ann",)


async def test_placeholders_stay_in_what_is_kept_and_shown_and_conditions_see_what_the_tool_will(desk: Desk) -> None:
    await desk.ledger.vault.save(TENANT, REQUEST, {"<EMAIL_1>": "ada@example.org"})
    outside = ToolPolicy(on="write_mail", when='!args.to.endsWith("@example.org")', rule=ANN)
    await desk.equip("write_mail", policies=(outside, ToolPolicy(on="write_mail", rule=BOB)))
    (call,) = (await desk.vet(("write_mail", '{"to": "<EMAIL_1>", "text": "Hello"}'))).calls
    assert call.rule == BOB
    for kept in (call.arguments, call.shown):
        assert "<EMAIL_1>" in await desk.text(kept)
        assert "ada@" not in await desk.text(kept)


async def planned(desk: Desk) -> PlannedCall:
    await desk.equip("refund", policies=(OVER_100,))
    return (await desk.vet(("refund", '{"order": "7", "amount": 500}'))).calls[0]


@pytest.mark.parametrize(
    "text",
    [
        '{"order": "7", "amount": 50}',
        '{"tool": "refund", "arguments": {"order": "7", "amount": 50}}',
    ],
)
async def test_an_edit_is_looked_at_like_the_call_and_stays_under_its_rule(desk: Desk, text: str) -> None:
    call = await planned(desk)
    edited = await desk.vet_edit(call, text)
    assert edited.problem == ""
    assert await desk.text(edited.arguments) == '{"amount":50,"order":"7"}'
    assert (edited.key, edited.id, edited.rule, edited.why) == (call.key, call.id, BOB, call.why)
    assert edited.digest != call.digest
    assert edited.edited
    assert json.loads(await desk.text(edited.shown)) == {"tool": "refund", "arguments": {"order": "7", "amount": 50}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"order": "7", "amount": 5000}', "/amount"),
        ("no", "not one JSON object"),
        ("", '"order" is a required property'),
        ('{"tool": "wire", "arguments": {"order": "7", "amount": 50}}', "not the tool"),
    ],
)
async def test_an_edit_that_breaks_the_schema_changes_nothing_but_the_problem(desk: Desk, text: str, told: str) -> None:
    call = await planned(desk)
    edited = await desk.vet_edit(call, text)
    assert told in edited.problem
    assert edited.model_copy(update={"problem": ""}) == call
