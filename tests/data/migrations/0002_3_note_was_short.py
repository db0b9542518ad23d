"""A constraint, second half: the rows that are there are read, which takes as long as it takes and stops nobody."""

from alembic import op

revision = "0002.3"
down_revision = "0002.2"


def upgrade() -> None:
    """VALIDATE locks out other changes of the table, neither readers nor writers."""
    op.execute("SET LOCAL statement_timeout = 0")
    op.execute("ALTER TABLE ride_revision VALIDATE CONSTRAINT note_is_short")
