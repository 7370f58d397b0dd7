"""The tools that an agent lists and that a request had to do without, as its run sheet tells."""

from cli.client import Document
from cli.output import Output


def missing_tools(document: Document) -> list[str]:
    """What was missing, each with the reason; empty too where the run sheet was not asked for or is forgotten.

    Args:
        document: A request with its progress.
    """
    events = (document.get("progress") or {}).get("events", [])
    if not events:
        return []
    # Loads the contracts, a second that no other verb should pay.
    from holdfast.contracts import EventKind, Step

    return [
        str(event["summary"])
        for event in events
        if (event.get("kind"), event.get("name")) == (EventKind.STEP_FAILED, Step.EQUIP)
    ]


def show_missing_tools(output: Output, document: Document) -> None:
    """Say what was missing; an answer that came about without it looks like any other."""
    for missing in missing_tools(document):
        output.say(f"Ran without a tool that its agent lists: {missing}", style="yellow")
