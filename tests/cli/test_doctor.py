import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli import checks
from cli.checks import Check
from cli.temporal_server import TemporalServer
from holdfast.configuration import load_configuration
from holdfast.knowledge import EdgeStore
from holdfast.ledger import Ledger
from holdfast.settings import load_settings
from tests.cli.scripted import ScriptedGateway

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory with a configuration, and no settings but the defaults."""
    shutil.copytree(CONFIG, tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    for name in ("HOLDFAST_CONFIG", "HOLDFAST_URL", "HOLDFAST_API_KEY", "HOLDFAST_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOLDFAST_ENGINE__ADDRESS", "127.0.0.1:9")


async def found(name: str, url: str = "http://127.0.0.1:9") -> Check:
    return next(check for check in await checks.all_checks(url) if check.name == name)


def write(file: str, text: str) -> None:
    Path(file).write_text(text, encoding="utf-8")


def names() -> list[str]:
    return [path.name for path in Path().iterdir()]


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from cli.main import run; run()"
    repository = str(CONFIG.parent)
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {repository!r}); {code}", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_a_sound_installation_ends_with_0_although_nothing_runs() -> None:
    ran = doctor("--json", "--url", "http://127.0.0.1:9")
    assert ran.returncode == 0, ran.stdout
    document = json.loads(ran.stdout)
    assert document["ok"] is True
    verdicts = {check["name"]: check["verdict"] for check in document["checks"]}
    assert verdicts["gateway"] == verdicts["Temporal server"] == "off"
    assert verdicts["packages"] == verdicts["temporal program"] == verdicts["configuration"] == "ok"
    assert all(check["remedy"] for check in document["checks"] if check["verdict"] != "ok")


def test_what_is_wanted_running_and_is_not_ends_with_1() -> None:
    assert doctor("--json", "--running", "--url", "http://127.0.0.1:9").returncode == 1


def test_a_broken_file_ends_with_1_names_the_key_and_the_other_checks_are_made() -> None:
    models = Path("config/models.toml")
    models.write_text(models.read_text(encoding="utf-8") + '\n[deployments.x]\nprovider = "opnai"\n', encoding="utf-8")
    ran = doctor()
    assert ran.returncode == 1
    assert "models.toml: `deployments.x." in " ".join(ran.stdout.split()).replace("models.toml:`", "models.toml: `")
    assert "Next: mend configuration" in ran.stdout
    assert "temporal program" in ran.stdout


async def test_a_wrong_setting_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_GATEWAY__PORT", "99999")
    check = await found("settings")
    assert check.verdict == "problem"
    assert "gateway.port" in check.found


def test_a_deployment_without_its_key_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    models = Path("config/models.toml")
    table = '[deployments.gpt]\nprovider = "openai"\nmodel = "m"\nbase_url = "https://x"\napi_key_env = "SOME_KEY"\n'
    write("config/models.toml", f"{models.read_text(encoding='utf-8')}\n{table}")
    configuration = load_configuration(Path("config"))
    assert [check.verdict for check in checks.configured(configuration)] == ["ok", "problem"]
    monkeypatch.setenv("SOME_KEY", "secret-value")
    assert [check.verdict for check in checks.configured(configuration)] == ["ok"]


def test_a_database_that_is_not_there_is_told_and_one_that_no_variable_names_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = checks.tools(load_configuration(Path("config")))
    assert missing.verdict == "advice"
    assert "tools.shop: `path` leads to" in missing.found
    write("config/tools.toml", '[tools.shop]\nuse = "sql_query"\nurl_env = "SHOP_OF_NOBODY"\n')
    for agent in ("refunds", "web"):
        Path(f"config/agents/{agent}.toml").unlink()
    write("config/agents/team.toml", Path("config/agents/team.toml").read_text().replace('"web", ', ""))
    configuration = load_configuration(Path("config"))
    unset = checks.tools(configuration)
    assert unset.verdict == "problem"
    assert "SHOP_OF_NOBODY is not set" in unset.found
    monkeypatch.setenv("SHOP_OF_NOBODY", "postgresql://127.0.0.1:9/shop")
    assert checks.tools(configuration).verdict == "ok"


def test_a_role_that_nobody_has_is_a_problem() -> None:
    held = 'deployments = ["extractive"]\nprompt = "any.md"\n[approval]\napprovers = ["role:finanse"]\n'
    write("config/agents/held.toml", held)
    write("config/prompts/any.md", "Answer.")
    write("config/people.toml", '[tenants.local.roles]\nfinance = ["ann"]\n')
    wrong = checks.people(Path("config"), load_configuration(Path("config")))
    assert wrong.verdict == "problem"
    assert "config/agents/held.toml" in wrong.found
    assert "Did you mean 'finance'" in wrong.found
    write("config/people.toml", '[tenants.local.roles]\nfinance = ["ann"]\nfinanse = ["ann"]\n')
    assert checks.people(Path("config"), load_configuration(Path("config"))).verdict == "ok"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["httpx~=0.28", "no-such-thing>=1; extra != 'x'"])
    check = checks.packages()
    assert (check.verdict, check.found) == ("problem", "missing: no-such-thing")


async def test_looking_at_the_ledger_does_not_make_one() -> None:
    assert (await checks.ledger("sqlite+aiosqlite:///var/holdfast.db")).verdict == "ok"
    assert names() == ["config"]


async def test_a_ledger_that_is_no_database_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    write("broken.db", "not a database" * 100)
    monkeypatch.setenv("HOLDFAST_LEDGER__URL", "sqlite+aiosqlite:///broken.db")
    assert (await found("ledger")).verdict == "problem"


async def test_a_ledger_that_opens_is_said_to() -> None:
    await (await Ledger.open("sqlite+aiosqlite:///sound.db")).aclose()
    assert "sound.db opens" in (await checks.ledger("sqlite+aiosqlite:///sound.db")).found


async def test_an_index_in_use_is_told_with_its_process_and_one_that_is_free_stays_free() -> None:
    settings = load_settings()
    store = await EdgeStore.open(settings.knowledge.path)
    assert "in use by process" in (await checks.knowledge(settings)).found
    await store.aclose()
    assert (await checks.knowledge(settings)).found.endswith("free")
    await (await EdgeStore.open(settings.knowledge.path)).aclose()


async def test_a_temporal_server_with_its_search_attributes_is_ok(
    monkeypatch: pytest.MonkeyPatch, temporal_server: TemporalServer
) -> None:
    monkeypatch.setenv("HOLDFAST_ENGINE__ADDRESS", temporal_server.address)
    check = await checks.engine(load_settings())
    assert check.verdict == "ok"
    assert "search attributes registered" in check.found


async def test_a_port_that_something_else_has_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PROBE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setenv("HOLDFAST_ENGINE__ADDRESS", address)
        monkeypatch.setenv("HOLDFAST_GATEWAY__PORT", address.rpartition(":")[2])
        settings = load_settings()
        assert "something else than a Temporal server" in (await checks.engine(settings)).found
        assert address.rpartition(":")[2] in checks.ports(settings)[0].found


def test_a_gateway_that_is_not_ready_says_what_is_missing(gateway: ScriptedGateway) -> None:
    gateway.on("GET /readyz", (503, {"detail": "Requests cannot be served: worker: none.", "remedy": "Start one."}))
    check = checks.gateway(load_settings(), gateway.url)
    assert (check.verdict, check.remedy) == ("off", "Start one.")
    assert "worker: none" in check.found
    gateway.on("GET /readyz", (200, {"status": "ready"}))
    assert checks.gateway(load_settings(), gateway.url).verdict == "ok"
