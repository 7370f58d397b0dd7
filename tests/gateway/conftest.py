"""A gateway over a real ledger, with three agents.

`bob` approves the answers of `docs`, `writer` has limits, `form` answers in JSON.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.configuration import Configuration, load_configuration
from holdfast.ledger import Ledger
from tests.gateway.recorded import Edge, opened

MODELS = """
[deployments.extractive]
provider = "extractive"
model = "extractive-1"
"""

AGENTS = {
    "docs": """
deployments = ["extractive"]
prompt = "prompt.md"

[approval]
approvers = ["bob"]
""",
    "writer": """
deployments = ["extractive"]
prompt = "prompt.md"

[limits]
tokens = 1000
output_tokens = 500
cost_usd = "0.50"
""",
    "form": """
deployments = ["extractive"]
prompt = "prompt.md"
output_schema = "form.json"
""",
}

SCHEMA = '{"type": "object", "properties": {"mail": {"type": "string"}, "sum": {"type": "number", "minimum": 0.5}}}'


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    for name in ("agents", "prompts", "schemas"):
        (tmp_path / name).mkdir()
    (tmp_path / "schemas" / "form.json").write_text(SCHEMA)
    (tmp_path / "models.toml").write_text(MODELS)
    (tmp_path / "prompts" / "prompt.md").write_text("Answer briefly.")
    for name, text in AGENTS.items():
        (tmp_path / "agents" / f"{name}.toml").write_text(text)
    return load_configuration(tmp_path)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = await Ledger.open(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")
    yield ledger
    await ledger.aclose()


@pytest.fixture
async def edge(configuration: Configuration, ledger: Ledger) -> AsyncIterator[Edge]:
    """A gateway without API keys, called from this machine."""
    async with opened(configuration, ledger) as edge:
        yield edge


@pytest.fixture
async def guarded(configuration: Configuration, ledger: Ledger) -> AsyncIterator[Edge]:
    """A gateway with the keys `ka` (acme/ann), `kb` (acme/bob) and `ko` (other/olga)."""
    async with opened(configuration, ledger, api_keys="ka=acme/ann,kb=acme/bob,ko=other/olga/premium") as edge:
        yield edge
