"""Ports for servers that tests start, end and start again, and for servers that are not there."""

import contextlib
import random
import socket
from pathlib import Path

_HANDED_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUALLY_HANDED_OUT = (32_768, 60_999)
_LOWEST = 15_000
_given: set[int] = set()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, other than those given before.

    It is outside of the range from which the kernel serves whoever does not care. So it is still free when a server
    binds it, or binds it again; and a client that connects again and again to a server that is away is never given that
    very port to connect from, in which case it would meet itself there.
    """
    first, last = _handed_out()
    candidates = range(_LOWEST, first) if first - _LOWEST > 1_000 else range(last + 1, 65_536)
    for port in random.sample(candidates, k=min(len(candidates), 200)):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise AssertionError(f"No port of {candidates.start} to {candidates.stop - 1} is free.")


def _handed_out() -> tuple[int, int]:
    with contextlib.suppress(OSError, ValueError):
        first, last = map(int, _HANDED_OUT.read_text().split())
        return first, last
    return _USUALLY_HANDED_OUT


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
