"""A constraint that is to hold for rows that are there, first half: from now on it holds for new ones."""

from alembic import op

revision = "0002.2"
down_revision = "0002.1"


def upgrade() -> None:
    """NOT VALID: no row is read while the lock is held."""
    op.execute(
        "ALTER TABLE ride_revision ADD CONSTRAINT note_is_short CHECK (note IS NULL OR length(note) < 200) NOT VALID"
    )
