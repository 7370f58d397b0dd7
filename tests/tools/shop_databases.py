"""The same small shop in a SQLite file and in a PostgreSQL database, with a table that nobody should read."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import asyncpg

from tests.ledger.databases import postgresql_database

TABLES = """
CREATE TABLE customers (id integer PRIMARY KEY, name text NOT NULL, note text);
CREATE TABLE orders (id integer PRIMARY KEY, customer integer REFERENCES customers (id), total numeric, placed date);
CREATE TABLE secrets (id integer PRIMARY KEY, value text);
CREATE VIEW totals AS SELECT customer, sum(total) AS total FROM orders GROUP BY customer;
INSERT INTO customers VALUES (1, 'Ann', NULL), (2, 'Bob, the second', ''), (3, 'Cleo "C"', 'two
lines');
INSERT INTO orders VALUES (1, 1, 10.50, '2026-01-01'), (2, 1, 20, '2026-01-02'), (3, 2, 5.25, '2026-02-01');
INSERT INTO secrets VALUES (1, 'hunter2');
"""
POSTGRES_ONLY = """
CREATE SCHEMA other;
CREATE TABLE other.orders (id integer, hidden text);
INSERT INTO other.orders VALUES (1, 'hidden');
CREATE SEQUENCE numbers;
CREATE FUNCTION add_one() RETURNS integer LANGUAGE sql AS 'INSERT INTO orders (id) VALUES (99) RETURNING 1';
CREATE VIEW sneaky AS SELECT add_one() AS added;
COMMENT ON TABLE orders IS 'What was bought.';
COMMENT ON COLUMN orders.total IS 'In euros.';
"""


def sqlite_shop(path: Path) -> Path:
    """The shop as a file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(TABLES)
    return path


@asynccontextmanager
async def postgresql_shop() -> AsyncIterator[str]:
    """The shop's URL, for a user who may do everything: the tool must not need the database's own permissions."""
    async with postgresql_database() as url:
        plain = url.replace("postgresql+asyncpg://", "postgresql://")
        connection = await asyncpg.connect(plain)
        await connection.execute(TABLES + POSTGRES_ONLY)
        await connection.close()
        yield plain
