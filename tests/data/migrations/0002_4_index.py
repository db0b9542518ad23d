"""An index of a table with partitions, built while it is written: of each partition concurrently, then attached.

A statement that can't be in a transaction must be repeatable: one that was cut leaves an invalid index behind.
"""

from alembic import op
from sqlalchemy import text

revision = "0002.4"
down_revision = "0002.3"
PARTITIONS = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ride_revision'::regclass")


def upgrade() -> None:
    """Building waits for transactions that are older than it, and nobody waits for it meanwhile."""
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = 0")
        for (part,) in op.get_bind().execute(PARTITIONS).all():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {part}_noted")
            op.execute(f"CREATE INDEX CONCURRENTLY {part}_noted ON {part} (ride_no) WHERE note IS NOT NULL")
        op.execute("RESET statement_timeout")
        op.execute("RESET lock_timeout")
    op.execute("CREATE INDEX noted ON ONLY ride_revision (ride_no) WHERE note IS NOT NULL")
    for (part,) in op.get_bind().execute(PARTITIONS).all():
        op.execute(f"ALTER INDEX noted ATTACH PARTITION {part}_noted")
