"""One installation for all kills; each test finds it whole."""

from collections.abc import AsyncIterator

import pytest

from tests.chaos.installation import Installation, open_installation


@pytest.fixture(scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """Server, gateway, worker and model of the whole module."""
    async with open_installation(tmp_path_factory.mktemp("chaos")) as installation:
        yield installation


@pytest.fixture
async def installation(standing: Installation) -> AsyncIterator[Installation]:
    """The installation with every process alive; what the processes log is printed if the test fails."""
    await standing.revive()
    before = {log: log.stat().st_size for log in standing.logs}
    yield standing
    for log, size in before.items():
        print(f"== {log.name}")
        with log.open("rb") as file:
            file.seek(size)
            print(file.read().decode(errors="replace"))
