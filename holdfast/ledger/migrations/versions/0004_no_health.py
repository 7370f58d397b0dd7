"""The health of deployments is no longer kept in the ledger: workers share it through Redis, or keep it themselves."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the table; what it held was never older than a few minutes."""
    op.drop_table("deployment_health")
