"""Calls that wait for, or are in, a provider's batch."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the table of version 3."""
    op.create_table(
        "batch_lines",
        sa.Column("attempt_id", sa.String(80), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("deployment", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("call", sa.Text(), nullable=False),
        sa.Column("submission", sa.String(40)),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.String(128)),
        sa.Column("queued_at", Moment, nullable=False),
        sa.Column("submitting_at", Moment),
        sa.Column("submitted_at", Moment),
        sa.Column("done_at", Moment),
    )
    op.create_index("batch_lines_by_state", "batch_lines", ["deployment", "state", "queued_at"])
    op.create_index("batch_lines_by_request", "batch_lines", ["request_id", "turn"])
