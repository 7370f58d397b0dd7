"""How the deployments are: breakers, and how fast they answer. Of one process, or of all workers through Redis."""

from holdfast.health.memory import MemoryHealth
from holdfast.health.protocol import Admission, Condition, Health, Standing
from holdfast.health.redis import RedisHealth

__all__ = ["Admission", "Condition", "Health", "MemoryHealth", "RedisHealth", "Standing"]
