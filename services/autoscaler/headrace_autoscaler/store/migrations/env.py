"""Alembic's entry point: runs the migrations on the connection that `store.engine` hands over.

To write a new migration, add a file to versions/ by hand and change `store/tables.py` alike; a test
compares the two.
"""

from alembic import context

connection = context.config.attributes["connection"]
# SQLite's DDL is transactional here because the connection's transactions are begun explicitly.
context.configure(connection=connection, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
