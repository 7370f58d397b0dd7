"""The first schema. Ledgers that have it are stamped with this revision; new ones are made without migrations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables of version 1."""
    op.create_table(
        "schema_version", sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False, nullable=False)
    )
    op.create_table(
        "contents",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("text", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
    )
    op.create_table(
        "vault",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("mapping", sa.JSON(), nullable=False),
    )
    op.create_table(
        "submissions",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("idempotency_key", sa.String(256), primary_key=True),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
    )
    op.create_table(
        "attempts",
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("ordinal", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("deployment", sa.String(64), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("hold_tokens", sa.Integer(), nullable=False),
        sa.Column("hold_cost_usd", sa.String(48)),
        *_usage_columns(),
        sa.Column("outcome", sa.String(32)),
        sa.Column("answered_by", sa.String(256)),
        sa.Column("finish_reason", sa.String(32)),
        sa.Column("output_sha256", sa.String(64)),
        sa.Column("output_size", sa.Integer()),
        sa.Column("response_id", sa.String(256)),
        sa.Column("error_code", sa.String(128)),
        sa.Column("opened_at", Moment, nullable=False),
        sa.Column("settled_at", Moment),
        sa.Column("settlement_sha256", sa.String(64)),
    )
    op.create_table(
        "answers",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("plan_version", sa.String(64), primary_key=True),
        sa.Column("masked_sha256", sa.String(64), primary_key=True),
        sa.Column("content_sha256", sa.String(64), nullable=False),
        sa.Column("content_size", sa.Integer(), nullable=False),
        sa.Column("passages_sha256", sa.String(64)),
        sa.Column("passages_size", sa.Integer()),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
    )
    op.create_table(
        "requests",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("user", sa.String(128), nullable=False),
        sa.Column("agent", sa.String(64), nullable=False),
        sa.Column("plan_version", sa.String(64), nullable=False),
        sa.Column("session", sa.String(128)),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("document_sha256", sa.String(64)),
        sa.Column("document_size", sa.Integer()),
        sa.Column("content_sha256", sa.String(64)),
        sa.Column("deployment", sa.String(64)),
        sa.Column("recalled", sa.Boolean(), nullable=False),
        *_usage_columns(),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("decided_by", sa.String(128)),
        sa.Column("submitted_at", Moment, nullable=False),
        sa.Column("finished_at", Moment, nullable=False),
    )
    op.create_index("requests_by_tenant", "requests", ["tenant", "finished_at", "request_id"])
    op.create_table(
        "deployment_health",
        sa.Column("deployment", sa.String(64), primary_key=True),
        sa.Column("consecutive_failures", sa.Integer(), nullable=False),
        sa.Column("down_until", Moment),
        sa.Column("reason", sa.String(256)),
    )


def _usage_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("cache_read_tokens", sa.Integer(), nullable=False),
        sa.Column("cache_write_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("cost_usd", sa.String(48)),
    ]
