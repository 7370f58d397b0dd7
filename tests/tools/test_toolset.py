"""What `config/tools.toml` says is read whole, and what is wrong with it is told by file and key."""

import importlib
import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from holdfast.errors import ConfigurationError
from holdfast.tools import FunctionTool, Toolset, load_toolset, tool, toolset


@pytest.fixture
def config(tmp_path: Path) -> Path:
    directory = tmp_path / "project" / "config"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def own_module(config: Path) -> Iterator[str]:
    """A module of the project's own, beside its `config`."""
    (config.parent / "own_tools_of_a_test.py").write_text(
        "from holdfast.tools import tool\n\n\n@tool\ndef greet(name: str) -> str:\n"
        '    """Greet somebody.\n\n    Args:\n        name: Whom.\n    """\n    return f"Hello {name}"\n'
    )
    yield "own_tools_of_a_test"
    sys.modules.pop("own_tools_of_a_test", None)
    sys.path[:] = [path for path in sys.path if path != str(config.parent)]


def load(config: Path, text: str = "") -> Toolset:
    (config / "tools.toml").write_text(text)
    return load_toolset(config)


def test_without_a_file_there_is_the_calculator(config: Path) -> None:
    loaded = load_toolset(config)
    assert list(loaded.tools) == ["calculator"]
    assert loaded.servers == {}


def test_a_projects_own_module_lies_beside_its_configuration(config: Path, own_module: str) -> None:
    assert list(load(config, f'modules = ["{own_module}"]').tools) == ["calculator", "greet"]


def test_a_table_changes_how_calls_are_handled_and_nothing_else(config: Path) -> None:
    text = 'modules = ["tests.tools.shop"]\n[tools.refund]\ntimeout = "2m"\noutput_tokens = 50\nidempotent = true\n'
    changed = load(config, text).tools["refund"]
    plain = load(config, 'modules = ["tests.tools.shop"]').tools["refund"]
    assert (changed.timeout, changed.output_tokens, changed.idempotent) == (timedelta(minutes=2), 50, True)
    assert (plain.timeout, plain.output_tokens, plain.idempotent) == (timedelta(seconds=30), 2_000, False)
    assert (changed.side_effects, changed.parameters) == (plain.side_effects, plain.parameters)


def test_a_tool_can_be_offered_under_another_name_beside_its_own(config: Path) -> None:
    tools = load(config, 'modules = ["tests.tools.shop"]\n[tools.pay_back]\nuse = "refund"\ntimeout = "1s"\n').tools
    assert (tools["pay_back"].name, tools["pay_back"].timeout) == ("pay_back", timedelta(seconds=1))
    assert (tools["refund"].name, tools["refund"].timeout) == ("refund", timedelta(seconds=30))
    assert tools["pay_back"].entry("x").offer.name == "pay_back"


def test_built_in_tools_are_made_of_their_tables(config: Path) -> None:
    text = (
        '[tools.handbook]\nuse = "knowledge_search"\ncollection = "docs"\npassages = 3\ntimeout = "5s"\n'
        '[tools.site]\nuse = "fetch_url"\nhosts = ["example.org"]\n[tools.calculator]\noutput_tokens = 9\n'
    )
    tools = load(config, text).tools
    assert set(tools) == {"calculator", "handbook", "site"}
    assert "'docs'" in tools["handbook"].description
    assert (tools["handbook"].origin, tools["handbook"].timeout) == ("documents", timedelta(seconds=5))
    assert tools["calculator"].output_tokens == 9


def test_servers_are_read_and_named_in_messages(config: Path) -> None:
    loaded = load(config, '[mcp.files]\ncommand = "files-server"\ntools = ["read_*"]\n')
    assert loaded.servers["files"].command == "files-server"
    loaded.check(["calculator", "files.read_file", "files.*"], "agents/desk.toml: `tools`")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tools", "not valid TOML"),
        ("tool = 1", "unknown key 'tool'"),
        ('modules = "tests.tools.shop"', "`modules` must be a list"),
        ('modules = ["nowhere_at_all"]', "'nowhere_at_all', which cannot be imported"),
        ('modules = ["json"]', "'json', which holds no tool"),
        ("tools = 3", "`tools` must hold tables"),
        ('[tools.x]\nuse = "sql_qery"', "Did you mean 'sql_query'?"),
        ("[tools.x]\nuse = 3", "tools.x.use"),
        ("[tools.nothing]\ntimeout = '3s'", "'nothing', which is no tool"),
        ('[tools.x]\nuse = "calculator"\ntimeout = "3"', "tools.x.timeout"),
        ('[tools.x]\nuse = "calculator"\ntimeout = "3h"', "an hour at most"),
        ('[tools.x]\nuse = "calculator"\ndigits = 3', "no option 'digits'"),
        ('[tools.x]\nuse = "knowledge_search"', "collection"),
        ('[tools.x]\nuse = "knowledge_search"\ncollection = "docs"\npasages = 3', "Did you mean 'passages'?"),
        ('[tools.x__y]\nuse = "knowledge_search"\ncollection = "docs"', "cannot be named 'x__y'"),
        ('modules = ["tests.tools.shop"]\n[tools.refund]\ncollection = "docs"', "'collection' is unknown"),
        ('modules = ["tests.tools.shop"]\n[tools.refund]\nuse = "calculator"', "comes from"),
        ('[mcp.files]\ncommand = "x"', '`mcp.files.tools`: list what may be used of the server: `tools = ["read_*"]`'),
        ('[mcp.files]\ncommand = "x"\ntools = ["*"]\ntimeout = "2h"', "mcp.files.timeout"),
        ('[mcp.files__x]\ncommand = "x"\ntools = ["*"]', "files__x"),
    ],
)
def test_what_is_wrong_is_told_by_file_and_key(config: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(config, text)
    assert told in str(caught.value)
    assert "tools.toml" in str(caught.value)


def test_a_module_with_a_function_that_is_no_tool_is_told_with_the_function(config: Path) -> None:
    module = config.parent / "undocumented_of_a_test.py"
    module.write_text("from holdfast.tools import tool\n\n\n@tool\ndef hush(name: str) -> str:\n    return name\n")
    sys.path.insert(0, str(config.parent))
    try:
        with pytest.raises(ConfigurationError, match=r"tools.toml.*undocumented_of_a_test.*`hush`.*no docstring"):
            load(config, 'modules = ["undocumented_of_a_test"]')
    finally:
        sys.path.remove(str(config.parent))


def test_a_module_that_ends_the_process_when_it_is_imported_is_told_with_its_name(config: Path) -> None:
    (config.parent / "leaving_of_a_test.py").write_text("import sys\n\nsys.exit(2)\n")
    sys.path.insert(0, str(config.parent))
    try:
        with pytest.raises(ConfigurationError, match=r"'leaving_of_a_test', which cannot be imported \(SystemExit: 2"):
            load(config, 'modules = ["leaving_of_a_test"]')
    finally:
        sys.path.remove(str(config.parent))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def half(:\n", r"broken_of_a_test.py, line 1, is not valid Python .*Mend it"),
        ("import nowhere_at_all\n", r"It imports 'nowhere_at_all': install that"),
        ("1 / 0\n", r"ZeroDivisionError.*Mend it"),
    ],
)
def test_a_module_that_is_there_but_broken_is_to_be_mended_not_moved(config: Path, source: str, told: str) -> None:
    (config.parent / "broken_of_a_test.py").write_text(source)
    sys.path.insert(0, str(config.parent))
    importlib.invalidate_caches()
    try:
        with pytest.raises(ConfigurationError, match=told) as caught:
            load(config, 'modules = ["broken_of_a_test"]')
    finally:
        sys.path.remove(str(config.parent))
    assert "Put it beside" not in str(caught.value)


