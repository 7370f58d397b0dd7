import asyncio
from collections.abc import AsyncIterator

import pytest
from qdrant_client import AsyncQdrantClient, models

from holdfast.errors import ConfigurationError, Unavailable
from holdfast.knowledge import open_store
from holdfast.knowledge.server import ServerStore

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


@pytest.fixture
async def refusing_port() -> AsyncIterator[int]:
    """A port where every HTTP request is answered 403 with a body that must not be repeated."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_server_that_does_not_answer_is_named_without_credentials(free_port: int) -> None:
    with pytest.raises(Unavailable) as caught:
        await ServerStore.open(f"http://admin:hunter2@127.0.0.1:{free_port}/?token=hunter2")
    message = str(caught.value)
    assert f"http://127.0.0.1:{free_port} does not answer" in message
    assert "knowledge.url" in message
    assert "hunter2" not in message
    assert "admin" not in message


async def test_a_server_that_refuses_is_named_with_the_status_and_not_the_body(refusing_port: int) -> None:
    with pytest.raises(Unavailable, match="status 403") as caught:
        await ServerStore.open(f"http://127.0.0.1:{refusing_port}")
    assert "secret" not in str(caught.value)


async def test_preparing_twice_keeps_what_is_there() -> None:
    store = ServerStore(AsyncQdrantClient(location=":memory:"), "memory")
    await store.prepare()
    await store.prepare()
    assert await store.count("acme", "docs") == 0
    await store.aclose()


@pytest.mark.parametrize(
    "vectors",
    [
        {"dense": models.VectorParams(size=768, distance=models.Distance.COSINE)},
        {"dense": models.VectorParams(size=384, distance=models.Distance.DOT)},
        models.VectorParams(size=384, distance=models.Distance.COSINE),
    ],
)
async def test_a_collection_of_another_shape_is_a_configuration_error(
    vectors: models.VectorParams | dict[str, models.VectorParams],
) -> None:
    client = AsyncQdrantClient(location=":memory:")
    await client.create_collection("mine", vectors)
    store = ServerStore(client, "memory", name="mine")
    with pytest.raises(ConfigurationError, match=r"'mine' at memory.*384"):
        await store.prepare()
    await store.aclose()


async def test_a_url_chooses_the_server(free_port: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("unused") / "index"
    with pytest.raises(Unavailable, match="Qdrant server"):
        await open_store(directory, f"http://127.0.0.1:{free_port}")
    assert not directory.exists()
