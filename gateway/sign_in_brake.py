"""Bounds how often keys may be tried at the sign-in form, for each client address and for all together.

Each has an allowance: an unknown key takes one from it, and it fills up again with time. A known key takes nothing. So
a person who mistypes waits for seconds, and a stranger who guesses gets a few tries a minute. Nothing here touches a
session that is open. The memory is bounded: of the addresses that failed, those longest quiet are forgotten first.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final


@dataclass(frozen=True)
class Allowance:
    """Failures that are let pass."""

    burst: int
    """So many at once."""
    every: float
    """Seconds after which one more is let pass."""


PER_ADDRESS: Final = Allowance(burst=10, every=15)
"""240 tries an hour."""
OVERALL: Final = Allowance(burst=200, every=1)
"""3,600 tries an hour, from however many addresses."""
MOST_ADDRESSES: Final = 4_096


class SignInBrake:
    """Counts failures in one process; each gateway of several counts by itself.

    Args:
        clock: Seconds that never go backward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, float] = OrderedDict()
        """When the allowance of an address will be full again."""
        self._familiar: OrderedDict[str, None] = OrderedDict()
        """Addresses from which somebody has signed in: strangers elsewhere do not hold these up."""
        self._overall = -math.inf

    def take(self, address: str) -> int:
        """Take one try, before the key is looked at.

        Args:
            address: The client's.

        Returns:
            0 if the key may be looked at, else the seconds to wait; then nothing was taken.
        """
        now, name = self._clock(), _name(address)
        wait = _wait(PER_ADDRESS, self._failures.get(name, -math.inf), now)
        if name not in self._familiar:
            wait = max(wait, _wait(OVERALL, self._overall, now))
        if wait > 0:
            return math.ceil(wait)
        self._failures[name] = max(self._failures.get(name, now), now) + PER_ADDRESS.every
        self._failures.move_to_end(name)
        _bound(self._failures)
        self._overall = max(self._overall, now) + OVERALL.every
        return 0

    def succeeded(self, address: str) -> None:
        """Give the try back: the key was known."""
        name = _name(address)
        if name in self._failures:
            self._failures[name] -= PER_ADDRESS.every
        self._overall -= OVERALL.every
        self._familiar[name] = None
        self._familiar.move_to_end(name)
        _bound(self._familiar)

    @property
    def remembered(self) -> int:
        """How many addresses are kept in memory."""
        return len(self._failures) + len(self._familiar)


def _wait(allowance: Allowance, full_at: float, now: float) -> float:
    """Seconds until one more try fits; up to 0 if it fits now."""
    return full_at - now - (allowance.burst - 1) * allowance.every


def _name(address: str) -> str:
    """An IPv6 client has a whole network of addresses to call from."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))
    return str(parsed)


def _bound(kept: "OrderedDict[str, float] | OrderedDict[str, None]") -> None:
    while len(kept) > MOST_ADDRESSES:
        kept.popitem(last=False)
