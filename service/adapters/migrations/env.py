"""Alembic's environment: one asyncpg connection, handed in by `service.adapters.migrate`.

A transaction per migration: what went through stays."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], target_metadata=None, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
