"""The run sheet stays small however much happens."""

from datetime import UTC, datetime, timedelta

from holdfast.contracts import ContentRef, EventKind, Limits, Plan, Request, Status, Usage
from workflows.run_sheet import MOST_KEPT, MOST_SHOWN, RunSheet

TEXT = ContentRef(sha256="0" * 64, size=1)
NOW = datetime(2026, 11, 21, tzinfo=UTC)
REQUEST = Request(
    id="req_sheet0000",
    tenant="local",
    user="ann",
    plan=Plan(agent="plain", version="1", deployments=("sim",), instructions=TEXT),
    input=TEXT,
    limits=Limits(),
    submitted_at=NOW,
)


def test_a_long_sheet_shows_its_latest_lines_and_counts_the_others() -> None:
    sheet = RunSheet(REQUEST, told=7)
    happened = MOST_KEPT + 50
    for number in range(happened):
        sheet.tell(EventKind.STEP_FINISHED, "route", f"line {number}", NOW + timedelta(seconds=number))
    assert sheet.told == 7 + happened
    assert [event.sequence for event in (sheet.events[0], sheet.events[-1])] == [7 + 51, 7 + happened]
    shown = sheet.markdown(Status.RUNNING, Usage(), 1)
    assert f"line {happened - MOST_SHOWN} |" in shown
    assert f"line {happened - MOST_SHOWN - 1} |" not in shown
    assert f"{7 + happened - MOST_SHOWN} earlier lines are not shown" in shown


def test_a_short_sheet_shows_everything() -> None:
    sheet = RunSheet(REQUEST)
    sheet.tell(EventKind.STEP_FINISHED, "route", "chosen | so", NOW)
    shown = sheet.markdown(Status.RUNNING, Usage(), 1)
    assert "chosen \\| so" in shown
    assert "earlier" not in shown
