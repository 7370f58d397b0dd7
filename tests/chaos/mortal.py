"""A worker or a gateway that kills itself with SIGKILL at a planned point.

Run as `python -m tests.chaos.mortal worker|gateway PLAN LOG`. The product's own entry points run, with its own
settings; only the embedding model is replaced, and methods are wrapped so that passing through them is noticed. The
file PLAN names the point to die at, and whoever gets there first claims it, so every plan kills once.

This process imports everything once. For every line it reads, it forks one child that serves, prints the child's
process id, and when the child has died, its exit code: a restart costs no seconds of imports.
"""

import asyncio
import ctypes
import functools
import inspect
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any
from unittest.mock import patch

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

import worker
from cli.main import run as run_command
from gateway.engine import Engine
from holdfast.batch_results import Results
from holdfast.guards import Sanitizer
from holdfast.knowledge import Knowledge
from holdfast.ledger import Ledger
from holdfast.ledger.answers import Answers
from holdfast.ledger.attempts import Attempts
from holdfast.ledger.batch_lines import BatchLines
from holdfast.ledger.budgets import Budgets
from holdfast.ledger.submissions import Submissions
from holdfast.ledger.tool_calls import ToolCalls
from holdfast.providers import ModelCall, OpenAIBatches, OpenAICompatible, TextDelta
from holdfast.providers.protocol import ModelEvent
from holdfast.tokens import encoding
from holdfast.validation import Validator
from tests.house import HashedWords
from workflows.approval_desk import ApprovalDesk

BEFORE: tuple[tuple[type, str, str], ...] = (
    (Attempts, "settle", "generate:replied"),
    (ApprovalDesk, "_take", "approve:deciding"),
    (Ledger, "finish", "deliver:inside"),
    (ToolCalls, "end", "tool:happened"),
)
"""Methods at whose beginning a point lies."""

AFTER: tuple[tuple[type, str, str], ...] = (
    (Sanitizer, "sanitize_all", "sanitize:inside"),
    (Answers, "recall", "recall:inside"),
    (Knowledge, "retrieve", "retrieve:inside"),
    (Budgets, "left", "route:inside"),
    (Attempts, "open", "generate:opened"),
    (BatchLines, "begin", "batch:begun"),
    (OpenAIBatches, "submit", "batch:accepted"),
    (BatchLines, "sent", "batch:sent"),
    (Results, "_replied", "batch:settled"),
    (BatchLines, "done", "batch:done"),
    (Attempts, "settle", "generate:settled"),
    (Validator, "check", "validate:inside"),
    (ToolCalls, "begin", "tool:claimed"),
    (ToolCalls, "end", "tool:recorded"),
    (ApprovalDesk, "open", "approve:opening"),
    (ApprovalDesk, "_take", "approve:decided"),
    (Ledger, "finish", "deliver:committed"),
    (Submissions, "claim", "gateway:claimed"),
    (Engine, "submit", "gateway:started"),
    (Engine, "decide", "gateway:decided"),
)
"""Methods at whose end a point lies."""

_PR_SET_PDEATHSIG = 1


class Points:
    """Where this process may die.

    Args:
        plan: The file that names the point.
    """

    def __init__(self, plan: Path) -> None:
        self._plan = plan

    def reach(self, point: str) -> None:
        """Die here if it is planned."""
        try:
            if self._plan.read_text() != point:
                return
            self._plan.rename(self._plan.with_suffix(".claimed"))
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def lay(self) -> None:
        """Put the points into the product's methods."""
        for owner, method, point in BEFORE:
            setattr(owner, method, self._noticed(getattr(owner, method), before=point))
        for owner, method, point in AFTER:
            setattr(owner, method, self._noticed(getattr(owner, method), after=point))
        setattr(*self._streaming())

    def _noticed(self, original: Callable[..., Any], *, before: str = "", after: str = "") -> Callable[..., Any]:
        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                self.reach(before)
                result = await original(*args, **kwargs)
                self.reach(after)
                return result

            return awaited

        @functools.wraps(original)
        def called(*args: Any, **kwargs: Any) -> Any:
            self.reach(before)
            result = original(*args, **kwargs)
            self.reach(after)
            return result

        return called

    def _streaming(self) -> tuple[type[OpenAICompatible], str, Callable[..., Any]]:
        original = OpenAICompatible.complete

        async def complete(provider: OpenAICompatible, call: ModelCall) -> AsyncGenerator[ModelEvent, None]:
            pieces = 0
            async with aclosing(original(provider, call)) as events:
                async for event in events:
                    yield event
                    pieces += isinstance(event, TextDelta)
                    if pieces == 2:
                        # The caller asks for more, so it has both pieces.
                        self.reach("generate:streaming")

        return OpenAICompatible, "complete", complete


class Boundaries(Interceptor):
    """The points before and after every step."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap one activity."""
        return _Boundary(next, self._points)


class _Boundary(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, points: Points) -> None:
        super().__init__(next)
        self._points = points

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        step = activity.info().activity_type
        self._points.reach(f"{step}:before")
        result = await super().execute_activity(input)
        self._points.reach(f"{step}:after")
        return result


def serve_worker(points: Points) -> None:
    """`python worker.py`, mortal and without torch's model."""
    build = functools.partial(worker.build_workers, interceptors=[Boundaries(points)])
    logging.basicConfig(level=logging.INFO)
    with patch.multiple(worker, MiniLM=HashedWords, build_workers=build):
        asyncio.run(worker.main())


def serve_gateway(points: Points) -> None:
    """`holdfast gateway`, mortal."""
    sys.argv = ["holdfast", "gateway"]
    run_command()


def main() -> None:
    """Fork a child for every line of the standard input, one after the other."""
    role, plan, log = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    _die_with_parent()
    points = Points(plan)
    points.lay()
    if role == "worker":
        Sanitizer().warm_up()
        encoding()
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            _die_with_parent()
            _become(role, points, log)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(role: str, points: Points, log: Path) -> None:
    try:
        with log.open("ab") as file, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        (serve_worker if role == "worker" else serve_gateway)(points)
    finally:
        # A child must not go back to reading its parent's lines.
        sys.stdout.flush()
        os._exit(1)


def _die_with_parent() -> None:
    """Ask the kernel for SIGKILL at the parent's death: nothing outlives a killed test run. Source: prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
