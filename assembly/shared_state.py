"""What processes know together: streams, limits and health, in Redis or in this process."""

from dataclasses import dataclass

from holdfast.health import Health, MemoryHealth, RedisHealth
from holdfast.limits import Limiter, MemoryLimiter, RedisLimiter
from holdfast.relay import MemoryRelay, RedisRelay, Relay
from holdfast.settings import SharedSettings


@dataclass(frozen=True)
class SharedState:
    """What the workers of an installation know together, or one process alone."""

    relay: Relay
    limiter: Limiter
    health: Health


def open_shared_state(shared: SharedSettings, relay: Relay | None, health: Health | None) -> SharedState:
    """Open what the settings name.

    Args:
        shared: Where it is; without a URL, in this process.
        relay: Replaces the one that the settings name.
        health: Replaces the one that the settings name.
    """
    if not shared.url:
        return SharedState(relay or MemoryRelay(keep=shared.keep_streams), MemoryLimiter(), health or MemoryHealth())
    return SharedState(
        relay or RedisRelay(shared.url, f"{shared.prefix}:stream:", keep=shared.keep_streams),
        RedisLimiter(shared.url, shared.prefix),
        health or RedisHealth(shared.url, shared.prefix),
    )