def test_two_tools_of_one_name_are_refused(config: Path, own_module: str) -> None:
    other = ModuleType("other_tools_of_a_test")

    @tool(name="greet")
    def hello() -> str:
        """Say hello."""
        return "Hello"

    other.hello = hello  # type: ignore[attr-defined]
    sys.modules[other.__name__] = other
    try:
        with pytest.raises(ConfigurationError, match=f"'greet' comes from module '{other.__name__}' and from module"):
            load(config, f'modules = ["{own_module}", "{other.__name__}"]')
    finally:
        del sys.modules[other.__name__]


@pytest.mark.parametrize("value", ["tests.tools.shop:refund", "tests.tools.shop"])
def test_installed_packages_offer_tools_by_entry_points(
    config: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    point = EntryPoint("shop", value, toolset.GROUP)
    monkeypatch.setattr(toolset, "entry_points", lambda group: [point] if group == toolset.GROUP else [])
    assert "refund" in load(config).tools


@pytest.mark.parametrize("value", ["tests.tools.shop:HOSTILE", "tests.tools.shop:nothing", "nowhere_at_all", "json"])
def test_an_entry_point_that_is_no_tool_is_named(config: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    point = EntryPoint("shop", value, toolset.GROUP)
    monkeypatch.setattr(toolset, "entry_points", lambda group: [point])
    with pytest.raises(ConfigurationError, match="entry point 'shop'"):
        load(config)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("refnd", "names tool 'refnd', which no tool module or MCP server provides. Did you mean 'refund'?"),
        ("fils.read_file", "no MCP server 'fils'. Did you mean 'files'?"),
        ("files.", "write `files.*`"),
        ("refund*", "which no tool module"),
        ("few.write_file", "which `mcp.few.tools` of tools.toml does not admit; it admits read_*."),
    ],
)
def test_an_agent_that_names_what_is_not_there_is_told_the_nearest(config: Path, name: str, told: str) -> None:
    loaded = load(
        config,
        'modules = ["tests.tools.shop"]\n[mcp.files]\ncommand = "x"\ntools = ["*"]\n'
        '[mcp.few]\ncommand = "x"\ntools = ["read_*"]\n',
    )
    with pytest.raises(ConfigurationError) as caught:
        loaded.check(["refund", name], "config/agents/desk.toml: `tools`")
    assert str(caught.value).startswith("config/agents/desk.toml: `tools` names")
    assert told in str(caught.value)


def test_a_tool_is_listed_once(config: Path) -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        load(config).check(["calculator", "calculator"], "x")


def test_the_digest_changes_with_what_an_agent_may_call_and_with_nothing_else(config: Path) -> None:
    shop = 'modules = ["tests.tools.shop"]\n'
    files = '[mcp.files]\ncommand = "x"\ntools = ["*"]\n'
    names = ["refund", "files.*"]
    digest = load(config, shop + files).digest(names)
    assert len(digest) == 16
    assert load(config, shop + files).digest(names) == digest
    assert load(config, shop + files + '[tools.wire]\ntimeout = "1s"\n').digest(names) == digest
    assert load(config, shop + files + '[tools.refund]\ntimeout = "1s"\n').digest(names) != digest
    assert load(config, shop + files.replace('"*"', '"read"')).digest(names) != digest
    assert load(config, shop + files).digest(["refund"]) != digest


async def test_closing_closes_every_tool(config: Path) -> None:
    closed: list[str] = []

    class Closing(FunctionTool[[], str]):
        async def aclose(self) -> None:
            closed.append(self.name)

    def one() -> str:
        """One."""
        return ""

    await Toolset({"one": Closing(one), "two": Closing(one, name="two")}).aclose()
    assert closed == ["one", "two"]
