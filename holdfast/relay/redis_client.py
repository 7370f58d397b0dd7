"""How the relay reaches Redis: few connections, no retries of the client's own, and which errors mean "not now"."""

from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

AWAY: Final = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError, OSError)
"""Redis does not answer, is loading, failing over or full: the same command may succeed later."""

FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 1.0
"""Seconds between attempts to reach Redis again, doubling from the first."""

COMMAND_SECONDS: Final = 2.0
"""How long a command may take. Callers bound it with `asyncio.timeout`: the client's own bound on sending uses
`asyncio.wait_for`, which loses a cancellation that comes as the sending ends (Python 3.11, python/cpython#86296)."""


def connect(url: str, connections: int) -> Redis:
    """A client with a bounded pool whose users wait for a connection. It connects when it is first used."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=None,
        socket_timeout=None,
        socket_connect_timeout=COMMAND_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return Redis.from_pool(pool)
