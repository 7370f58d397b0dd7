"""Tool calls, what happened to approvals, notifications, browser sessions, and what a request owes to its delegates."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the tables of version 5."""
    op.create_table(
        "tool_calls",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("call_key", sa.String(16), primary_key=True),
        sa.Column("tool", sa.String(64), nullable=False),
        sa.Column("agent", sa.String(64), nullable=False),
        sa.Column("idempotency_key", sa.String(64), nullable=False),
        sa.Column("arguments_sha256", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("result", sa.Text()),
        sa.Column("begun_at", Moment, nullable=False),
        sa.Column("ended_at", Moment),
    )
    op.create_table(
        "approval_events",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("agent", sa.String(64), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("happening", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(128)),
        sa.Column("reason", sa.Text()),
        sa.Column("content_sha256", sa.String(64), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("approvers", sa.Text(), nullable=False),
        sa.Column("deadline", Moment, nullable=False),
        sa.Column("at", Moment, nullable=False),
    )
    op.create_index("approval_events_by_time", "approval_events", ["tenant", "at"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("target", sa.String(160), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text()),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("ended_at", Moment),
    )
    op.create_index("deliveries_by_state", "deliveries", ["tenant", "state", "created_at"])
    op.create_table(
        "browser_sessions",
        sa.Column("session_sha256", sa.String(64), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("user", sa.String(128), nullable=False),
        sa.Column("opened_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("ended_at", Moment),
    )
    op.create_index("browser_sessions_by_expiry", "browser_sessions", ["expires_at"])
    for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens"):
        op.add_column("requests", sa.Column(f"delegated_{name}", sa.Integer()))
    op.add_column("requests", sa.Column("delegated_cost_usd", sa.String(48)))
    op.add_column("requests", sa.Column("tool_calls", sa.Integer()))
    for name in ("delegates", "limit", "tainted"):
        op.add_column("requests", sa.Column(name, sa.Text()))
