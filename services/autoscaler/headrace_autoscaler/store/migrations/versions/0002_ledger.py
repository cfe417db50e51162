"""What serving costs beside instances, and until when the books are complete."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ADDED = (
    "network_bytes",
    "storage_byte_seconds",
    "cache_byte_seconds",
    "network_micros",
    "storage_micros",
    "cache_micros",
    "management_micros",
)


def upgrade() -> None:
    for name in _ADDED:
        op.add_column("usage", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("booked_until_us", sa.BigInteger, nullable=False),
    )
