"""The ledger's tables, and how the contracts' values are laid out in columns.

Plain SQL types only, so that the same tables serve SQLite and PostgreSQL. Money on record is decimal text, summed in
Python: SQLite has no decimal type, and a float would lose cents. Money that a database must add and compare, as budgets
do, is whole numbers of `holdfast.spending.UNITS_PER_USD`. A change of a table is also a migration; see `migrations`.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
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
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

from holdfast.contracts import ContentRef, Usage

SCHEMA_VERSION = 5
"""Raised with every change of a table; the number of the last migration."""


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


USAGE_COLUMNS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd")
"""Of a usage, named like its fields."""


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
    # For reports; empty in rows older than version 2 whose request had not ended.
    Column("user", String(128)),
    Column("session", String(128)),
    Column("agent", String(64)),
    Column("day", String(10)),
    # Whether the usage was reported by the provider; otherwise it is the worst case.
    Column("measured", Boolean),
    # The budget counters that the hold stands in, as JSON, and what of it a person's permission covers.
    Column("held_in", Text),
    Column("extended_tokens", BigInteger),
    Column("extended_cost", BigInteger),
    Index("attempts_by_day", "tenant", "day"),
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
    # The input as it came, and the document that answered it, for whoever repeats the very same request.
    Column("input_sha256", String(64)),
    Column("document_sha256", String(64)),
    Column("document_size", Integer),
    Index("answers_by_input", "tenant", "plan_version", "input_sha256"),
    Index("answers_by_age", "created_at"),
)

answer_epochs = Table(
    "answer_epochs",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("epoch", Integer, nullable=False),
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
    Column("input_sha256", String(64)),
    Column("input_size", Integer),
    # What delegates used, beside what the request's own calls did; all of it is null when there were none.
    Column("delegated_input_tokens", Integer),
    Column("delegated_cache_read_tokens", Integer),
    Column("delegated_cache_write_tokens", Integer),
    Column("delegated_output_tokens", Integer),
    Column("delegated_cost_usd", Money),
    # The count and the JSON texts after it are null in what versions before tools and delegates wrote.
    Column("tool_calls", Integer),
    Column("delegates", Text),
    Column("limit", Text),
    Column("tainted", Text),
    Index("requests_by_tenant", "tenant", "finished_at", "request_id"),
    Index("requests_by_session", "tenant", "session", "user", "finished_at"),
)

budgets = Table(
    "budgets",
    metadata,
    # A budget set anew after it was removed has another id, so that calls held in the old one leave it alone.
    Column("id", String(40), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", String(128), nullable=False),
    Column("period", String(8), nullable=False),
    Column("tokens", BigInteger),
    Column("cost", BigInteger),
    Column("at_limit", String(16), nullable=False),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("tenant", "kind", "name", "period", name="budgets_by_scope"),
)

budget_counters = Table(
    "budget_counters",
    metadata,
    Column("budget_id", String(40), primary_key=True),
    # The window as `holdfast.spending.Period.window` names it.
    Column("window", String(10), primary_key=True),
    Column("tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False),
)

budget_extensions = Table(
    "budget_extensions",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("approval", String(128), primary_key=True),
    Column("tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("granted_by", String(128), nullable=False),
    Column("granted_at", Moment, nullable=False),
)

credit_entries = Table(
    "credit_entries",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("cost", BigInteger, nullable=False),
    # What the entry does to the credit that is available: the entries of a tenant add up to it.
    Column("change", BigInteger, nullable=False),
    Column("attempt_id", String(80)),
    Column("made_by", String(128)),
    Column("made_at", Moment, nullable=False),
)

batch_lines = Table(
    "batch_lines",
    metadata,
    Column("attempt_id", String(80), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("turn", Integer, nullable=False),
    Column("deployment", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    # The call as JSON. Its texts are references, so it holds none of them.
    Column("call", Text, nullable=False),
    # Our name for one handing over of lines, which may have succeeded without our hearing of it.
    Column("submission", String(40)),
    Column("sends", Integer, nullable=False),
    # The provider's name for the batch.
    Column("batch_id", String(128)),
    Column("queued_at", Moment, nullable=False),
    Column("submitting_at", Moment),
    Column("submitted_at", Moment),
    Column("done_at", Moment),
    Index("batch_lines_by_state", "deployment", "state", "queued_at"),
    Index("batch_lines_by_request", "request_id", "turn"),
)

tool_calls = Table(
    "tool_calls",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("request_id", String(64), primary_key=True),
    # Turn and position in the reply, `3.0`.
    Column("call_key", String(16), primary_key=True),
    Column("tool", String(64), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("idempotency_key", String(64), nullable=False),
    Column("arguments_sha256", String(64), nullable=False),
    # begun, done or failed. One that stays begun was under way when its worker died.
    Column("state", String(16), nullable=False),
    Column("runs", Integer, nullable=False),
    Column("result", Text),
    Column("begun_at", Moment, nullable=False),
    Column("ended_at", Moment),
)

approval_events = Table(
    "approval_events",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("request_id", String(64), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("agent", String(64), nullable=False),
    Column("round", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("happening", String(16), nullable=False),
    Column("actor", String(128)),
    Column("reason", Text),
    Column("content_sha256", String(64), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("approvers", Text, nullable=False),
    Column("deadline", Moment, nullable=False),
    Column("at", Moment, nullable=False),
    Index("approval_events_by_time", "tenant", "at"),
)

deliveries = Table(
    "deliveries",
    metadata,
    # The message id of the Standard Webhooks specification, the same in every attempt.
    Column("id", String(80), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    # `email:` and a user name of up to 128 characters.
    Column("target", String(160), nullable=False),
    Column("event", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    # pending, sent or dead.
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("problem", Text),
    Column("created_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Index("deliveries_by_state", "tenant", "state", "created_at"),
)

browser_sessions = Table(
    "browser_sessions",
    metadata,
    # Of what the browser holds, so that a row opens nothing.
    Column("session_sha256", String(64), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("user", String(128), nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Index("browser_sessions_by_expiry", "expires_at"),
)


def usage_values(usage: Usage) -> dict[str, Any]:
    """A usage as values of the five usage columns."""
    return {name: getattr(usage, name) for name in USAGE_COLUMNS}


def usage_of(row: Row[Any], prefix: str = "") -> Usage:
    """The usage in a row's five usage columns, or in the five with a prefix."""
    return Usage(**{name: row._mapping[prefix + name] for name in USAGE_COLUMNS})


def reference_of(sha256: str | None, size: int | None) -> ContentRef | None:
    """A content reference from its two columns."""
    return None if sha256 is None or size is None else ContentRef(sha256=sha256, size=size)


def reference_values(name: str, reference: ContentRef | None) -> dict[str, Any]:
    """A content reference as values of its two columns, `<name>_sha256` and `<name>_size`."""
    return {
        f"{name}_sha256": reference.sha256 if reference else None,
        f"{name}_size": reference.size if reference else None,
    }
