"""The tables as the newest migration leaves them; a test compares the two.

What is searched for or counted is a column; the rest of a row is a JSON document of the domain type, so
that a new field with a default needs no migration.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

METADATA = MetaData()

EPOCH = Table(
    "epoch",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
)

TENANTS = Table(
    "tenants",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("document", Text, nullable=False),
)

MODELS = Table(
    "models",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("deleting", Boolean, nullable=False),
    Column("document", Text, nullable=False),
)

# Never deleted from: a model of an old name must not take up numbers that runners may still hold.
REVISION_COUNTERS = Table(
    "revision_counters",
    METADATA,
    Column("model", String(128), primary_key=True),
    Column("last", BigInteger, nullable=False),
)

REVISIONS = Table(
    "revisions",
    METADATA,
    Column("model", String(128), ForeignKey("models.name", ondelete="CASCADE"), primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("state", String(16), nullable=False),
    Column("document", Text, nullable=False),
)

FAILURES = Table(
    "failures",
    METADATA,
    Column("model", String(128), primary_key=True),
    Column("at", Float, nullable=False),
    Column("reason", Text, nullable=False),
)

USAGE = Table(
    "usage",
    METADATA,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    Column("shape", String(128), primary_key=True),
    Column("capacity_class", String(32), primary_key=True),
    Column("instance_seconds", Float, nullable=False),
    Column("busy_seconds", Float, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("cold_starts", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Column("network_bytes", BigInteger, nullable=False, server_default="0"),
    Column("storage_byte_seconds", BigInteger, nullable=False, server_default="0"),
    Column("cache_byte_seconds", BigInteger, nullable=False, server_default="0"),
    Column("network_micros", BigInteger, nullable=False, server_default="0"),
    Column("storage_micros", BigInteger, nullable=False, server_default="0"),
    Column("cache_micros", BigInteger, nullable=False, server_default="0"),
    Column("management_micros", BigInteger, nullable=False, server_default="0"),
)

# One row: the last posting. Everything that ran is in the books until its moment.
LEDGER = Table(
    "ledger",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("booked_until_us", BigInteger, nullable=False),
)

# What limits were that routers may still obey; "tenant" or "tenant/model". What is gone may be promised still.
PROMISED_LIMITS = Table(
    "promised_limits",
    METADATA,
    Column("key", String(193), primary_key=True),
    Column("document", Text, nullable=False),
)

# The last optimisation of each model, and the variants that it found.
JOBS = Table(
    "jobs",
    METADATA,
    Column("model", String(128), ForeignKey("models.name", ondelete="CASCADE"), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("document", Text, nullable=False),
)
