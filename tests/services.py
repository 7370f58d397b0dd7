"""Servers that some tests need: where they are, and what happens to a test when they are not there.

A test that needs Redis or PostgreSQL is skipped with the reason on a machine without it, and fails where `CI` is set,
so that continuous integration cannot pass by skipping.
"""

import os
import socket
from urllib.parse import urlsplit

import pytest

PATIENCE_SECONDS = 10.0
REDIS = "redis://127.0.0.1:6379/0"
POSTGRESQL = "postgresql+asyncpg://root@127.0.0.1:5432/postgres"


def redis_url() -> str:
    """Address of a Redis server that accepts connections; use a random key prefix and delete its keys."""
    return _reachable("Redis", os.environ.get("HOLDFAST_TEST_REDIS", REDIS), "HOLDFAST_TEST_REDIS", 6379)


def postgresql_url() -> str:
    """Address of a PostgreSQL server whose user may create databases; create your own and drop it."""
    address = os.environ.get("HOLDFAST_TEST_POSTGRESQL", POSTGRESQL)
    return _reachable("PostgreSQL", address, "HOLDFAST_TEST_POSTGRESQL", 5432)


def _reachable(server: str, address: str, variable: str, default_port: int) -> str:
    parts = urlsplit(address)
    host, port = parts.hostname or "127.0.0.1", parts.port or default_port
    try:
        socket.create_connection((host, port), timeout=PATIENCE_SECONDS).close()
    except OSError as error:
        reason = f"{server} does not answer at {host}:{port} ({error}): start one there, or set {variable} to its URL"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return address
