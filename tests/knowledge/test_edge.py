import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.errors import Unavailable
from holdfast.knowledge import Chunk, EdgeStore, Embedder, Point

WRITER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from holdfast.knowledge import Chunk, EdgeStore, Point

async def main():
    store = await EdgeStore.open(Path(sys.argv[1]))
    for number in range(50):
        vector = np.eye(384, dtype=np.float32)[number]
        await store.replace("acme", "docs", f"{number}.md", [Point(Chunk(f"text {number}", 0, 6), vector)])
    await store.flush()
    print("flushed", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def writer(tmp_path: Path) -> "subprocess.Popen[str]":
    """Another process that has written and flushed 50 sources and still holds the directory."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "flushed\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.chaos
async def test_what_was_flushed_survives_a_kill(tmp_path: Path, writer: "subprocess.Popen[str]") -> None:
    kill(writer)
    store = await EdgeStore.open(tmp_path)
    assert await store.sources("acme", "docs") == dict.fromkeys(sorted(f"{n}.md" for n in range(50)), 1)
    await store.aclose()


async def test_a_second_process_is_told_who_holds_the_directory_and_what_to_do(
    tmp_path: Path, writer: "subprocess.Popen[str]"
) -> None:
    try:
        with pytest.raises(Unavailable) as caught:
            await EdgeStore.open(tmp_path)
    finally:
        kill(writer)
    message = str(caught.value)
    assert f"'{tmp_path}'" in message
    assert f"id {writer.pid}" in message
    assert "knowledge.url" in message


async def test_a_closed_store_frees_its_directory_and_keeps_its_passages(tmp_path: Path, embedder: Embedder) -> None:
    vector = (await embedder.embed(["apples"]))[0]
    first = await EdgeStore.open(tmp_path)
    await first.replace("acme", "docs", "a.md", [Point(Chunk("apples", 0, 6), vector)])
    with pytest.raises(Unavailable, match=f"id {os.getpid()}"):
        await EdgeStore.open(tmp_path)
    await first.aclose()
    with pytest.raises(Unavailable, match=r"closed\. Open it again"):
        await first.count("acme", "docs")
    second = await EdgeStore.open(tmp_path)
    (passage,) = await second.search("acme", "docs", vector, 5)
    assert passage.text == "apples"
    await second.aclose()


async def test_an_index_for_another_model_is_refused_and_its_directory_freed(tmp_path: Path) -> None:
    await (await EdgeStore.open(tmp_path, dimensions=384)).aclose()
    with pytest.raises(Unavailable, match="another embedding model"):
        await EdgeStore.open(tmp_path, dimensions=768)
    await (await EdgeStore.open(tmp_path, dimensions=384)).aclose()


async def test_opening_finishes_a_creation_that_a_crash_cut_short(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    store = await EdgeStore.open(tmp_path)
    assert await store.count("acme", "docs") == 0
    await store.aclose()


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"file/index'.*cannot be written.*knowledge\.path"):
        await EdgeStore.open(tmp_path / "file" / "index")
