"""What the ledger reports is what the provider bills, to the last digit, over both wire formats and prompt caches."""

import asyncio
from decimal import Decimal
from pathlib import Path

from temporalio.client import Client

from holdfast.ledger import GroupBy
from simulator.program import Profile
from simulator.server import Simulator
from tests.house import open_house

PRICES = """
[default]
cache_minimum_tokens = 1
[models.sim-large]
price = { input = 0.50, cache_read = 0.05, output = 1.50 }
[models.sim-claude]
price = { input = 3, cache_read = 0.30, cache_write = 3.75, output = 15 }
"""

MODELS = """
[deployments.sim]
provider = "openai"
model = "sim-large"
base_url = "%(url)s/v1"
price = { input = "0.50", cache_read = "0.05", output = "1.50" }
[deployments.claude]
provider = "anthropic"
model = "sim-claude"
base_url = "%(url)s"
price = { input = "3", cache_read = "0.30", cache_write = "3.75", output = "15" }
"""

AGENTS = {
    name: f'deployments = ["{deployment}"]\nprompt = "plain.md"\nrecall = false\n'
    for name, deployment in (("plain", "sim"), ("anthropic", "claude"))
}


async def test_the_report_equals_the_bill_to_the_last_digit(temporal_client: Client, tmp_path: Path) -> None:
    profile = tmp_path / "prices.toml"
    profile.write_text(PRICES)
    async with open_house(
        tmp_path, temporal_client, agents=AGENTS, models=MODELS, simulator=Simulator(profile=Profile.load(profile))
    ) as house:
        replies = await asyncio.gather(
            *(house.ask(agent, f"Question {number}", session="s1") for number in range(4) for agent in AGENTS)
        )
        assert {reply["status"] for reply in replies} == {"completed"}
        bill = house.simulator.bill()
        assert any(entry["cache_read_tokens"] for entry in bill["entries"]), "the caches must have been hit"
        ledger = house.services.ledger
        for by in GroupBy:
            lines = await ledger.usage(by)
            assert sum((line.usage.cost_usd or Decimal(0) for line in lines), Decimal(0)) == Decimal(bill["cost_usd"])
        of_agents = {line.key: line.usage for line in await ledger.usage(GroupBy.AGENT)}
        assert set(of_agents) == set(AGENTS)
        assert sum(usage.cache_read_tokens for usage in of_agents.values()) == bill["cache_read_tokens"]
