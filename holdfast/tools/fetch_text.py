"""From the bytes of a response to text a model can read.

What a server says about its bytes is taken as a hint. An encoding is used only if it is one that browsers know: Python
has others, some of which take time without bound. HTML is read in a process of its own, `fetch_reader.py`, because its
parsers are large, written in C, and slow for pages made to be slow; that process can be ended, holds no secret and may
use only so much memory.
"""

import asyncio
import codecs
import json
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from holdfast.errors import ToolProblem

_READER = Path(__file__).with_name("fetch_reader.py")
_CODEC = re.compile(
    r"ascii|utf-8|utf-16(?:-[lb]e)?|iso8859-\d{1,2}|cp125\d|cp874|cp866|koi8-[ru]|mac-roman"
    r"|gb2312|gbk|gb18030|big5|euc_jp|euc_kr|shift_jis|iso2022_jp",
    re.ASCII,
)
_DECLARED = re.compile(
    rb"""<(?:meta\b[^>]{0,200}?\bcharset|\?xml\b[^>]{0,200}?\bencoding)\s*=\s*["']?\s*([\w-]{1,40})"""
)
_DECLARED_WITHIN = 2_048
_CHARSET = re.compile(r"""(?i);\s*charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.ASCII)
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# Control characters, and the tags of Unicode's plane 14, which a model reads and a person does not see.
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff\U000e0000-\U000e007f]")
_MARKUP = re.compile(rb"\s*(?:<!--[^>]{0,500}-->\s*)?<(?:!doctype html|html|head|body)\b", re.IGNORECASE)
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_MAX_HEADER = 300
_MAX_TITLE = 300


@dataclass(frozen=True)
class PageText:
    """A page as text."""

    title: str
    """Empty when it has none."""
    text: str


def media_type(content_type: str, body: bytes = b"") -> tuple[str, str]:
    """Type and declared encoding, in lower case.

    Args:
        content_type: The header's value; when it is empty the body's first bytes decide between HTML and plain text.
        body: The body, or its beginning.
    """
    if not content_type.strip():
        return ("text/html" if _MARKUP.match(body) else "text/plain"), ""
    kind = content_type.partition(";")[0].strip().lower()
    charset = _CHARSET.search(content_type[:_MAX_HEADER])
    return kind, charset[1] if charset else ""


async def page_text(body: bytes, content_type: str, *, within: timedelta) -> PageText:
    """What a page says.

    Args:
        body: Whole and unpacked.
        content_type: As the server stated it.
        within: How long reading HTML may take.

    Raises:
        ToolProblem: It is no text, or cannot be read.
    """
    kind, charset = media_type(content_type, body)
    decoded = decode(body, charset)
    if decoded.count("\x00") > len(decoded) // 100:
        raise ToolProblem("The server sent something that is not text.")
    if kind in _HTML:
        return await _read(decoded, within)
    return PageText("", _clean(decoded))


def decode(body: bytes, charset: str) -> str:
    """The body's characters, by its byte order mark, by what was declared, as UTF-8, or as Windows-1252."""
    for mark, codec in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(codec, "replace")
    declared = _DECLARED.search(body[:_DECLARED_WITHIN])
    tried = [charset, declared[1].decode("ascii", "replace") if declared else "", "utf-8"]
    for codec in filter(None, map(_codec, tried)):
        with suppress(UnicodeDecodeError):
            return body.decode(codec)
    # Nobody told the truth: UTF-8 with a few broken places is better read as UTF-8 than as another encoding.
    lenient = body.decode("utf-8", "replace")
    return lenient if lenient.count("\ufffd") <= len(lenient) // 50 else body.decode("cp1252", "replace")


def _codec(label: str) -> str | None:
    try:
        name = codecs.lookup(label.strip().lower()).name if label.isascii() and 0 < len(label) <= 40 else ""
    except (LookupError, ValueError):
        return None
    # Browsers read Latin-1 as Windows-1252, and so do the authors who declare it.
    return ("cp1252" if name in ("iso8859-1", "ascii") else name) if _CODEC.fullmatch(name) else None


async def _read(html: str, within: timedelta) -> PageText:
    seconds = within.total_seconds()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(_READER),
        str(max(1, round(seconds))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    try:
        async with asyncio.timeout(seconds):
            written, _ = await process.communicate(html.encode("utf-8", "replace"))
    except TimeoutError:
        raise ToolProblem("The page takes too long to be read as text.") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        found = json.loads(written)
        return PageText(_clean(" ".join(str(found["title"]).split()))[:_MAX_TITLE], _clean(str(found["text"])))
    except (ValueError, KeyError, TypeError):
        raise ToolProblem("The page cannot be read as text.") from None


def _clean(text: str) -> str:
    return _UNSEEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
