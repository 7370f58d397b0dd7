"""The files of `temporal-dev/` are checked whole, and mean what they say to the server that reads them."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest
from temporalio.client import Client

from cli.temporal_files import DIRECTORY, read_server_files
from cli.temporal_server import TemporalServer
from holdfast.errors import ConfigurationError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of the product's files that a test may spoil."""
    for name in ("server.toml", "dynamicconfig.yaml", "search-attributes.toml"):
        shutil.copy(DIRECTORY / name, tmp_path / name)
    return tmp_path


def test_the_search_attributes_are_those_of_the_architecture() -> None:
    assert read_server_files().search_attributes == {
        "HoldfastTenant": "Keyword",
        "HoldfastUser": "Keyword",
        "HoldfastAgent": "Keyword",
        "HoldfastVersion": "Keyword",
        "HoldfastSession": "Keyword",
        "HoldfastStatus": "Keyword",
        "HoldfastTier": "Keyword",
        "HoldfastModel": "Keyword",
        "HoldfastApprovers": "KeywordList",
        "HoldfastApprovalDeadline": "Datetime",
        "HoldfastCostUsd": "Double",
        "HoldfastTokens": "Int",
    }


async def test_every_dynamic_config_key_is_read_by_the_server() -> None:
    keys = read_server_files().dynamic_config
    # The server warns about a value of the wrong type when it reads the key, and only then.
    async with TemporalServer(port=0, ui=False, dynamic_config={key: ["wrong type"] for key in keys}) as server:
        client = await Client.connect(server.address)
        # A workflow without a worker makes the server write to a task queue, which reads the last of the keys.
        await client.start_workflow("Unserved", id="unserved", task_queue="unserved")
        async with asyncio.timeout(60):
            while unread := {key.lower() for key in keys} - _refused_keys(server.log):
                assert server.running, f"the server ended before it read {unread}"
                await asyncio.sleep(0.05)


def _refused_keys(log: Path) -> set[str]:
    return set(re.findall(r'Failed to convert value, using default" key=(\S+)', log.read_text()))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("search-attributes.toml", '[HoldfastTenant]\ntype = "Keywrd"\nreason = "r"', r"`HoldfastTenant\.type`"),
        ("search-attributes.toml", '[HoldfastTenant]\ntype = "Keyword"', r"`HoldfastTenant\.reason`: Field required"),
        ("search-attributes.toml", '["a b"]\ntype = "Keyword"\nreason = "r"', "`a b` is not a search attribute name"),
        ("search-attributes.toml", "[", "not valid TOML"),
        ("dynamicconfig.yaml", "matching.enableFairness: true", r"`matching\.enableFairness`: Input should be a valid"),
        ("dynamicconfig.yaml", "a.b:\n  - value: 1\n  - value: 2", r"`a\.b` has 2 values"),
        ("dynamicconfig.yaml", "a.b: [", "not valid YAML"),
        ("dynamicconfig.yaml", "a.b: [{value: 1, constraints: {namespace: x}}]", r"`a\.b\.0\.constraints`"),
        ("server.toml", 'log_level = "loud"', r"`log_level`: Input should be 'debug'"),
    ],
)
def test_a_malformed_file_is_named_with_its_key(files: Path, name: str, content: str, complaint: str) -> None:
    (files / name).write_text(content)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        read_server_files(files)
    assert str(files / name) in str(caught.value)


@pytest.mark.parametrize("name", ["server.toml", "dynamicconfig.yaml", "search-attributes.toml"])
def test_a_missing_file_is_named(files: Path, name: str) -> None:
    (files / name).unlink()
    with pytest.raises(ConfigurationError, match=f"{name}: does not exist"):
        read_server_files(files)
