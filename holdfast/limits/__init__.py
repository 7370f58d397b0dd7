"""The limiter: requests per minute, tokens per minute and concurrent calls, kept before a call is sent.

Calls that must wait stand in line instead of trying again and again: each is told when to come back and keeps its
place. `MemoryLimiter` serves one process, `RedisLimiter` all workers together; both keep the same arithmetic, which is
described in `holdfast/limits/window.py`.
"""

from holdfast.limits.memory import MemoryLimiter
from holdfast.limits.protocol import Admitted, Dimension, Limiter, Scope, TooLarge, Wait
from holdfast.limits.redis import RedisLimiter

__all__ = ["Admitted", "Dimension", "Limiter", "MemoryLimiter", "RedisLimiter", "Scope", "TooLarge", "Wait"]
