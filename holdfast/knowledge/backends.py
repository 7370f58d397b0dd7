"""Chooses the passage store: embedded on disk, or a Qdrant server when one is named."""

from pathlib import Path

from holdfast.knowledge.edge import EdgeStore
from holdfast.knowledge.store import KnowledgeStore


async def open_store(path: Path, url: str = "", *, api_key: str | None = None) -> KnowledgeStore:
    """Open the store that the settings `knowledge.path` and `knowledge.url` describe.

    Args:
        path: Directory of the embedded index; used when `url` is empty.
        url: A Qdrant server.
        api_key: The server's key, if it wants one.

    Raises:
        Unavailable: The directory is held by another process, or the server does not answer.
        ConfigurationError: The server's collection is for vectors of another shape.
    """
    if not url:
        return await EdgeStore.open(path)
    # qdrant_client costs 0.9 s and 65 MB to import, which an embedded installation need not pay.
    from holdfast.knowledge.server import ServerStore

    return await ServerStore.open(url, api_key=api_key)
