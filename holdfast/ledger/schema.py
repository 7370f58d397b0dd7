"""The ledger's tables, and how the contracts' values are laid out in columns.

Plain SQL types only, so that the same tables serve SQLite and PostgreSQL. Money is decimal text, summed in Python:
SQLite has no decimal type, and a float would lose cents.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

from holdfast.contracts import ContentRef, Usage

SCHEMA_VERSION = 1
"""Raised with every change of a table."""


class Money(TypeDecorator[Decimal]):
    """An exact amount of US dollars, stored as decimal text."""

    impl = String(48)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the base class names it
        """To text, without an exponent."""
        return None if value is None else format(value, "f")

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:  # noqa: ARG002 - as above
        """From text."""
        return None if value is None else Decimal(value)


class Moment(TypeDecorator[datetime]):
    """An aware moment, stored in UTC; naive ones are refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - as above
        """To UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("The ledger stores aware datetimes only; pass one with a time zone.")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - as above
        """SQLite forgets the zone, which is always UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

contents = Table(
    "contents",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("size", Integer, nullable=False),
    # Bytes, because PostgreSQL's text type cannot hold the NUL character that JSON input may contain.
    Column("text", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
)

vault = Table(
    "vault",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("request_id", String(64), primary_key=True),
    Column("mapping", JSON, nullable=False),
)

submissions = Table(
    "submissions",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("idempotency_key", String(256), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
)


def _usage_columns() -> list[Column[Any]]:
    return [
        Column("input_tokens", Integer, nullable=False),
        Column("cache_read_tokens", Integer, nullable=False),
        Column("cache_write_tokens", Integer, nullable=False),
        Column("output_tokens", Integer, nullable=False),
        Column("cost_usd", Money),
    ]


attempts = Table(
    "attempts",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("tenant", String(64), nullable=False),
    Column("turn", Integer, nullable=False),
    Column("deployment", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("state", String(16), nullable=False),
    Column("hold_tokens", Integer, nullable=False),
    Column("hold_cost_usd", Money),
    # What counts against the ceilings now: the hold until settled, then the actual usage, zero when released.
    *_usage_columns(),
    Column("outcome", String(32)),
    Column("answered_by", String(256)),
    Column("finish_reason", String(32)),
    Column("output_sha256", String(64)),
    Column("output_size", Integer),
    Column("response_id", String(256)),
    Column("error_code", String(128)),
    Column("opened_at", Moment, nullable=False),
    Column("settled_at", Moment),
    Column("settlement_sha256", String(64)),
)

answers = Table(
    "answers",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("plan_version", String(64), primary_key=True),
    Column("masked_sha256", String(64), primary_key=True),
    Column("content_sha256", String(64), nullable=False),
    Column("content_size", Integer, nullable=False),
    Column("passages_sha256", String(64)),
    Column("passages_size", Integer),
    Column("request_id", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("request_id", String(64), primary_key=True),
    Column("user", String(128), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("plan_version", String(64), nullable=False),
    Column("session", String(128)),
    Column("tier", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text),
    Column("document_sha256", String(64)),
    Column("document_size", Integer),
    Column("content_sha256", String(64)),
    Column("deployment", String(64)),
    Column("recalled", Boolean, nullable=False),
    *_usage_columns(),
    Column("attempts", Integer, nullable=False),
    Column("decided_by", String(128)),
    Column("submitted_at", Moment, nullable=False),
    Column("finished_at", Moment, nullable=False),
    Index("requests_by_tenant", "tenant", "finished_at", "request_id"),
)

deployment_health = Table(
    "deployment_health",
    metadata,
    Column("deployment", String(64), primary_key=True),
    Column("consecutive_failures", Integer, nullable=False),
    Column("down_until", Moment),
    Column("reason", String(256)),
)


def usage_values(usage: Usage) -> dict[str, Any]:
    """A usage as values of the five usage columns."""
    return {
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_usd,
    }


def usage_of(row: Row[Any]) -> Usage:
    """The usage in a row's five usage columns."""
    return Usage(
        input_tokens=row.input_tokens,
        cache_read_tokens=row.cache_read_tokens,
        cache_write_tokens=row.cache_write_tokens,
        output_tokens=row.output_tokens,
        cost_usd=row.cost_usd,
    )


def reference_of(sha256: str | None, size: int | None) -> ContentRef | None:
    """A content reference from its two columns."""
    return None if sha256 is None or size is None else ContentRef(sha256=sha256, size=size)


def reference_values(name: str, reference: ContentRef | None) -> dict[str, Any]:
    """A content reference as values of its two columns, `<name>_sha256` and `<name>_size`."""
    return {
        f"{name}_sha256": reference.sha256 if reference else None,
        f"{name}_size": reference.size if reference else None,
    }
