import os
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import InvalidInput
from holdfast.knowledge import Document, read_documents
from holdfast.knowledge.documents import MAX_DOCUMENT_BYTES


def reasons(root: Path) -> dict[str, str]:
    """Reason by source of what could not be read; the file `good.md` beside it always can."""
    (root / "good.md").write_text("good")
    result = read_documents(root)
    assert Document("good.md", "good") in result.documents
    return {entry.source: entry.reason for entry in result.unreadable}


def test_a_directory_gives_its_text_files_named_relative_to_it_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.md", "a.TXT", "sub/c.rst", "picture.png", "page.html"):
        (tmp_path / name).write_text(f"text of {name}")
    result = read_documents(tmp_path)
    assert [(d.source, d.text) for d in result.documents] == [
        ("a.TXT", "text of a.TXT"),
        ("b.md", "text of b.md"),
        ("sub/c.rst", "text of sub/c.rst"),
    ]
    assert result.unreadable == ()


def test_a_single_file_is_named_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "only.md").write_text("text")
    assert read_documents(tmp_path / "only.md").documents == (Document("only.md", "text"),)


def test_hidden_and_vendored_directories_are_skipped(tmp_path: Path) -> None:
    for name in (".git", ".venv", "node_modules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "readme.md").write_text("vendored")
    (tmp_path / ".hidden.md").write_text("hidden")
    assert reasons(tmp_path) == {}
    assert len(read_documents(tmp_path).documents) == 1


def test_a_byte_order_mark_is_dropped_and_line_endings_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert read_documents(tmp_path).documents == (Document("a.txt", "one\r\ntwo"),)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"caf\xe9", "not UTF-8 (byte 3). Save it as UTF-8"),
        (b"\x7fELF\0\0", "binary"),
        ("text".encode("utf-16"), "UTF-16"),
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"x" * (MAX_DOCUMENT_BYTES + 1), "larger than 5 MiB. Split it"),
    ],
)
def test_a_file_that_is_not_text_is_named_with_the_remedy_and_keeps_no_other_out(
    tmp_path: Path, data: bytes, words: str
) -> None:
    (tmp_path / "bad.md").write_bytes(data)
    found = reasons(tmp_path)
    assert list(found) == ["bad.md"]
    assert "'bad.md'" in found["bad.md"]
    assert words in found["bad.md"]


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_bytes(b"x" * MAX_DOCUMENT_BYTES)
    assert len(read_documents(tmp_path).documents[0].text) == MAX_DOCUMENT_BYTES


def test_a_file_without_permission_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.md").write_text("text")
    opened = Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        # chmod would not stop a test that runs as root.
        if self.name == "secret.md":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    assert reasons(tmp_path) == {
        "secret.md": "'secret.md' cannot be read (Permission denied). Make it readable for this user, or mend the link."
    }


def test_a_directory_that_cannot_be_listed_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "Make it readable" in reasons(tmp_path)["locked"]


def test_links_that_loop_dangle_or_leave_the_directory_are_reported(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    outside.mkdir()
    (outside / "secret.md").write_text("secret")
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "up").symlink_to(root)
    (root / "a.md").symlink_to("b.md")
    (root / "b.md").symlink_to("a.md")
    (root / "dangling.md").symlink_to("nowhere.md")
    (root / "away.md").symlink_to(outside / "secret.md")
    (root / "elsewhere").symlink_to(outside)
    found = reasons(root)
    assert sorted(found) == ["a.md", "away.md", "b.md", "dangling.md", "elsewhere", "sub/up"]
    assert "loop" in found["sub/up"]
    assert "leaves the ingested directory" in found["away.md"]
    assert "leaves the ingested directory" in found["elsewhere"]
    assert not any(document.text == "secret" for document in read_documents(root).documents)


def test_a_linked_directory_inside_the_root_is_not_read_twice(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.md").write_text("text")
    (tmp_path / "alias").symlink_to("real")
    result = read_documents(tmp_path)
    assert [document.source for document in result.documents] == ["real/a.md"]
    assert result.unreadable == ()


def test_a_named_pipe_does_not_block_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    assert "not a regular file" in reasons(tmp_path)["pipe.md"]


def test_a_name_that_is_not_utf8_is_reported_escaped(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text("text")
    assert "Rename" in reasons(tmp_path)["caf\\xe9.md"]


def test_a_single_file_of_another_kind_is_reported(tmp_path: Path) -> None:
    (tmp_path / "paper.pdf").write_text("text")
    result = read_documents(tmp_path / "paper.pdf")
    assert result.documents == ()
    assert "Convert it" in result.unreadable[0].reason


def test_a_missing_path_is_invalid_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere.*cannot be reached.*exists") as caught:
        read_documents(tmp_path / "nowhere")
    assert caught.value.field == "path"
