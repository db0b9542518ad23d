"""The spine: the first schema, as raw SQL in the file of the same name."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates every table of the spine."""
    op.execute("SET LOCAL statement_timeout = 0")  # Nobody waits for it; and the transaction begins.
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    connection.run_async(lambda driver: driver.execute(script))
