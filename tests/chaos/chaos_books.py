"""The end: everything heals and is drained, then every ride is looked at once more, here and at the provider."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import aiohttp
import asyncpg
import msgspec
from chaos_town import Ride, Stream, Town

from service.adapters.postgres import Database
from service.flows.audit import audit
from service.flows.clock_setting import later, set_clock
from service.lab.demo.books import Taken, compare, read_books
from service.lab.demo.truth import read_topic
from service.lab.processes import LabError

DRAIN_S = 300.0
STILL_S = 3.0
"""What has not become less for so long waits for a later hour."""
ASKS = 8
LEFT = """
SELECT (SELECT count(*) FROM debit WHERE state <> 'settled') AS debits,
       (SELECT count(*) FROM refund WHERE state <> 'succeeded') AS refunds,
       (SELECT count(*) FROM batch b WHERE b.seq > coalesce((SELECT r.seq FROM batch_reader r
         WHERE r.reader = 'publication' AND r.writer_no = b.writer_no), 0)) AS unpublished,
       (SELECT count(*) FROM batch b WHERE cardinality(b.owing) > 0 AND b.seq > coalesce((SELECT r.seq
         FROM batch_reader r WHERE r.reader = 'collection' AND r.writer_no = b.writer_no), 0)) AS unplanned,
       (SELECT coalesce(sum(amount_minor), 0)::bigint FROM obligation)
         - (SELECT coalesce(sum(paid_minor - refunded_minor), 0)::bigint FROM debit) AS minor_units
"""


class Verdict(msgspec.Struct):
    """What the end came to; `problems` in words."""

    rides: int = 0
    debits: int = 0
    lost: int = 0
    twice: int = 0
    audit_problems: int = 0
    problems: list[str] = []
    by_account: dict[str, int] = {}
    """Debits settled, by the books of each account's provider."""

    def say(self, what: str) -> None:
        """Another problem."""
        self.problems.append(what)


async def drain(town: Town, database_url: str) -> None:
    """Returns when every ride is charged, paid and published; what waits for a later hour gets it. LabError if not."""
    deadline, before, changed_at = time.monotonic() + DRAIN_S, "", time.monotonic()
    connection = await asyncpg.connect(database_url)
    try:
        while left := await _left(connection, town):
            now = time.monotonic()
            if now > deadline:
                raise LabError(f"after {DRAIN_S:.0f} s without a fault there is still left: {left}")
            if left != before:
                before, changed_at = left, now
            elif now > changed_at + STILL_S:
                changed_at = now
                await _advance(database_url)
            await asyncio.sleep(0.2)
    finally:
        await connection.close()


async def _left(connection: asyncpg.Connection[asyncpg.Record], town: Town) -> str:
    """What there is still to do, in words; empty when nothing."""
    row = await connection.fetchrow(LEFT)
    assert row is not None
    closed = await connection.fetchval(
        "SELECT count(DISTINCT ride_no) FROM ride_revision WHERE state = 'closed' AND charge IS NOT NULL"
    )
    found = dict(row) | {"rides": len(town.rides) - closed}
    return ", ".join(f"{count} {what}" for what, count in found.items() if count)


async def _advance(database_url: str) -> None:
    """Five minutes later, as far as Farebox knows: it asks again about what was not found."""
    database = await Database.open(database_url, name="chaos", size_max=1)
    try:
        await set_clock(database, later(timedelta(minutes=5)))
    finally:
        await database.close()


async def judge(town: Town, database_url: str) -> Verdict:
    """Every ride by the doors, the ledger, the providers' books, the topic and the audit."""
    verdict = Verdict(rides=len(town.rides))
    async with aiohttp.ClientSession(town.places.provider) as session, session.get("/books") as answer:
        answer.raise_for_status()
        verdict.problems += [f"the provider's books: {text}" for text in (await answer.json())["problems"]]
    taken = await read_books(town.places)
    verdict.debits = sum(debit.paid_minor > 0 for debit in taken)
    books: dict[str, list[Taken]] = {}
    for debit in taken:
        for name in {*debit.names} if debit.paid_minor else ():
            books.setdefault(name, []).append(debit)
    rides = list(town.rides.values())
    for start in range(0, len(rides), ASKS):
        some = rides[start : start + ASKS]
        for ride, body in zip(some, await asyncio.gather(*(_told(town, ride) for ride in some)), strict=True):
            _ride(verdict, ride, body, books)
    verdict.problems += [
        f"{some[0].account_id} took money under {name}, which is nobody's" for name, some in books.items()
    ]
    await _ledger(verdict, database_url, taken, len(rides))
    await _topic(verdict, town.stream, town.rides)
    found = await audit(database_url, lambda problem: verdict.say(problem.line()), lambda done, total: None)
    verdict.audit_problems = found.problems
    return verdict


