"""`ingest PATH`: reads documents here and has the gateway index them, in requests small enough for it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from cli.client import Document, GatewayClient
from cli.options import Json, Url, User
from cli.output import DONE, FAILED, Output, Problem

BATCH_BYTES = 512 * 1024
"""UTF-8 bytes of text in one request: half of the gateway's default limit, which leaves room for JSON's escapes."""
BATCH_DOCUMENTS = 100
TOO_LARGE = 413


@dataclass(frozen=True)
class Source:
    """A text and the name that citations give it."""

    name: str
    text: str


@dataclass
class Indexed:
    """What has become of the documents so far."""

    sources: int = 0
    passages: int = 0
    unreadable: list[dict[str, str]] = field(default_factory=list)
    """`source` and `reason` of each that was left out."""


def ingest(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or a directory with .md, .txt and .rst files.")],
    collection: Annotated[str, typer.Option(help="Where to put them; agents name it in their file.")] = "docs",
    as_json: Json = False,
    url: Url = "",
    user: User = "",
) -> None:
    """Index documents. What cannot be read is named, and the others are indexed all the same."""
    output = Output(as_json=as_json)
    documents, unreadable = read(path)
    if not documents and not unreadable:
        raise Problem(f"{path} holds no .md, .txt or .rst file.", remedy="Name a directory or a file that does.")
    indexed = Indexed(unreadable=unreadable)
    if documents:
        with GatewayClient(url, user) as client, output.counting("Indexing", len(documents)) as bar:
            index(client, collection, documents, indexed, lambda count: bar.advance(bar.task_ids[0], count))
    output.document(
        {
            "collection": collection,
            "sources": indexed.sources,
            "passages": indexed.passages,
            "unreadable": indexed.unreadable,
        }
    )
    output.say(f"Indexed {indexed.sources} documents as {indexed.passages} passages in collection {collection!r}.")
    for left_out in indexed.unreadable:
        output.note(f"Left out: {left_out['reason']}")
    if indexed.sources:
        if collection == "docs":
            output.next('holdfast ask docs "..."')
        else:
            output.next(f'ask an agent whose file says `collection = "{collection}"`')
    else:
        output.next("mend what was left out, then `holdfast ingest` again")
    raise typer.Exit(FAILED if indexed.unreadable else DONE)


def read(path: Path, prefix: str = "") -> tuple[list[Source], list[dict[str, str]]]:
    """Read a file or directory.

    Args:
        prefix: Put before every source's name.

    Returns:
        The documents, and `source` and `reason` of each that cannot be read.

    Raises:
        InvalidInput: The path does not exist.
    """
    # The knowledge package loads numpy and the embedded store, which other verbs should not wait for.
    from holdfast.knowledge import read_documents

    found = read_documents(path)
    documents = [Source(prefix + document.source, document.text) for document in found.documents]
    unreadable = [{"source": prefix + left_out.source, "reason": left_out.reason} for left_out in found.unreadable]
    return documents, unreadable


def index(
    client: GatewayClient,
    collection: str,
    documents: Iterable[Source],
    indexed: Indexed,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Have documents indexed; each replaces what its source held before.

    Args:
        indexed: Is brought up to date after every request, so that an interruption leaves a true count.
        advance: Told how many more documents are done.

    Raises:
        Problem: The gateway does not answer, or refuses a whole request for another reason than its size.
    """
    waiting = list(batches(documents))
    while waiting:
        batch = waiting.pop(0)
        try:
            document = client.ingest(collection, [{"source": source.name, "text": source.text} for source in batch])
        except Problem as problem:
            if problem.members.get("status") != TOO_LARGE:
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                waiting[:0] = [batch[:middle], batch[middle:]]
                continue
            reason = f"{batch[0].name!r} is larger than the gateway accepts. Split it, or: {problem.remedy}"
            indexed.unreadable.append({"source": batch[0].name, "reason": reason})
        else:
            _add(indexed, document)
        advance(len(batch))


def batches(documents: Iterable[Source]) -> Iterator[list[Source]]:
    """Group documents for one request each; one that is larger than a batch goes alone."""
    batch: list[Source] = []
    size = 0
    for document in documents:
        weight = len(document.text.encode())
        if batch and (size + weight > BATCH_BYTES or len(batch) == BATCH_DOCUMENTS):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += weight
    if batch:
        yield batch


def _add(indexed: Indexed, document: Document) -> None:
    if document["status"] != "completed":
        raise Problem(
            f"Indexing ended as {document['status']}: {document.get('reason') or 'no reason was given'}.",
            remedy=f"See its trace: {document['links']['trace']}; then ingest again, which replaces what is there.",
        )
    indexed.sources += document["sources"]
    indexed.passages += document["passages"]
    indexed.unreadable += document["unreadable"]
