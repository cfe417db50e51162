"""What limits were that routers may still obey."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "promised_limits",
        sa.Column("key", sa.String(193), primary_key=True, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