async def _told(town: Town, ride: Ride) -> Mapping[str, Any]:
    """How a ride stands, asked until it is answered: nothing is in the way any more."""
    async with asyncio.timeout(60):
        while (body := await town.session(ride.session_id)) is None:  # noqa: ASYNC110  Another process answers.
            await asyncio.sleep(0.1)
    return body


def _ride(verdict: Verdict, ride: Ride, body: Mapping[str, Any], books: dict[str, list[Taken]]) -> None:
    """One ride: charged once, at its price, and paid so at the provider, whose lines of it are taken out of `books`."""
    name, charge = ride.session_id, body["charge"]
    if body["state"] != "closed" or charge is None:
        verdict.lost += 1
        verdict.say(f"{name} was acknowledged, and is {body['state']} ({body['reason']})")
        return
    fares = [owing for owing in body["obligations"] if owing["kind"] == "charge"]
    if len(fares) != 1 or len(body["obligations"]) != 1 + ride.adjustments:
        verdict.twice += len(fares) > 1
        verdict.say(f"{name} owes {[(owing['kind'], owing['amount_minor']) for owing in body['obligations']]}")
    if fares and fares[0]["amount_minor"] != ride.fare_minor:
        verdict.say(f"{name} was charged {fares[0]['amount_minor']}, its price is {ride.fare_minor}")
    if (body["owed_minor"], body["open_minor"]) != (ride.owed_minor, 0):
        verdict.say(
            f"{name} owes {body['owed_minor']}, of it {body['open_minor']} open: it should be {ride.owed_minor}"
        )
    keys = {step["provider_key"] for debit in body["debits"] for step in debit["transitions"]}
    keys |= {body["hold"]["provider_key"]} if body["hold"] else set()
    taken = _taken_out(books, keys)
    net, payments = sum(debit.paid_minor - debit.refunded_minor for debit in taken), Counter[str]()
    for debit in taken:
        payments[debit.names[0]] += debit.payments
    if net != ride.owed_minor or any(count > 1 for count in payments.values()):
        verdict.twice += net > ride.owed_minor
        verdict.say(f"{name}: {ride.account} took {net} in {dict(payments)} payments, {ride.owed_minor} is owed")


def _taken_out(books: dict[str, list[Taken]], names: set[str]) -> list[Taken]:
    """What was taken under any of the names; it is not in the books any more, by whatever name."""
    found = {id(debit): debit for name in names for debit in books.get(name, ())}
    for debit in found.values():
        for name in debit.names:
            books.pop(name, None)
    return list(found.values())


async def _ledger(verdict: Verdict, database_url: str, taken: Sequence[Taken], rides: int) -> None:
    """Each account's ledger has what its provider's books have, and there are no rides but those that were sent."""
    connection = await asyncpg.connect(database_url)
    try:
        accounts = await compare(connection, taken)
        known = await connection.fetchval("SELECT count(*) FROM ride_revision WHERE revision = 1")
    finally:
        await connection.close()
    verdict.problems += [text for account in accounts for text in account.disagreements]
    verdict.by_account = {account.name: account.their_settled for account in accounts}
    if known != rides:
        verdict.say(f"{known} rides are there, {rides} were sent")


async def _topic(verdict: Verdict, stream: Stream, rides: Mapping[str, Ride]) -> None:
    """Each charge is told once on the topic, by its id; nothing is told of rides that were never sent."""
    told: dict[str, set[bytes]] = {}
    kinds: Counter[str] = Counter()
    for record in await read_topic(stream.bootstrap, stream.topic("billing")):
        headers = dict(record.headers)
        kind = headers["ce_type"].decode().removeprefix("io.farebox.billing.").removesuffix(".v1")
        kinds[kind] += 1
        if kind == "charge.rated":
            told.setdefault(record.key.decode(), set()).add(headers["ce_id"])
    for name in rides.keys() - told.keys():
        verdict.say(f"the charge of {name} was not published")
    for name in told.keys() - rides.keys():
        verdict.say(f"a charge of {name} was published, which never rode")
    for name, ids in told.items():
        if len(ids) > 1:
            verdict.say(f"{len(ids)} charges of {name} were published")
