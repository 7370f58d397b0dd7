"""The sample shop's pages: where they are served, and that agents read these and nothing else of the machine."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli import checks, samples
from cli.team import PAGE
from holdfast.configuration import Configuration, load_configuration
from holdfast.errors import ToolProblem
from holdfast.tools import ToolContext

REPOSITORY = Path(__file__).parents[2]
CALLER = ToolContext(
    idempotency_key="0" * 32, tenant="acme", user="ann", session=None, agent="web", request_id="req_1", key="0.0"
)
USUAL = f"http://{samples.HOST}:{samples.PORT}"


@pytest.fixture
def configuration() -> Configuration:
    return load_configuration(REPOSITORY / "config")


async def read(configuration: Configuration, url: str) -> str:
    return str(await configuration.toolset.tools["pages"].call({"url": url}, CALLER))


async def test_pages_are_read_where_they_are_and_no_other_port_of_the_machine_is(configuration: Configuration) -> None:
    async with samples.pages(REPOSITORY, 0) as url, samples.pages(REPOSITORY, 0) as other:
        there = samples.at_pages(configuration, url)
        assert "Firmware 1.3 mends this." in await read(there, url + PAGE)
        assert url.removeprefix("http://") in there.toolset.tools["pages"].description
        for elsewhere in (other, USUAL):
            with pytest.raises(ToolProblem, match="not on the list"):
                await read(there, elsewhere + PAGE)
        with pytest.raises(ToolProblem, match="not on the list"):
            await read(configuration, url + PAGE)


async def test_pages_take_another_port_when_theirs_is_taken() -> None:
    with socket.create_server((samples.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        async with samples.pages(REPOSITORY, port) as url:
            assert urlsplit(url).port not in (None, port)


async def test_a_tool_that_reads_elsewhere_stays_where_it_is(configuration: Configuration) -> None:
    tools = samples.at_pages(configuration, USUAL).toolset.tools
    assert tools["pages"].description == configuration.toolset.tools["pages"].description
    assert tools["shop"] is configuration.toolset.tools["shop"]


def test_doctor_looks_at_the_port_that_the_pages_have() -> None:
    assert checks.PAGES_PORT == samples.PORT
