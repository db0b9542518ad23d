"""New partitions: months further ahead, and a table of its own that has the same."""

from alembic import op

revision = "0002.5"
down_revision = "0002.4"


def upgrade() -> None:
    """Attaching a partition lets the writers of the others go on."""
    op.execute("SELECT make_ride_partitions(now(), 12)")
    op.execute("CREATE TABLE ride_note (ride_no bigint PRIMARY KEY, note text NOT NULL)")
