import json

import pytest

from cli.output import Output, Problem, moment, report, span, visible
from holdfast.errors import InvalidInput
from holdfast.settings import parse_duration


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]text[/bold] äöü 漢字 👍", "plain [bold]text[/bold] äöü 漢字 👍"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x1b[31mred", "\\u001b[2J\\u001b[31mred"),
        ("over\rwritten", "over\\u000dwritten"),
        ("approve \u202eesrever", "approve \\u202eesrever"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("tag \U000e0041", "tag \\ue0041"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_nothing_in_a_text_can_act_on_the_terminal_or_on_what_is_read(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("written", ["2d", "1h30m", "4h", "90m", "250ms", "1d12h", "45s"])
def test_a_span_is_shown_in_a_form_that_files_can_have(written: str) -> None:
    length = parse_duration(written)
    assert parse_duration(span(length)) == length
    assert span(length) == {"90m": "1h30m"}.get(written, written)


def test_a_line_is_never_broken_so_that_commands_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    command = "holdfast decide " + "x" * 300
    Output(as_json=False).say(command)
    assert capsys.readouterr().out == f"{command}\n"


def test_square_brackets_are_text_and_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).say("It is so [1]. [bold]Really[/bold] :smile:")
    assert capsys.readouterr().out == "It is so [1]. [bold]Really[/bold] :smile:\n"


def test_text_for_people_stays_out_of_json_output(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.heading("Heading")
    output.next("holdfast dev")
    output.document({"text": "ä"})
    assert json.loads(capsys.readouterr().out) == {"text": "ä"}


def test_an_error_says_what_happened_and_what_to_do_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(Problem("It [broke].", remedy="Mend it.", exit_code=3), as_json=False) == 3
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == "Error: It [broke].\nNext: Mend it.\n"


def test_an_error_in_json_is_one_problem_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(InvalidInput("No such path.", field="path"), as_json=True) == 1
    problem = json.loads(capsys.readouterr().out)
    assert problem == {"title": "The command failed", "detail": "No such path.", "field": "path"}


def test_moments_are_told_in_utc() -> None:
    assert moment("2026-01-02T03:04:59.123456Z") == "2026-01-02 03:04 UTC"
    assert moment("2026-01-02T03:04:00+02:00") == "2026-01-02 01:04 UTC"
