"""Budgets and credit, spending by user and day, and answers by the input as it came."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the tables and columns of version 2, and fill what old rows can tell."""
    _add_to_attempts()
    _add_to_answers_and_requests()
    _create_budgets()


def _add_to_attempts() -> None:
    op.add_column("attempts", sa.Column("user", sa.String(128)))
    op.add_column("attempts", sa.Column("session", sa.String(128)))
    op.add_column("attempts", sa.Column("agent", sa.String(64)))
    op.add_column("attempts", sa.Column("day", sa.String(10)))
    op.add_column("attempts", sa.Column("measured", sa.Boolean()))
    op.add_column("attempts", sa.Column("held_in", sa.Text()))
    op.add_column("attempts", sa.Column("extended_tokens", sa.BigInteger()))
    op.add_column("attempts", sa.Column("extended_cost", sa.BigInteger()))
    op.create_index("attempts_by_day", "attempts", ["tenant", "day"])
    attempts = sa.table("attempts", *map(sa.column, ("tenant", "request_id", "user", "session", "agent", "day")))
    opened_at = sa.column("opened_at", sa.String())
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    # SQLite keeps moments as text that begins with the date in UTC.
    day = (
        sa.func.substr(opened_at, 1, 10)
        if on_sqlite
        else sa.func.to_char(sa.func.timezone("UTC", opened_at), "YYYY-MM-DD")
    )
    op.execute(attempts.update().values(day=day))
    requests = sa.table("requests", *map(sa.column, ("tenant", "request_id", "user", "session", "agent")))
    for name in ("user", "session", "agent"):
        known = sa.select(requests.c[name]).where(
            requests.c.tenant == attempts.c.tenant, requests.c.request_id == attempts.c.request_id
        )
        op.execute(attempts.update().values({name: known.scalar_subquery()}))


def _add_to_answers_and_requests() -> None:
    op.add_column("answers", sa.Column("input_sha256", sa.String(64)))
    op.add_column("answers", sa.Column("document_sha256", sa.String(64)))
    op.add_column("answers", sa.Column("document_size", sa.Integer()))
    op.create_index("answers_by_input", "answers", ["tenant", "plan_version", "input_sha256"])
    op.create_index("answers_by_age", "answers", ["created_at"])
    op.create_table(
        "answer_epochs",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
    )
    op.add_column("requests", sa.Column("input_sha256", sa.String(64)))
    op.add_column("requests", sa.Column("input_size", sa.Integer()))
    op.create_index("requests_by_session", "requests", ["tenant", "session", "user", "finished_at"])


def _create_budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("period", sa.String(8), nullable=False),
        sa.Column("tokens", sa.BigInteger()),
        sa.Column("cost", sa.BigInteger()),
        sa.Column("at_limit", sa.String(16), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.UniqueConstraint("tenant", "kind", "name", "period", name="budgets_by_scope"),
    )
    op.create_table(
        "budget_counters",
        sa.Column("budget_id", sa.String(40), primary_key=True),
        sa.Column("window", sa.String(10), primary_key=True),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("unpriced", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "budget_extensions",
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("approval", sa.String(128), primary_key=True),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("granted_by", sa.String(128), nullable=False),
        sa.Column("granted_at", Moment, nullable=False),
    )
    op.create_table(
        "credit_entries",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("attempt_id", sa.String(80)),
        sa.Column("made_by", sa.String(128)),
        sa.Column("made_at", Moment, nullable=False),
    )
