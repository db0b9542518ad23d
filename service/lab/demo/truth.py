"""What the demo's closing line says, counted from the database, the providers' own books and the topics."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from service.adapters.kafka import partitions_of, raw_record
from service.adapters.kafka_access import Brokers
from service.billing.events import RideEvent, decode
from service.lab.demo.books import AccountLine, Taken, compare, read_books
from service.lab.demo.merchants import Places
from service.lab.demo.story import SESSION, Moment

DECIDED = frozenset({"closed", "cancelled", "voided", "not_billable", "review", "parked"})
RECEIVABLE = 1
GIVEN_UP = (6, 7, 8, 9, 10, 12)
"""The kinds of the ledger's accounts for what was charged and is asked of nobody any more."""
FINAL = ("settled", "settled_elsewhere", "settled_twice", "waived", "written_off", "cancelled")


class Truth(msgspec.Struct):
    """The counts, and what disagrees in words."""

    rides: int = 0
    charged: int = 0
    settled: int = 0
    open: int = 0
    quarantined: int = 0
    lost: int = 0
    charged_twice: int = 0
    trial_balance: int = 0
    published: int = 0
    states: dict[str, int] = {}
    debit_states: dict[str, int] = {}
    charged_minor: int = 0
    settled_minor: int = 0
    refunded_minor: int = 0
    owed_minor: int = 0
    given_up_minor: int = 0
    accounts: list[AccountLine] = []
    facts: dict[str, int] = {}
    story: list[Moment] = []
    disagreements: list[str] = []


class Heard(msgspec.Struct):
    """What is on the topics."""

    started: set[str]
    ended: set[str]
    refused: int
    charge_facts: Counter[str]
    quarantined: int
    facts: int
    kinds: Counter[str]
    story: list[Moment]


async def find_truth(database_url: str, places: Places, bootstrap: str) -> Truth:
    """Reads everything and compares."""
    heard = await _listen(bootstrap)
    debits = await read_books(places)
    connection = await asyncpg.connect(database_url)
    try:
        truth = Truth()
        await _rides(connection, heard, truth)
        await _money(connection, debits, truth)
    finally:
        await connection.close()
    truth.published = heard.facts
    truth.facts = dict(heard.kinds)
    truth.story = heard.story
    return truth


async def _rides(connection: asyncpg.Connection[asyncpg.Record], heard: Heard, truth: Truth) -> None:
    rows = await connection.fetch(
        "SELECT f.events::jsonb -> 0 ->> 'n' AS session_id, l.state::text AS state, c.amount_minor"
        " FROM ride_revision f"
        " CROSS JOIN LATERAL"
        " (SELECT state FROM ride_revision WHERE ride_no = f.ride_no ORDER BY revision DESC LIMIT 1) l"
        " LEFT JOIN LATERAL (SELECT amount_minor FROM ride_revision WHERE ride_no = f.ride_no AND charge IS NOT NULL"
        "                    ORDER BY revision DESC LIMIT 1) c ON true"
        " WHERE f.revision = 1"
    )
    known = Counter(row["session_id"] for row in rows)
    truth.rides = len(heard.started | heard.ended)
    truth.states = dict(Counter(row["state"] for row in rows))
    charged = [row for row in rows if row["amount_minor"] is not None and row["state"] == "closed"]
    truth.charged = len(charged)
    truth.charged_minor = sum(row["amount_minor"] for row in charged)
    decided = {row["session_id"] for row in rows if row["state"] in DECIDED}
    lost = [name for name in heard.started | heard.ended if name not in known]
    lost += [name for name in heard.started & heard.ended if name in known and name not in decided]
    truth.lost = len(lost)
    truth.disagreements += [f"session {name} is on the topic and was not decided" for name in lost[:5]]
    twice = [name for name, count in known.items() if count > 1]
    twice += [name for name, count in heard.charge_facts.items() if count > 1]
    truth.charged_twice = len(twice)
    truth.disagreements += [f"session {name} was charged twice" for name in twice[:5]]
    truth.quarantined = await connection.fetchval("SELECT count(*) FROM quarantine")
    if truth.quarantined != heard.quarantined or truth.quarantined != heard.refused:
        truth.disagreements.append(
            f"{heard.refused} unusable records on the topic, {truth.quarantined} in quarantine, {heard.quarantined} on"
            " its topic"
        )
    unsaid = {row["session_id"] for row in charged} - set(heard.charge_facts)
    truth.disagreements += [f"the charge of session {name} was not published" for name in sorted(unsaid)[:5]]


