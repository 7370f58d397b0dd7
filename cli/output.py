"""How every verb speaks: one JSON document with `--json`, otherwise text for a person that ends with what to do next.

Answers go to standard output, progress and errors to standard error. Text that came from a model, a document or another
person is never written raw: it could move the cursor, recolour the screen or reorder what an approver reads.
"""

import errno
import json
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from holdfast.errors import HoldfastError, InvalidInput

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
"""Exit codes: the verb did it; it could not; it was called wrongly; the gateway does not answer."""


class Problem(HoldfastError):
    """A verb could not do what was asked.

    Args:
        detail: What happened to which object.
        remedy: What to do about it.
        exit_code: What the process ends with.
        members: More members of the problem document (RFC 9457), such as the gateway's `status` and `field`.
    """

    def __init__(
        self,
        detail: str,
        *,
        remedy: str = "",
        exit_code: int = FAILED,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.remedy = remedy
        self.exit_code = exit_code
        self.members = dict(members or {})


class _Console(Console):
    """A console whose reader may go away (`| head`), as an ordinary error."""

    def on_broken_pipe(self) -> NoReturn:
        """Let what was started be stopped in order.

        The library raises `SystemExit`, which leaves an event loop at once: `dev` would never stop its parts.
        """
        raise BrokenPipeError(errno.EPIPE, "Whoever read the output has gone.")


class Output:
    """Where a verb's words go.

    Args:
        as_json: Write exactly one JSON document to standard output and no text there.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        # What is not a terminal has no width; a table in a pipe should not be folded to 80 columns.
        width = None if sys.stdout.isatty() else 160
        self.console = _Console(highlight=False, markup=False, emoji=False, width=width)
        self.notes = _Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: both ends are a terminal and the output is meant for one."""
        return not self.as_json and sys.stdin.isatty() and self.console.is_terminal

    def document(self, value: object) -> None:
        """Write the one JSON document, if that is what was asked for."""
        if self.as_json:
            ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
            print(json.dumps(value, indent=2, ensure_ascii=ascii_only, default=str), flush=True)

    def say(self, text: str = "", style: str | None = None) -> None:
        """Write a line for a person; never broken into several, so that commands can be copied."""
        if not self.as_json:
            self.console.print(visible(text), style=style, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Write a line that opens a part."""
        self.say(text, style="bold")

    def table(self, table: Table) -> None:
        """Write a table; its cells must have gone through `visible`."""
        if not self.as_json:
            self.console.print(table)

    def next(self, *commands: str) -> None:
        """Write what to do next."""
        self.say()
        for position, command in enumerate(commands):
            self.say(f"{'Next:' if position == 0 else '  or:'} {command}", style="cyan")

    def steps(self, *commands: str) -> None:
        """Write what to do next where one comes after the other."""
        self.say()
        for position, command in enumerate(commands):
            self.say(f"{'Next:' if position == 0 else 'then:'} {command}", style="cyan")

    def quoted(self, text: str) -> None:
        """Write what somebody else wrote, so that no line of it looks like one of ours."""
        for line in text.splitlines() or ["(nothing)"]:
            self.say(f"    | {line}")

    def note(self, text: str) -> None:
        """Write a line of progress or warning to standard error."""
        self.notes.print(visible(text), style="dim", soft_wrap=True)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show that something takes a while: a spinner on a terminal, a line elsewhere."""
        if self.notes.is_terminal:
            with self.notes.status(Text(visible(text))):
                yield
        else:
            self.note(f"{text} ...")
            yield

    @contextmanager
    def counting(self, text: str, total: int) -> Iterator[Progress]:
        """Show a bar; `progress.advance(progress.task_ids[0])` moves it."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self.notes, transient=True, disable=not self.notes.is_terminal) as progress:
            progress.add_task(text, total=total)
            yield progress


def moment(written: str) -> str:
    """A moment as the gateway writes it (RFC 3339), for a person: to the minute, in UTC."""
    return f"{datetime.fromisoformat(written).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def span(length: timedelta) -> str:
    """A length of time as files write it: `2d`, `1h30m`, `250ms`."""
    left = round(length / timedelta(milliseconds=1))
    written = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, left = divmod(left, size)
        written += f"{count}{unit}" if count else ""
    return written or "0s"


def report(error: HoldfastError, *, as_json: bool) -> int:
    """Tell what went wrong.

    Returns:
        The exit code.
    """
    output = Output(as_json=as_json)
    problem = error if isinstance(error, Problem) else _as_problem(error)
    if as_json:
        members = {"title": "The command failed", "detail": str(problem)} | problem.members
        output.document(members | ({"remedy": problem.remedy} if problem.remedy else {}))
    else:
        output.notes.print(Text.assemble(("Error: ", "bold red"), visible(str(problem))), soft_wrap=True)
        if problem.remedy:
            output.notes.print(Text.assemble(("Next: ", "cyan"), visible(problem.remedy)), soft_wrap=True)
    return problem.exit_code


def _as_problem(error: HoldfastError) -> Problem:
    field = error.field if isinstance(error, InvalidInput) else None
    return Problem(str(error), members={"field": field} if field else None)


def visible(text: str) -> str:
    r"""Text with every character that acts on a terminal or on reading order spelt out.

    Control characters (Unicode category Cc, but for newline and tab) and format characters that reorder or hide text
    (Cf: bidirectional overrides, zero-width) become `\u....` escapes; CVE-2021-42574 shows what the latter can hide.
    The joiners of scripts and emoji (ZWNJ, ZWJ) stay, because words need them.
    """
    return "".join(
        character if character in "\n\t\u200c\u200d" or not _acts(character) else f"\\u{ord(character):04x}"
        for character in text
    )


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs")
