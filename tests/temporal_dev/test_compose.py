"""The stack of `compose.yaml` is well formed and agrees with the files that development uses."""

import asyncio
import copy
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client

from cli.temporal_files import DIRECTORY, read_server_files
from cli.temporal_server import TemporalServer, temporal_program
from holdfast.settings import Settings

ROOT = DIRECTORY.parent
STACK: dict[str, Any] = yaml.safe_load((DIRECTORY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = STACK["services"]
SCHEMA = jsonschema_rs.validator_for(json.loads((Path(__file__).parent / "compose-spec.json").read_text()))


def published() -> Iterator[tuple[str, str, int, int]]:
    """Service, host address, host port and container port of every published port."""
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            address, host_port, container_port = port.split(":")
            yield name, address, int(host_port), int(container_port)


def host_port(service: str, container_port: int) -> int:
    return next(host for name, _, host, inside in published() if (name, inside) == (service, container_port))


def test_the_stack_follows_the_compose_specification() -> None:
    assert [error.message for error in SCHEMA.iter_errors(STACK)] == []


def _misspell_healthcheck(stack: dict[str, Any]) -> None:
    stack["services"]["temporal"]["helthcheck"] = stack["services"]["temporal"].pop("healthcheck")


def _ports_as_text(stack: dict[str, Any]) -> None:
    stack["services"]["temporal"]["ports"] = "7233:7233"


def _unknown_condition(stack: dict[str, Any]) -> None:
    stack["services"]["temporal-ui"]["depends_on"]["temporal"]["condition"] = "service_ready"


@pytest.mark.parametrize("spoil", [_misspell_healthcheck, _ports_as_text, _unknown_condition])
def test_the_specification_refuses_a_broken_stack(spoil: Callable[[dict[str, Any]], None]) -> None:
    broken = copy.deepcopy(STACK)
    spoil(broken)
    assert not SCHEMA.is_valid(broken)


def test_everything_is_published_on_loopback_only() -> None:
    addresses = {name: address for name, address, _, _ in published()}
    assert len(addresses) == 7
    assert set(addresses.values()) == {"127.0.0.1"}


def test_published_ports_are_those_of_development() -> None:
    files = read_server_files()
    assert host_port("temporal", 7233) == files.port
    assert host_port("temporal-ui", 8080) == files.ui_port
    gateway_port = int(SERVICES["gateway"]["environment"]["HOLDFAST_GATEWAY__PORT"])
    assert host_port("gateway", gateway_port) == Settings.model_fields["gateway"].default.port


def test_the_server_is_the_version_of_development() -> None:
    version = subprocess.run([temporal_program(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Server (\S+), UI (\S+)\)", version)
    assert found is not None
    server, ui = found.groups()
    assert SERVICES["temporal"]["image"] == f"temporalio/server:{server}"
    assert SERVICES["temporal-schema"]["image"] == f"temporalio/admin-tools:{server}"
    assert SERVICES["temporal-search-attributes"]["image"] == f"temporalio/admin-tools:{server}"
    assert SERVICES["temporal-ui"]["image"] == f"temporalio/ui:{ui}"


def test_every_image_is_pinned_to_a_release() -> None:
    for name, service in SERVICES.items():
        assert "build" in service or re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?", service["image"]), name


def test_every_variable_is_a_setting_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gateway", "worker"):
        environment = _interpolated(SERVICES[name]["environment"])
        for variable, value in environment.items():
            section, _, field = variable.removeprefix("HOLDFAST_").lower().partition("__")
            assert section in Settings.model_fields, variable
            annotation = Settings.model_fields[section].annotation
            assert not field or field in getattr(annotation, "model_fields", ()), variable
            monkeypatch.setenv(variable, value)
        settings = Settings()
        assert settings.engine.namespace == read_server_files().namespace
        assert settings.engine.address == "temporal:7233"
        assert settings.ledger.url.startswith("postgresql+asyncpg://holdfast:holdfast@postgresql:5432/")


def test_the_namespace_is_that_of_development() -> None:
    environment = SERVICES["temporal-search-attributes"]["environment"]
    assert environment["TEMPORAL_NAMESPACE"] == read_server_files().namespace


def test_every_mounted_file_exists_and_the_server_reads_the_one_of_development() -> None:
    mounts = {}
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                assert (DIRECTORY / source).is_file(), f"{name} mounts {source}"
                mounts[name, target] = source
            else:
                assert source in STACK["volumes"], f"{name} mounts {source}"
    path = SERVICES["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"]
    assert mounts["temporal", f"/etc/temporal/{path}"] == "./dynamicconfig.yaml"


def test_nobody_waits_for_what_cannot_happen() -> None:
    for name, service in SERVICES.items():
        for dependency, wait in service.get("depends_on", {}).items():
            assert dependency in SERVICES, f"{name} waits for {dependency}"
            assert "profiles" not in SERVICES[dependency], f"{name} waits for {dependency}, which is optional"
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[dependency], f"{name} waits for the health of {dependency}"
            else:
                # A service that is started again whenever it ends never completes.
                assert SERVICES[dependency]["restart"].startswith("on-failure"), f"{name} waits for {dependency}"


def test_the_collector_listens_where_spans_are_sent() -> None:
    collector = yaml.safe_load((DIRECTORY / "otel-collector.yaml").read_text())
    protocols = collector["receivers"]["otlp"]["protocols"]
    listening = {int(protocol["endpoint"].rpartition(":")[2]) for protocol in protocols.values()}
    assert listening == {inside for name, _, _, inside in published() if name == "otel-collector"}
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])
    sent_to = SERVICES["gateway"]["environment"]["HOLDFAST_TELEMETRY__OTLP_ENDPOINT"]
    assert sent_to == f"http://otel-collector:{protocols['http']['endpoint'].rpartition(':')[2]}"


@pytest.mark.parametrize("file", ["temporal-dev/Dockerfile", "Makefile"])
def test_torch_is_installed_in_the_version_of_the_project(file: str) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    command = re.search(r"sed -n '[^']+' pyproject\.toml", (ROOT / file).read_text())
    assert command is not None
    found = subprocess.run(["sh", "-c", command[0]], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert found.split() == [dependency for dependency in dependencies if dependency.startswith("torch==")]


async def test_the_registration_script_registers_the_list_of_development_and_can_repeat(tmp_path: Path) -> None:
    for name in ("server.toml", "dynamicconfig.yaml"):
        (tmp_path / name).write_text((DIRECTORY / name).read_text())
    (tmp_path / "search-attributes.toml").write_text("")
    async with TemporalServer(port=0, ui=False, directory=tmp_path) as server:
        environment = {
            "PATH": f"{temporal_program().parent}:{os.environ['PATH']}",
            "TEMPORAL_ADDRESS": server.address,
            "TEMPORAL_NAMESPACE": server.namespace,
        }
        script = [DIRECTORY / "register-search-attributes.sh", DIRECTORY / "search-attributes.toml"]
        for _ in range(2):
            process = await asyncio.create_subprocess_exec("sh", *script, env=environment)
            assert await process.wait() == 0
        client = await Client.connect(server.address)
        registered = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=server.namespace)
        )
    assert set(read_server_files().search_attributes) <= set(registered.custom_attributes)


@pytest.mark.parametrize(("versioned", "expected_setups"), [(False, 2), (True, 0)])
def test_the_schema_script_never_resets_the_version_of_a_database(
    tmp_path: Path, versioned: bool, expected_setups: int
) -> None:
    calls = tmp_path / "calls"
    tool = tmp_path / "temporal-sql-tool"
    # Like the real one, it cannot update a database that has no version yet.
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\ncase "$3" in\n'
        f"setup-schema) touch {tmp_path}/version.$2 ;;\n"
        f"update-schema) test -e {tmp_path}/version.$2 ;;\nesac\n"
    )
    tool.chmod(0o755)
    if versioned:
        (tmp_path / "version.temporal").touch()
        (tmp_path / "version.temporal_visibility").touch()
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", DIRECTORY / "setup-schema.sh"], env=environment, check=True)
    lines = calls.read_text().splitlines()
    assert sum("setup-schema" in line for line in lines) == expected_setups
    assert lines[-1].startswith("--db temporal_visibility update-schema")


def _interpolated(environment: dict[str, str]) -> dict[str, str]:
    """The values with Compose's variables replaced by their defaults, and required ones by a plausible value."""

    def value(match: re.Match[str]) -> str:
        return match["word"] if match["operator"] == ":-" else "key=tenant/user"

    pattern = re.compile(r"\$\{\w+(?P<operator>:-|:\?)(?P<word>[^}]*)\}")
    return {name: pattern.sub(value, text) for name, text in environment.items()}
