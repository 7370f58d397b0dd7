"""A request that ran without a tool that its agent lists says so where it is shown."""

import pytest

from cli.main import execute
from holdfast.contracts import EventKind, Status, Step
from tests.cli.scripted import REQUEST_ID, ScriptedGateway, request_document

REASON = "clock.get_*: The MCP server 'clock' cannot be used: its program 'mcp-server-time' is found neither on PATH"


def event(kind: EventKind, name: str, summary: str) -> dict[str, str]:
    return {"kind": kind.value, "name": name, "summary": summary}


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.WAITING])
def test_show_names_the_tools_that_a_request_had_to_do_without(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str], status: Status
) -> None:
    events = [
        event(EventKind.STEP_FAILED, Step.EQUIP, REASON),
        event(EventKind.STEP_FINISHED, Step.EQUIP, "0 tools, catalog 4f53cda18c2b"),
        event(EventKind.STEP_FAILED, Step.GENERATE, "the model did not answer"),
    ]
    document = request_document(status) | {"progress": {"step": "finish", "attempts": 1, "events": events}}
    gateway.on(f"GET /v1/requests/{REQUEST_ID}", (200, document))
    gateway.on("GET /v1/approvals", (200, {"approvals": []}))
    assert execute(["requests", "show", REQUEST_ID]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Ran without a tool that its agent lists: {REASON}" in shown
    assert shown.count("Ran without") == 1


def test_a_request_whose_run_sheet_is_gone_is_shown_all_the_same(
    gateway: ScriptedGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(f"GET /v1/requests/{REQUEST_ID}", (200, request_document(Status.COMPLETED) | {"progress": None}))
    assert execute(["requests", "show", REQUEST_ID]) == 0
    assert "Ran without" not in capsys.readouterr().out
