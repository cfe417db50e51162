"""What survives a restart, in SQL: SQLite by default, PostgreSQL by URL."""

from headrace_autoscaler.store.sql import SqlStore, sqlite_url

__all__ = ["SqlStore", "sqlite_url"]
