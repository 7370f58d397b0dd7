"""Reads documents from disk. One bad file never keeps the others out: it is named, with what to do, and skipped."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.contracts import Unreadable
from holdfast.errors import InvalidInput, UnreadableDocument

EXTENSIONS = frozenset({".md", ".txt", ".rst"})
"""What a directory walk picks up, compared in lower case."""

MAX_DOCUMENT_BYTES = 5 * 1024 * 1024
"""Largest file read. A bigger one is usually a log or a dump, and would crowd everything else out of the index."""

_SKIPPED_DIRECTORIES = frozenset({"node_modules", "__pycache__"})


@dataclass(frozen=True)
class Document:
    """A text with the name that citations will give it."""

    source: str
    """Path relative to the ingested directory, with forward slashes; the file's name for a single file."""
    text: str
    """Contents without a byte-order mark; line endings as they are in the file."""


@dataclass(frozen=True)
class ReadResult:
    """What a path held."""

    documents: tuple[Document, ...]
    unreadable: tuple[Unreadable, ...]


def read_documents(root: Path) -> ReadResult:
    """Read a file, or every `.md`, `.txt` and `.rst` file below a directory, in the order of their paths.

    Hidden files and directories and `node_modules` are skipped. Symbolic links to files are read when they stay
    inside `root`; linked directories inside `root` are not walked twice.

    Args:
        root: A file or a directory.

    Returns:
        The documents, and those that could not be read with reason and remedy.

    Raises:
        InvalidInput: `root` does not exist or cannot be reached.
    """
    try:
        resolved = root.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidInput(
            f"Path {str(root)!r} cannot be reached ({_cause(error)}). Name a file or directory that exists.",
            field="path",
        ) from error
    documents: list[Document] = []
    unreadable: list[Unreadable] = []
    inside = resolved if resolved.is_dir() else resolved.parent
    candidates = _walk(resolved, unreadable) if resolved.is_dir() else iter([resolved])
    for path in candidates:
        source = _source(path, inside)
        try:
            documents.append(Document(source=source, text=_read(path, source, inside)))
        except UnreadableDocument as error:
            unreadable.append(Unreadable(source=source, reason=str(error)))
    return ReadResult(tuple(documents), tuple(unreadable))


def _walk(root: Path, unreadable: list[Unreadable]) -> Iterator[Path]:
    """Yield candidate files below `root`, depth first and sorted; report directories that cannot be walked."""

    def report(error: OSError) -> None:
        source = _source(Path(os.fsdecode(error.filename)), root)
        reason = f"Directory {source!r} cannot be listed ({_cause(error)}). Make it readable for this user."
        unreadable.append(Unreadable(source=source, reason=reason))

    for directory, names, files in os.walk(root, onerror=report):
        here = Path(directory)
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in _SKIPPED_DIRECTORIES)
        for name in names:
            if (here / name).is_symlink() and (reason := _link_trouble(here / name, root)):
                unreadable.append(Unreadable(source=_source(here / name, root), reason=reason))
        yield from (
            here / name
            for name in sorted(files)
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS
        )


def _link_trouble(link: Path, root: Path) -> str | None:
    """Why a linked directory's contents are missing from the walk, or `None` when the walk reaches them anyway."""
    target = Path(os.path.realpath(link))
    source = _source(link, root)
    if link.is_relative_to(target):
        return f"Directory {source!r} is a symbolic link to a directory above it, a loop. Remove the link."
    if not target.is_relative_to(root):
        return (
            f"Directory {source!r} is a symbolic link that leaves the ingested directory. Ingest its target by itself."
        )
    return None


def _read(path: Path, source: str, inside: Path) -> str:
    """Read one file.

    Raises:
        UnreadableDocument: With the file's name and a remedy.
    """
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise UnreadableDocument(f"The name of {source!r} is not UTF-8. Rename the file.") from error
    if path.suffix.lower() not in EXTENSIONS:
        kinds = ", ".join(sorted(EXTENSIONS))
        raise UnreadableDocument(f"{source!r} is not one of {kinds}. Convert it to one of these.")
    try:
        if not Path(os.path.realpath(path, strict=True)).is_relative_to(inside):
            raise UnreadableDocument(
                f"{source!r} is a symbolic link that leaves the ingested directory. Copy the file."
            )
        status = path.stat()
        # A named pipe would block the reader for ever.
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableDocument(f"{source!r} is not a regular file. Remove it or write its text to a file.")
        with path.open("rb") as file:
            # The size is checked on what was read: the file may grow after `stat`.
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise UnreadableDocument(
            f"{source!r} cannot be read ({_cause(error)}). Make it readable for this user, or mend the link."
        ) from error
    if len(data) > MAX_DOCUMENT_BYTES:
        limit = MAX_DOCUMENT_BYTES // (1024 * 1024)
        raise UnreadableDocument(f"{source!r} is larger than {limit} MiB. Split it into smaller files.")
    return _decode(data, source)


def _decode(data: bytes, source: str) -> str:
    if b"\0" in data:
        raise UnreadableDocument(f"{source!r} is binary, or text in UTF-16. Save it as UTF-8 text.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableDocument(f"{source!r} is not UTF-8 (byte {error.start}). Save it as UTF-8 text.") from error
    if not text.strip():
        raise UnreadableDocument(f"{source!r} is empty. Write something in it, or remove it.")
    return text


def _source(path: Path, root: Path) -> str:
    """The name of a path as citations give it; bytes that are not UTF-8 are shown escaped."""
    relative = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


def _cause(error: BaseException) -> str:
    """The system's words for an error, without the path that the message already names."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
