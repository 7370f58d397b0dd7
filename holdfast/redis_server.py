"""A connection to Redis that says clearly when it does not answer, and never makes anyone wait for long."""

from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import RedisError, ResponseError

from holdfast.errors import Unavailable

CONNECTIONS = 16
PATIENCE_SECONDS = 2.0


def connect(url: str, *, patience_seconds: float = PATIENCE_SECONDS) -> Redis:
    """A client that connects when it is first used.

    A command is sent again once, at once, when its connection turns out to be dead, which is what a restarted server
    looks like; after a timeout it is not, because it may have been carried out.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=2 * patience_seconds,
        socket_timeout=patience_seconds,
        socket_connect_timeout=patience_seconds,
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionFailed,)),
        decode_responses=True,
    )
    return Redis.from_pool(pool)


def address(url: str) -> str:
    """Host, port and database of a URL, without user and password, for messages."""
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"


@contextmanager
def answering(what: str, url: str) -> Generator[None]:
    """Turn a failing Redis into `Unavailable`.

    Args:
        what: Who needs it and what therefore does not happen, e.g. `The limiter cannot count, so nothing is sent`.
        url: The server's URL.

    Raises:
        Unavailable: Redis does not answer, or not what was expected.
    """
    try:
        yield
    except ResponseError as error:
        raise Unavailable(
            f"{what}: Redis at {address(url)} answers with an error ({error}). See with `redis-cli -u <url> info` "
            f"whether it is out of memory or read-only; work goes on by itself as soon as it takes commands"
        ) from error
    except (RedisError, OSError) as error:
        raise Unavailable(
            f"{what}: Redis at {address(url)} does not answer ({type(error).__name__}). Start it, or see with "
            f"`redis-cli -u <url> ping` why; work goes on by itself as soon as it answers"
        ) from error
