"""Alembic's environment: one asyncpg connection, handed in by `service.adapters.migrate`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
with context.begin_transaction():
    context.run_migrations()
