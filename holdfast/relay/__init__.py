"""The token plane: text on its way from a model call to the clients that watch it, in memory or through Redis."""

from holdfast.relay.memory import MemoryRelay
from holdfast.relay.protocol import Relay
from holdfast.relay.redis_relay import RedisRelay

__all__ = ["MemoryRelay", "RedisRelay", "Relay"]
