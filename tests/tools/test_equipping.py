"""What a run may call is looked up once and fixed."""

from datetime import timedelta

from holdfast.contracts import ApprovalRule, Delegate, ToolPolicy
from holdfast.guards import Sanitizer
from holdfast.tools import FunctionTool, Toolset
from holdfast.tools.equipment import Equipment
from tests.tools.desk import Desk


async def test_the_catalog_has_own_tools_those_of_servers_and_delegates_in_order(desk: Desk) -> None:
    writer = Delegate(agent="sql-writer", description="Knows the tables.")
    catalog = await desk.equip("refund", "calculator", "files.read_*", "lookup_order", delegates=(writer,))
    assert [entry.offer.name for entry in catalog] == [
        "refund",
        "calculator",
        "files__read_file",
        "files__read_dir",
        "lookup_order",
        "ask_sql_writer",
    ]
    assert [entry.source for entry in catalog] == [
        "function",
        "function",
        "mcp:files",
        "mcp:files",
        "function",
        "delegate:sql-writer",
    ]
    assert desk.equipped is not None
    assert (desk.equipped.count, desk.equipped.missing) == (6, ())
    assert desk.equipped.origins == ("tools", "mcp", "delegates"), "the calculator returns nobody's text"
    delegate = catalog[-1]
    assert (delegate.tool, delegate.side_effects, delegate.origin) == ("sql-writer", False, "delegates")
    assert "Knows the tables." in delegate.offer.description
    assert delegate.offer.parameters["required"] == ["task"]


async def test_equipping_again_fixes_the_same_catalog(desk: Desk) -> None:
    await desk.equip("refund", "files.read_*")
    first = desk.equipped
    await desk.equip("refund", "files.read_*")
    assert desk.equipped == first


async def test_what_does_not_answer_is_left_out_and_told(desk: Desk) -> None:
    catalog = await desk.equip("away.*", "refund", "gone", "files.nothing")
    assert [entry.offer.name for entry in catalog] == ["refund"]
    assert desk.equipped is not None
    assert [line.partition(":")[0] for line in desk.equipped.missing] == ["away.*", "gone", "files.nothing"]
    assert all("\n" not in line for line in desk.equipped.missing)


async def test_a_tool_that_two_patterns_match_is_offered_once_and_a_taken_name_is_told(desk: Desk) -> None:
    catalog = await desk.equip("files.read_*", "files.read_dir")
    assert [entry.offer.name for entry in catalog] == ["files__read_file", "files__read_dir"]
    assert desk.equipped is not None
    assert not desk.equipped.missing
    await desk.equip(delegates=(Delegate(agent="a-b", description="One."), Delegate(agent="a_b", description="Two.")))
    told = desk.equipped.missing
    assert any("ask_a_b" in line for line in told)


async def test_a_rule_that_names_what_a_server_s_tools_do_not_take_is_told_with_every_run(desk: Desk) -> None:
    def policy(on: str, when: str) -> ToolPolicy:
        return ToolPolicy(on=on, when=when, rule=ApprovalRule(approvers=("ann",), within=timedelta(hours=1)))

    good = (policy("files__*", "args.path == '/'"), policy("*", "has(args.amount) || has(args.path)"))
    await desk.equip("files.read_*", "refund", policies=good)
    assert desk.equipped is not None
    assert not desk.equipped.missing
    await desk.equip("files.read_*", "refund", policies=(*good, policy("files__read_*", "args.paht == '/'")))
    (told,) = desk.equipped.missing
    assert "the rule on files__read_*: the condition names 'args.paht', which there is not" in told
    assert "Did you mean 'path'? Until it is corrected, the condition counts as met." in told


async def test_a_model_is_offered_no_more_tools_than_a_provider_takes(desk: Desk) -> None:
    delegates = tuple(Delegate(agent=f"agent-{n}", description="One of many.") for n in range(130))
    assert len(await desk.equip(delegates=delegates)) == 128
    assert desk.equipped is not None
    assert len(desk.equipped.missing) == 2


async def test_a_tool_that_describes_itself_anew_is_pinned_to_what_it_said(desk: Desk, sanitizer: Sanitizer) -> None:
    tables = ["orders"]

    class Living(FunctionTool[[str], str]):
        async def describe(self) -> str:
            return f"{self.description} Tables: {', '.join(tables)}."

    def look(table: str) -> str:
        """Look into a table."""
        return table

    desk.equipment = Equipment(Toolset({"look": Living(look)}), desk.shelf, desk.ledger, sanitizer)
    (entry,) = await desk.equip("look")
    assert entry.offer.description == "Look into a table. Tables: orders."
    tables.append("refunds")
    (later,) = await desk.equip("look")
    assert later.offer.description.endswith("orders, refunds.")
