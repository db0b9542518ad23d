"""Loading what a decision needs, and writing what was decided: debits, refunds, ledger, facts, in one transaction."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from service.adapters.postgres.agreements import AgreementStore
from service.adapters.postgres.batches import OutRecord
from service.adapters.postgres.collection import (
    CollectionStore,
    DebitKey,
    DebitRow,
    HoldCap,
    OwingRow,
    RefundKey,
    RefundRow,
)
from service.adapters.providers import declared_capabilities
from service.adapters.providers.port import MerchantAccount, Provider
from service.adapters.providers.secrets import AccountSettingsError
from service.adapters.providers.titles import title_stored
from service.billing.agreements.holds import HoldPolicy
from service.billing.capabilities import Capabilities
from service.billing.debits.collecting import Book, Context, RideOwing
from service.billing.debits.content import Content
from service.billing.debits.dunning import calendar
from service.billing.debits.facts import Naming, contact_of
from service.billing.debits.holding import goes_through_holds
from service.billing.debits.lives import lived
from service.billing.debits.money import LIVE
from service.billing.debits.refunds import stands_still
from service.billing.debits.state import FINAL, Debit, State, Terms
from service.billing.debits.unanswered import unanswered
from service.billing.events import decode_events
from service.billing.facts import EncodedFact
from service.billing.keys import provider_key, session_key
from service.billing.rides import read_charge
from service.billing.words import spoken
from service.flows.collection.apart import Tripped, set_aside
from service.flows.collection.watching import watch
from service.telemetry import DEBITS, REFUNDS, SENT_AGAIN

Providers = Mapping[int, Provider]
"""By account number; it may grow meanwhile."""


ACCOUNT_AGAIN = timedelta(minutes=5)
"""When a ride is looked at again of whose account nobody can tell what it can do, business time."""


def context(
    providers: Providers, row: DebitRow | OwingRow, *, reporting: bool = True, debiting: bool = True
) -> Context:
    """What the rules look at beside a debit; while `reporting` is False no report is made, while `debiting` is False
    no nudge, and no attempt is announced.

    An account that this process has not opened (its secrets are elsewhere, or it was added a moment ago) can do what
    its settings in the database say. Raises AccountSettingsError where they can't be used.
    """
    account_no = row.debit.account_no if isinstance(row, DebitRow) else row.account_no
    provider = providers.get(account_no)
    opened = None if provider is None else provider.capabilities
    capabilities = opened or _declared(row.provider, row.account_id, row.account_settings)
    hold = row.hold if isinstance(row, DebitRow) else None
    terms = Terms(capabilities, calendar(row.operator_calendar), ZoneInfo(row.time_zone), hold, reporting, debiting)
    contact = contact_of(row.operator_name, row.operator_contact)
    naming = Naming(row.operator_id, row.agreement_id, row.provider, contact, row.language)
    return Context(terms, naming, row.restored_at)


async def net_rides(
    store: CollectionStore,
    providers: Providers,
    book: Book,
    ride_nos: Iterable[int],
    lowered_only: Container[int] = frozenset(),
) -> dict[DebitKey, DebitRow]:
    """Nets the rides' obligations against their debits, which stay locked; returns those. Of rides that are
    `lowered_only` nothing is given back.

    Whoever opens a further debit of a ride holds its first one. A statement that waited for that sees the rows as they
    were when it began: once they are locked they are read again, so that no debit is missing from the netting.
    A ride of an account with settings that can't be used is set aside: nothing is decided by a guess.
    """
    rides = sorted(set(ride_nos))
    rows = await store.lock_debits(rides)
    rows = await store.lock_debits({ride_no for ride_no, _ in rows})
    owing = await store.rides_owing(rides)
    sessions = {row.ride_no: decode_events(row.events.encode())[0].session_id for row in owing}
    keys = {row.ride_no: session_key(row.operator_id, sessions[row.ride_no]) for row in owing}
    caps = await store.hold_caps(sorted(keys.values()))
    debits: dict[int, list[Debit]] = {}
    for row in rows.values():
        debits.setdefault(row.debit.ride_no, []).append(row.debit)
    contents = await store.ride_contents(rides, debits)
    unable: list[Tripped] = []
    for ride in owing:
        no = ride.ride_no
        try:
            about = context(providers, ride)
        except AccountSettingsError as error:
            unable.append(Tripped(no, str(error), ACCOUNT_AGAIN))
            continue
        known = _owing(ride, keys[no], sessions[no], caps.get(keys[no]), debits.get(no, ()), about)
        said = contents[no]
        charge = None if said.charge is None else read_charge(said.charge)
        forgotten = said.restored_at is not None and charge is not None and charge.usage.ended_at <= said.restored_at
        because = None if said.latest is None else _because(said.latest)
        content = Content(charge, said.tariff_no, _title(ride), spoken(ride.language), because)
        book.net_ride(replace(known, content=content, verify=forgotten), refunding=no not in lowered_only)
    await set_aside(store, "owing", unable, book.now)
    await watch(store, book, {row.operator_no: calendar(row.operator_calendar) for row in owing})
    return rows


async def keep(
    store: CollectionStore,
    providers: Providers,
    book: Book,
    rows: Mapping[DebitKey, DebitRow],
    refund_rows: Mapping[RefundKey, RefundRow],
    machine_at: datetime,
    writer: str,
    leases: Mapping[DebitKey | RefundKey, datetime | None],
    *,
    whole_rides: bool = True,
) -> None:
    """Writes a book. `leases` is what changes of who holds what; with `whole_rides`, `rows` are all debits of the
    rides that the book is about, and holds of which nothing can be collected any more are completed.

    Obligations that waited for one of its debits are netted once more, in the same transaction.
    """
    await _write(store, book, rows, refund_rows, machine_at, leases)
    await AgreementStore(store.connection).doubt(_doubted(book), book.now)
    facts = book.facts
    known = {key: row.debit for key, row in rows.items()} | book.changed
    if book.net_again or book.lower_again:
        again, rides = Book(book.now), book.net_again | book.lower_again
        again_rows = await net_rides(store, providers, again, rides, book.lower_again - book.net_again)
        await _write(store, again, again_rows, {}, machine_at, {})
        facts = facts + again.facts
        known |= again.changed | {(debit.ride_no, debit.ordinal): debit for debit in again.opened}
    known |= {(debit.ride_no, debit.ordinal): debit for debit in book.opened}
    finished = _finished(book, known.values()) if whole_rides else {}
    if finished:
        await store.finish_holds(finished, book.now)
    await _publish(store, facts, book.now, machine_at, writer)


async def _write(
    store: CollectionStore,
    book: Book,
    rows: Mapping[DebitKey, DebitRow],
    refund_rows: Mapping[RefundKey, RefundRow],
    machine_at: datetime,
    leases: Mapping[DebitKey | RefundKey, datetime | None],
) -> None:
    lives = lived(book.transitions, book.posted, book.now, machine_at)
    digests = {(row.ride_no, row.ordinal): row.digest for row in lives}
    debits = {key: row.debit for key, row in rows.items() if key in leases} | book.changed
    debits |= {key: replace(debits[key], digest=digest) for key, digest in digests.items() if key in debits}
    opened = [replace(debit, digest=digests[debit.ride_no, debit.ordinal]) for debit in book.opened]
    held = [(debit, leases.get(key, rows[key].lease_until)) for key, debit in sorted(debits.items())]
    refunds = {key: row.refund for key, row in refund_rows.items() if key in leases} | book.refunds_changed
    held_refunds = [(refund, leases.get(key, refund_rows[key].lease_until)) for key, refund in sorted(refunds.items())]
    await store.update_debits(held, book.now)
    await store.insert_debits(opened, book.now)
    await store.update_refunds(held_refunds, book.now)
    await store.insert_refunds(book.refunds_opened, book.now)
    await store.append_transitions(lives)
    await store.append_transfers(book.posted, book.now)
    await store.keep_numbers(book.numbers_left)
    for debit, wanted in book.holds_wanted:
        key = provider_key(debit.session_key.bytes, "hold", wanted.ordinal)
        title = _title(rows[debit.ride_no, debit.ordinal])
        await store.want_hold(debit, key, wanted, book.now, HoldPolicy().cap_minor, title)
    for debit_key, changed in book.changed.items():
        if changed.resent > rows[debit_key].debit.resent:
            SENT_AGAIN.labels("debit").inc()
    for refund_key, refund in book.refunds_changed.items():
        if refund.resent > refund_rows[refund_key].refund.resent:
            SENT_AGAIN.labels("refund").inc()
    for transition in book.transitions:
        DEBITS.labels("unanswered" if unanswered(transition.debit) else transition.debit.state).inc()
    for refund in (*book.refunds_opened, *book.refunds_changed.values()):
        REFUNDS.labels("stands_still" if stands_still(refund) else refund.state).inc()


async def _publish(
    store: CollectionStore, facts: list[EncodedFact], now: datetime, machine_at: datetime, writer: str
) -> None:
    if facts:
        batch = await store.take_batch(writer)
        records = [OutRecord("billing", fact.key, fact.headers, fact.value) for fact in facts]
        await store.seal_batch(batch, records, now, machine_at)


def _doubted(book: Book) -> set[int]:
    """The agreements of debits that their provider has refused for good: perhaps since these are over there."""
    refused = (State.NEEDS_RIDER, State.MANUAL)
    return {
        transition.debit.agreement_no
        for transition in book.transitions
        if transition.debit.state in refused and transition.from_state in LIVE
    }


def _owing(
    row: OwingRow, key: UUID, session_id: str, hold: HoldCap | None, debits: Iterable[Debit], about: Context
) -> RideOwing:
    able = about.terms.capabilities
    own = hold if hold is not None and hold.agreement_no == row.agreement_no else None
    caps = [cap for cap in (_cap_of(own, able), row.cap_minor) if cap is not None]
    if not caps and goes_through_holds(able):  # The most that a hold which it will get can have.
        caps = [HoldPolicy().cap_minor if row.hold_cap_minor is None else row.hold_cap_minor]
    return RideOwing(
        ride_no=row.ride_no,
        slot=row.slot,
        operator_no=row.operator_no,
        agreement_no=row.agreement_no,
        account_no=row.account_no,
        session_key=key,
        session_id=session_id,
        currency=row.currency,
        owed_minor=row.owed_minor,
        cap_minor=min(caps, default=None),
        debits=tuple(debits),
        context=about,
    )


def _because(latest: str) -> str | None:
    """The reason that was given for a ride's last decision: support's, of an adjustment or a correction."""
    given = (event.adjustment.reason if event.adjustment else event.reason for event in decode_events(latest.encode()))
    return next((reason for reason in given if reason), None)


def _title(row: DebitRow | OwingRow) -> str:
    """What a ride is called at its provider."""
    return title_stored(row.provider, row.account_settings, spoken(row.language))


def _cap_of(hold: HoldCap | None, able: Capabilities) -> int | None:
    """The most that may be debited on the ride's hold; None where it limits nothing.

    Where the rider confirms each hold, one that collection asked for is for one debit (`holding.hold_first`): it limits
    the ride while it is asked for or open, and once it is over a further debit gets one of its own. Elsewhere a hold
    that was opened says what may be debited for the ride at all.
    """
    if hold is None:
        return None
    each = goes_through_holds(able) and able.hold_confirmed_by_rider
    limits = hold.state in ("requested", "open") if each else hold.opened and hold.state != "released"
    return hold.cap_minor if limits else None


@lru_cache(maxsize=1024)
def _declared(provider: str, account_id: str, settings: str) -> Capabilities:
    """What an account can do by its settings (JSON)."""
    given: dict[str, Any] = msgspec.json.decode(settings)
    return declared_capabilities(MerchantAccount(0, account_id, provider, "", given))


def _finished(book: Book, debits: Iterable[Debit]) -> dict[UUID, str]:
    """Sessions of this book with no debit left that could still be collected, and how their holds end."""
    touched = {ride_no for ride_no, _ in book.changed} | {debit.ride_no for debit in book.opened}
    rides: dict[UUID, list[Debit]] = {}
    for debit in debits:
        if debit.ride_no in touched:
            rides.setdefault(debit.session_key, []).append(debit)
    return {
        key: "settled" if any(debit.paid_minor for debit in ride) else "waived"
        for key, ride in rides.items()
        if all(map(_over, ride))
    }


def _over(debit: Debit) -> bool:
    """Whether the debit's hold is not needed any more: not while its provider is still to be told that it ended, or
    asked what he took of it."""
    asked = debit.lowering_to is not None or debit.doubted_minor is not None
    return debit.state in FINAL and debit.state is not State.WRITTEN_OFF and not asked
