"""What the database says after a run, read back and added up for the tests."""

from __future__ import annotations

from collections import Counter, defaultdict

import asyncpg
import msgspec

from service.billing.proofs import batch_columns, batch_digest, batch_no

RIDES = """
SELECT f.events::jsonb -> 0 ->> 'n' AS session_id, l.state::text AS state, l.reason,
       c.amount_minor, c.charges, o.owed_minor, o.obligations
FROM (SELECT DISTINCT ON (ride_no) ride_no, state, reason FROM ride_revision ORDER BY ride_no, revision DESC) l
JOIN ride_revision f ON f.ride_no = l.ride_no AND f.revision = 1
LEFT JOIN LATERAL (
  SELECT count(*) AS charges, max(amount_minor) AS amount_minor FROM ride_revision r
  WHERE r.ride_no = l.ride_no AND r.charge IS NOT NULL
) c ON true
LEFT JOIN LATERAL (
  SELECT count(*) AS obligations, coalesce(sum(amount_minor), 0)::bigint AS owed_minor FROM obligation o
  WHERE o.ride_no = l.ride_no
) o ON true
"""
CHAIN = """
SELECT b.writer_no, b.seq, b.digest, b.facts_digest, b.revisions, b.owing, b.business_at, b.machine_at,
       ARRAY(SELECT r.digest FROM ride_revision r WHERE r.batch_no = (b.writer_no::bigint << 40 | b.seq)
             ORDER BY r.ride_no, r.revision) AS digests
FROM batch b JOIN stream_offset s ON s.writer_no = b.writer_no ORDER BY b.writer_no, b.seq
"""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a ride: its price, or why it must be looked at."""

    amount_minor: int | None
    reason: str | None


async def outcomes(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, Outcome]:
    """Every ride by its session id; a ride that was charged twice, or owes other than its charge, fails here."""
    found: dict[str, Outcome] = {}
    for row in await connection.fetch(RIDES):
        assert row["session_id"] not in found, f"{row['session_id']} is two rides"
        charged = row["state"] == "closed"
        assert row["charges"] == (1 if charged else 0), f"{row['session_id']} has {row['charges']} charges"
        assert row["owed_minor"] == (row["amount_minor"] or 0), f"{row['session_id']} owes {row['owed_minor']}"
        assert row["obligations"] <= 1, f"{row['session_id']} has {row['obligations']} obligations"
        found[row["session_id"]] = Outcome(row["amount_minor"], None if charged else row["reason"])
    return found


async def check_chains(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    """The intake's batches are numbered without a gap, and each digest follows from the one before; how many."""
    chains: dict[int, list[bytes]] = defaultdict(list)
    batches = await connection.fetch(CHAIN)
    for row in batches:
        chain = chains[row["writer_no"]]
        assert row["seq"] == len(chain) + 1, f"batch {batch_no(row['writer_no'], row['seq'])} follows a gap"
        assert row["revisions"] == len(row["digests"])
        columns = batch_columns(row["revisions"], row["owing"], row["business_at"], row["machine_at"])
        digest = batch_digest(chain[-1] if chain else b"", [*row["digests"], row["facts_digest"], columns])
        assert digest == row["digest"]
        chain.append(digest)
    for row in await connection.fetch("SELECT writer_no, seq, digest FROM stream_offset"):
        chain = chains[row["writer_no"]]
        assert (row["seq"], row["digest"]) == (len(chain), chain[-1] if chain else b"")
    return len(batches)


async def states(connection: asyncpg.Connection[asyncpg.Record]) -> Counter[str]:
    """How many rides stand in which state."""
    rows = await connection.fetch(
        "SELECT state, count(*) AS n FROM (SELECT DISTINCT ON (ride_no) state::text FROM ride_revision"
        " ORDER BY ride_no, revision DESC) last GROUP BY state"
    )
    return Counter({row["state"]: row["n"] for row in rows})