async def _money(connection: asyncpg.Connection[asyncpg.Record], debits: list[Taken], truth: Truth) -> None:
    rows = await connection.fetch("SELECT state, count(*) AS n FROM debit GROUP BY state")
    truth.debit_states = {row["state"]: row["n"] for row in rows}
    truth.settled = sum(1 for debit in debits if debit.paid_minor >= debit.amount_minor > 0)
    truth.open = sum(count for state, count in truth.debit_states.items() if state not in FINAL)
    truth.settled_minor = sum(debit.paid_minor for debit in debits)
    truth.refunded_minor = sum(debit.refunded_minor for debit in debits)
    truth.accounts = await compare(connection, debits)
    truth.disagreements += [text for line in truth.accounts for text in line.disagreements]
    await _rides_paid(connection, debits, truth)
    total = await connection.fetchval(
        "SELECT coalesce(sum(amount), 0)::bigint FROM (SELECT amount_minor AS amount FROM transfer"
        " UNION ALL SELECT -amount_minor FROM transfer) entries"
    )
    rows = await connection.fetch(_BY_KIND)
    balances = {row["kind"]: row["balance"] for row in rows}
    truth.owed_minor = balances.get(RECEIVABLE, 0)
    truth.given_up_minor = sum(balances.get(kind, 0) for kind in GIVEN_UP)
    become = truth.settled_minor - truth.refunded_minor + truth.given_up_minor + truth.owed_minor
    if become != truth.charged_minor:
        truth.disagreements.append(
            f"{truth.charged_minor} was charged, and {become} was taken and kept, is owed, or was given up"
        )
    truth.trial_balance = abs(total) + sum(abs(line.net_minor - line.their_net_minor) for line in truth.accounts)


_BY_KIND = (
    "SELECT account / 1000000000000000 AS kind, sum(amount)::bigint AS balance FROM ("
    "  SELECT debit_account AS account, amount_minor AS amount FROM transfer"
    "  UNION ALL SELECT credit_account, -amount_minor FROM transfer) entries GROUP BY 1"
)


async def _rides_paid(connection: asyncpg.Connection[asyncpg.Record], debits: list[Taken], truth: Truth) -> None:
    """Every payment at a provider is for a ride of ours, and no ride was paid more than is owed for it."""
    rows = await connection.fetch(
        "SELECT DISTINCT provider_key, ride_no FROM debit_transition"
        " UNION SELECT h.provider_key, d.ride_no FROM hold h JOIN debit d USING (session_key)"
    )
    owners = {row["provider_key"]: row["ride_no"] for row in rows}
    rows = await connection.fetch("SELECT ride_no, sum(amount_minor)::bigint AS owed FROM obligation GROUP BY ride_no")
    owed: dict[int, int] = {row["ride_no"]: row["owed"] for row in rows}
    taken: Counter[int] = Counter()
    for debit in debits:
        ride_no = next((owners[name] for name in debit.names if name in owners), None)
        if ride_no is not None:
            taken[ride_no] += debit.paid_minor - debit.refunded_minor
        elif debit.paid_minor:
            truth.disagreements.append(f"{debit.account_id} was paid under {debit.names[0]}, which is not ours")
    over = [ride_no for ride_no, amount in taken.items() if amount > owed.get(ride_no, 0)]
    truth.charged_twice += len(over)
    truth.disagreements += [
        f"ride {ride_no}: the provider took {taken[ride_no]} and {owed.get(ride_no, 0)} is owed" for ride_no in over[:5]
    ]


async def _listen(bootstrap: str) -> Heard:
    heard = Heard(set(), set(), 0, Counter(), 0, 0, Counter(), [])
    for record in await read_topic(bootstrap, "rental.sessions"):
        event = decode(raw_record(record))
        if not isinstance(event, RideEvent):
            heard.refused += 1
        elif event.kind in ("started", "ended"):
            (heard.started if event.kind == "started" else heard.ended).add(event.session_id)
    rated: set[tuple[str, bytes]] = set()
    known: set[bytes] = set()
    for record in await read_topic(bootstrap, "rental.billing"):
        heard.facts += 1
        headers = dict(record.headers)
        kind = headers["ce_type"].decode().removeprefix("io.farebox.billing.").removesuffix(".v1")
        if headers["ce_id"] in known:
            continue  # At least once: the same fact again.
        known.add(headers["ce_id"])
        heard.kinds[kind] += 1
        if kind == "charge.rated":
            rated.add((record.key.decode(), headers["ce_id"]))
        if record.key == SESSION.encode():
            at = datetime.fromisoformat(headers["ce_time"].decode())
            heard.story.append(Moment(at, kind, record.value.decode()))
    heard.charge_facts = Counter(session_id for session_id, _ in rated)
    refused = await read_topic(bootstrap, _QUARANTINE)
    heard.quarantined = len({dict(record.headers)["farebox_offset"] + (record.key or b"") for record in refused})
    return heard


_QUARANTINE = "rental.sessions.quarantine"


async def read_topic(bootstrap: str, topic: str) -> list[Any]:
    """Every record of a topic, from its beginning to its present end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        keys = [TopicPartition(topic, number) for number in (await partitions_of(Brokers(bootstrap), [topic]))[topic]]
        consumer.assign(keys)
        await consumer.seek_to_beginning(*keys)
        ends = await consumer.end_offsets(keys)
        records: list[Any] = []
        for key in keys:
            while await consumer.position(key) < ends[key]:
                for found in (await consumer.getmany(key, timeout_ms=500)).values():
                    records.extend(found)
        return records
    finally:
        await consumer.stop()
