"""Keeps what servers say out of our logs and traces.

The protocol package logs what it cannot parse, with the text, and the ids of sessions, which are credentials. It also
records a span for each message whose status is the server's own error text.
"""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_TALKATIVE = ("mcp", "client", "httpx2", "httpcore2")


def silence_logs() -> None:
    """Let only what means the end of a process through from the packages that speak to servers."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def untraced() -> Iterator[None]:
    """Record no spans of the protocol package within: they get a parent that is not sampled.

    The package passes the parent's ids on to the server, so they are made up and say nothing of our traces.
    """
    trace_id, span_id = secrets.randbits(127) + 1, secrets.randbits(63) + 1
    parent = SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags.get_default())
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(parent)))
    try:
        yield
    finally:
        context.detach(token)
