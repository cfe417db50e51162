"""Optimisations of models."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column(
            "model", sa.String(128), sa.ForeignKey("models.name", ondelete="CASCADE"), primary_key=True, nullable=False
        ),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
