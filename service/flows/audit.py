"""The audit: everything is read in one snapshot, in bounded memory, and derived again from what it rests on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec

from service.adapters.postgres.audit import END_OF_NUMBERS, AuditStore, audit_snapshot
from service.adapters.postgres.catalog import CatalogStore
from service.billing.auditing import Known, check_ride, session_key_of
from service.billing.auditing.problems import MISSING, Place, Problem
from service.billing.auditing.rows import RideRows
from service.billing.auditing.tariffs import check_tariffs, read_tariffs, stray_version
from service.billing.events import decode_events
from service.billing.ledger import KIND, Account, account_name
from service.billing.proofs import BATCH_BITS, batch_no
from service.flows.audit_batches import check_batches
from service.flows.clock import BusinessClock
from service.flows.knowledge import Knowledge

REVISIONS_MAX = 4_000
"""How many revisions, about, one step reads with all that belongs to them."""


class UnknownOperatorError(ValueError):
    """There is no operator of this id."""


class Audited(msgspec.Struct):
    """What was read, and how many disagreements were found."""

    rides: int = 0
    charges: int = 0
    transfers: int = 0
    problems: int = 0


Report = Callable[[Problem], None]
Progress = Callable[[int, int], None]
"""(rides read, rides in all)."""


async def audit(url: str, report: Report, progress: Progress, operator_id: str | None = None) -> Audited:
    """Reports every disagreement; of one operator alone the writers' batches, which are everybody's, are left out.

    Raises UnknownOperatorError, and what asyncpg raises when the server goes away.
    """
    async with audit_snapshot(url) as store:
        return await audit_in(store, report, progress, operator_id)


async def audit_in(store: AuditStore, report: Report, progress: Progress, operator_id: str | None = None) -> Audited:
    """`audit` of what the transaction of `store` sees; raises the same."""
    operator_no = await store.operator_no(operator_id) if operator_id is not None else None
    if operator_id is not None and operator_no is None:
        raise UnknownOperatorError(f"there is no operator {operator_id!r}: `farebox operator list` shows them all")
    audited = Audited()
    async for problem in _everything(store, operator_no, audited, progress):
        audited.problems += 1
        report(problem)
    return audited


async def _everything(
    store: AuditStore, operator_no: int | None, audited: Audited, progress: Progress
) -> AsyncIterator[Problem]:
    knowledge, tariffs = Knowledge(BusinessClock(), 0), await store.tariffs()
    knowledge.operators = await CatalogStore(store.connection).operators()
    knowledge.catalog.add_tariffs(read_tariffs(tariffs))
    for problem in check_tariffs(tariffs):
        yield problem
    for tariff_no, version in await store.stray_versions():
        yield stray_version(tariff_no, version)
    async for problem in _rides(store, knowledge, operator_no, audited, progress):
        yield problem
    names = {number: operator.operator_id for number, operator in knowledge.operators.items()}
    for problem in await _ledger(store, operator_no, names):
        yield problem
    if operator_no is None:
        for key in await store.stray_keys():
            yield Problem(Place(ride_no=key.ride_no), "session_key", "*", "one for each ride", key)
        async for problem in check_batches(store):
            yield problem


async def _rides(
    store: AuditStore, knowledge: Knowledge, operator_no: int | None, audited: Audited, progress: Progress
) -> AsyncIterator[Problem]:
    """Ride by ride; a step also reads what is stored under numbers between its rides."""
    size, collected = await store.size(operator_no), await store.cursors("collection")
    after = -(2**63)
    progress(0, size)
    while after < END_OF_NUMBERS:
        until = await store.step(after, REVISIONS_MAX)
        rows = await store.rides(after, until, operator_no)
        known = await _known(store, knowledge, rows, collected)
        for ride in rows:
            audited.rides += bool(ride.revisions)
            audited.charges += sum(stored.charge is not None for stored in ride.revisions)
            audited.transfers += len(ride.transfers)
            for problem in check_ride(ride, known):
                yield problem
        progress(audited.rides, size)
        after = until


async def _known(store: AuditStore, knowledge: Knowledge, rows: list[RideRows], collected: dict[int, int]) -> Known:
    """What the rides of a step are held against."""
    keys, agreements, batches = set(), set(), set()
    for ride in rows:
        for key, named in _named(ride, knowledge):
            keys.add(key)
            agreements |= named
        owing = {obligation.revision for obligation in ride.obligations}
        batches |= {
            divmod(stored.batch_no, 1 << BATCH_BITS)
            for stored in ride.revisions
            if stored.revision in owing or stored.charge is not None
        }
    await knowledge.learn_agreements(store, agreements)
    found = await store.owing(batch for batch in batches if 0 <= batch[0] < 2**31)
    owing_rides = {batch_no(*place): rides for place, rides in found.items()}
    return Known(knowledge.operators, knowledge.catalog, await store.keys(sorted(keys)), owing_rides, collected)


def _named(ride: RideRows, knowledge: Knowledge) -> Iterator[tuple[bytes, set[tuple[int, str]]]]:
    """The session key and the agreements that a ride's events name, as far as they can be read."""
    for stored in ride.revisions:
        operator = knowledge.operators.get(stored.operator_no)
        try:
            events = decode_events(stored.events.encode())
        except msgspec.DecodeError:
            continue
        if operator is not None and events:
            named = {(operator.operator_no, event.agreement_id) for event in events if event.agreement_id is not None}
            yield session_key_of(operator, stored)[0], named


async def _ledger(store: AuditStore, operator_no: int | None, names: dict[int, str]) -> list[Problem]:
    """Balances' chains; every account added up; receivables against obligations and debits."""
    problems = []
    for end in await store.loose_ends(operator_no):
        times = "is taken up again, and no movement leaves it" if end.missing > 0 else "is left, and never taken up"
        place = Place(names.get(end.operator_no))
        problems.append(
            Problem(place, "cap_use", f"{end.balance_window} of rider {end.rider_no}", "a chain from 0 to the balance",
                    f"{end.value} {times}")
        )  # fmt: skip
    for shared in await store.shared_payments(operator_no):
        named = f"payment {shared.provider_ref} at account {shared.account_no}"
        place = Place(names.get(shared.operator_no))
        problems.append(Problem(place, "debit", f"receipts: {named}", "one receipt", f"receipts of {shared.debits}"))
    trial: dict[tuple[int, str], int] = defaultdict(int)
    receivables = await store.receivables(operator_no)
    for row in await store.accounts(operator_no):
        place, balance_minor = Place(names.get(row.operator_no)), row.debit_minor - row.credit_minor
        trial[row.operator_no, row.currency] += balance_minor
        if row.account // KIND not in _KINDS:
            problems.append(Problem(place, "transfer", "debit_account, credit_account", "an account", row.account))
        elif row.account // KIND == Account.RECEIVABLE:
            owed_minor = receivables.pop((row.operator_no, row.currency, row.account), 0)
            if balance_minor != owed_minor:
                problems.append(Problem(place, "transfer", account_name(row.account), owed_minor, balance_minor))
    for (number, _, account), owed_minor in receivables.items():
        if owed_minor:
            problems.append(Problem(Place(names.get(number)), "transfer", account_name(account), owed_minor, MISSING))
    for (number, currency), left in trial.items():
        if left:
            problems.append(Problem(Place(names.get(number)), "transfer", f"trial balance in {currency}", 0, left))
    return problems


_KINDS = frozenset(Account)
