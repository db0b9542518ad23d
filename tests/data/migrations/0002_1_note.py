"""Expand: a column that may be empty, on a hot table with a partition a month; no row is touched."""

from alembic import op

revision = "0002.1"
down_revision = "0001"


def upgrade() -> None:
    """The lock on the table is held for the moment in which the catalogue is changed."""
    op.execute("ALTER TABLE ride_revision ADD COLUMN note text")
