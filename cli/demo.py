"""The conversation that `dev` holds with itself: index the project's documents, ask about them, have it approved.

It goes over HTTP like any other client, so what it shows is what a user gets.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.approvals import show_question
from cli.client import Document, GatewayClient
from cli.ingest import Indexed, Source, index, read
from cli.output import Output, Problem
from cli.requests import show_answer, trace

AGENT = "docs"
COLLECTION = "docs"
QUESTION = "What happens when the worker is killed in the middle of a request?"
"""Answered by README.md and docs/architecture.md; one place, because README and tests speak of it too."""
ASKER = "demo"
APPROVER = "reviewer"
ANSWER_SECONDS = 120.0
"""The first question also loads what the process has not used yet."""


_LOOKED_AT = 100
"""Latest requests of the agent among which an earlier start's is looked for."""


@dataclass
class Demo:
    """What the conversation has come to."""

    indexed: Indexed
    request: Document
    """The request as it was last read."""
    question: Document | None
    """What waits, or waited, for approval; none if the agent needs none."""

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "indexed": {"sources": self.indexed.sources, "passages": self.indexed.passages},
            "question": QUESTION,
            "approval": self.question,
            "request": self.request,
            "answer": self.request.get("answer"),
            "trace": self.request["links"].get("trace"),
        }


def index_documents(client: GatewayClient, output: Output, root: Path) -> Indexed:
    """Index `docs/` and `README.md`; what was there before is replaced.

    Args:
        root: Where they are.

    Raises:
        Problem: There is nothing to index, or the gateway does not do it.
    """
    documents: list[Source] = []
    unreadable: list[dict[str, str]] = []
    for path, prefix in ((root / "docs", "docs/"), (root / "README.md", "")):
        if path.exists():
            found, skipped = read(path, prefix)
            documents += found
            unreadable += skipped
    if not documents:
        raise Problem(
            f"{root} holds neither documents in docs/ nor a README.md, so the demo has nothing to ask about.",
            remedy="Start `holdfast dev` in a checkout of Holdfast, or index your own: `holdfast ingest PATH`.",
        )
    indexed = Indexed(unreadable=unreadable)
    with output.counting("Indexing docs/ and README.md", len(documents)) as bar:
        index(client, COLLECTION, documents, indexed, lambda count: bar.advance(bar.task_ids[0], count))
    for left_out in indexed.unreadable:
        output.note(f"Left out: {left_out['reason']}")
    output.say(f"Indexed {indexed.sources} documents as {indexed.passages} passages in collection {COLLECTION!r}.")
    return indexed


def ask(client: GatewayClient, output: Output, indexed: Indexed, version: str) -> Demo:
    """Ask the question and show what comes: an answer that waits for approval, unless the agent was changed.

    What an earlier start asked of the same agent and nobody has decided is shown again instead: who starts often would
    be left with as many questions.

    Args:
        client: Acts as who asks.
        output: Where it is shown.
        indexed: What can be asked about.
        version: Of the agent, as its files are now.

    Raises:
        Problem: It ended, or waits, without an answer.
    """
    session = f"demo-{version}"
    earlier = _open(client, session)
    output.say()
    if earlier:
        output.say(f"{ASKER} has asked {AGENT} at an earlier start: {QUESTION}", style="bold")
    else:
        output.say(f"{ASKER} asks {AGENT}: {QUESTION}", style="bold")
    with output.working("Reading what was answered" if earlier else "Answering"):
        if earlier:
            request = client.request(earlier, wait=ANSWER_SECONDS)
        else:
            request = client.submit(AGENT, QUESTION, session=session, wait=ANSWER_SECONDS)
    if request["status"] == "completed":
        show_answer(output, request)
        return Demo(indexed, request, None)
    if request["status"] != "waiting":
        raise _ended(request)
    question = next((row for row in client.approvals() if row["request_id"] == request["id"]), None)
    if question is None:
        raise Problem(
            f"{request['id']} waits for {', '.join(request['approval']['approvers'])}, whom the demo cannot stand for.",
            remedy=f"Let '*' or {APPROVER!r} approve in config/agents/{AGENT}.toml, or let one of them decide.",
        )
    output.say()
    output.say(f"{request['id']} is answered and waits for approval. Its trace: {trace(request)}", style="bold")
    show_question(output, client, question)
    return Demo(indexed, request, question)


def _open(client: GatewayClient, session: str) -> str:
    """The id of the session's latest request if it has not ended; empty without one."""
    rows = client.requests({"agent": AGENT, "limit": str(_LOOKED_AT)})["requests"]
    found = next((row for row in rows if row["session"] == session), None)
    return str(found["id"]) if found and found["status"] in ("running", "waiting") else ""


def approve(client: GatewayClient, output: Output, demo: Demo) -> Demo:
    """Approve what waits, as somebody else than the one who asked, and show the delivered answer.

    Raises:
        Problem: The decision was refused, or the request ended without an answer.
    """
    if demo.question is None:
        return demo
    request_id = str(demo.request["id"])
    receipt = client.decide(request_id, "approve", str(demo.question["content_sha256"]), reason="demo")
    output.say()
    output.say(f"{receipt['actor']} approves. Delivered:", style="bold")
    request = client.request(request_id, wait=ANSWER_SECONDS)
    if request["status"] != "completed":
        raise _ended(request)
    show_answer(output, request)
    output.say()
    output.say(f"Its trace: {trace(request)}")
    return Demo(demo.indexed, request, demo.question)


def _ended(request: Document) -> Problem:
    return Problem(
        f"The demo's request {request['id']} is {request['status']}: {request.get('reason') or 'no reason was given'}",
        remedy=f"See where it stands: {trace(request)}",
    )
