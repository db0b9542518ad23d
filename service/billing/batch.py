"""The whole decision of the intake: what is known, what arrived, the time → what to append.

Every writer about rides decides here: the intake for its records, `keep` for deadlines and parked rides, an operator's
correction. All of it is pure; deciding again on newer knowledge is calling it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter

import msgspec

from service.billing.balances import EMPTY, Balance, BalanceUse, cap_of, windows_of
from service.billing.catalog import BalanceBook, Catalog, Operator
from service.billing.charged import UNCHARGED, StoredCharge, adjusted_charge, taken_back
from service.billing.events import RideEvent
from service.billing.extent import CONFLICTS_MAX, DECISIONS_MAX
from service.billing.rating import rate
from service.billing.rides import CapUse, Revision, Ride, compose
from service.billing.sessions import FINAL, Session, SessionState, Usage, first, is_excess, take
from service.billing.verdicts import Occasion, Terms, Verdict, deadline, judge

CROWDED = min(CONFLICTS_MAX, DECISIONS_MAX)
"""A ride of fewer events has too many of no kind."""


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """An event at the door, with the ride (session key) and the operator it belongs to."""

    key: bytes
    operator: Operator
    event: RideEvent


class Advance(msgspec.Struct):
    """What to append, how many events said nothing new, and which were more than their rides take."""

    revisions: list[Revision]
    duplicates: int = 0
    excess: Sequence[Arrival] = ()


class _Folding:
    """A ride of the batch while its events are folded in; `last` is the place of the last one that was new."""

    __slots__ = ("_ids", "fresh", "last", "ride", "session")

    def __init__(self, ride: Ride) -> None:
        self.ride = ride
        self.session: Session = ride.session
        self.fresh: list[RideEvent] = []
        self.last = 0
        self._ids: set[tuple[str, str]] | None = None

    @property
    def crowded(self) -> bool:
        """Whether the ride has more events than any that goes well."""
        return len(self.session.counted) + len(self.session.conflicts) >= CROWDED

    def is_excess(self, event: RideEvent) -> bool:
        """Whether the event is more than the ride takes; one that is not is taken next."""
        if self._ids is None:
            self._ids = {(one.source, one.id) for one in self.session.events()}
        identity = (event.source, event.id)
        excess = is_excess(self.session, event, identity in self._ids)
        if not excess:
            self._ids.add(identity)
        return excess


_LAST = attrgetter("last")


def advance(
    known: Mapping[bytes, Ride],
    arrivals: Sequence[Arrival],
    catalog: Catalog,
    book: BalanceBook,
    now: datetime,
    mint: Callable[[], int],
) -> Advance:
    """Everything a batch of events decides: one revision for each ride that learnt something.

    `known` holds each ride of the batch that exists; `mint` gives numbers for new rides. Arrivals of a ride may come
    in any order and number; the ride whose last one comes first is decided first, so that those of a rider share a cap
    in the order of their closing. `book` tells afterwards which balances it was asked for.
    """
    foldings: dict[bytes, _Folding] = {}
    duplicates = 0
    excess: list[Arrival] = []
    for index, arrival in enumerate(arrivals):
        key = arrival.key
        folding = foldings.get(key)
        if folding is None:
            folding = foldings[key] = _Folding(_ride(known.get(key), arrival, mint))
        if folding.crowded and folding.is_excess(arrival.event):
            excess.append(arrival)
            continue
        folding.session, taken = take(folding.session, arrival.event)
        if taken == "duplicate":
            duplicates += 1
        else:
            folding.fresh.append(arrival.event)
            folding.last = index
    return Advance(
        [
            _revise(folding.ride, folding.session, tuple(folding.fresh), catalog, book, now, "events")
            for folding in sorted(foldings.values(), key=_LAST)
            if folding.fresh
        ],
        duplicates,
        excess,
    )


def _ride(known: Ride | None, arrival: Arrival, mint: Callable[[], int]) -> Ride:
    """The ride an event belongs to, under its operator's rules of today."""
    if known is None:
        return Ride(arrival.key, mint(), arrival.operator)
    if known.operator is arrival.operator or known.operator == arrival.operator:
        return known
    return msgspec.structs.replace(known, operator=arrival.operator)


def reconsider(ride: Ride, catalog: Catalog, book: BalanceBook, now: datetime, occasion: Occasion) -> Revision | None:
    """The next revision of a ride to which nothing new happened, or None where it would say the same again."""
    if ride.state is SessionState.REVIEW or (ride.session.final and ride.state is not SessionState.OPEN):
        return None
    verdict = judge(ride.session, ride.operator, catalog, now, occasion)
    if verdict.state == ride.state and verdict.reason == ride.reason:
        return None
    return _revise(ride, ride.session, (), catalog, book, now, occasion)


def _revise(
    ride: Ride,
    session: Session,
    fresh: tuple[RideEvent, ...],
    catalog: Catalog,
    book: BalanceBook,
    now: datetime,
    occasion: Occasion,
) -> Revision:
    """The next revision of a ride."""
    if fresh and session.final and len(session.counted) == len(ride.session.counted):
        return compose(ride, session, fresh, Verdict(ride.state, ride.reason), None, now)
    verdict = _watched(
        ride, session, catalog, judge(session, ride.operator, catalog, now, _again(ride, session, occasion))
    )
    if _stays_in_review(ride, session, verdict):
        verdict = Verdict(SessionState.REVIEW, ride.reason, verdict.terms)
    if verdict.usage is None or verdict.terms is None:
        if session.final and verdict.state not in FINAL:
            terms = verdict.terms if ride.charge is None else None  # What stands was charged by the terms before.
            if session.reserved_only and verdict.state is SessionState.OPEN:
                verdict = msgspec.structs.replace(verdict, terms=terms)  # The ride that its reservation was for.
            else:
                verdict = Verdict(SessionState.REVIEW, verdict.reason or "correction_incomplete", terms)
        if verdict.state not in UNCHARGED or ride.charge is None:
            return compose(ride, session, fresh, verdict, None, now)
        left = taken_back(ride.charge, session)
        return compose(ride, session, fresh, verdict, left, now, _move_balances(ride, None, book))
    balance = _balance(ride, verdict.usage, verdict.terms, book)
    charge = StoredCharge(
        verdict.usage, rate(verdict.usage, verdict.terms.version.tariff, balance), _owed(ride, verdict.usage)
    )
    if ride.revision:
        charge = adjusted_charge(charge, session)
    moves = charge.charge.used or (ride.charge is not None and ride.charge.charge.used)
    cap_uses = _move_balances(ride, (verdict.terms, charge), book) if moves else ()
    return compose(ride, session, fresh, verdict, charge, now, cap_uses)


def _again(ride: Ride, session: Session, occasion: Occasion) -> Occasion:
    """A ride that is in review because its time was over stays there until the half that is missing comes."""
    waiting = ride.state is SessionState.REVIEW and (
        ride.reason == "end_missing" or (ride.reason == "start_missing" and first(session, "started") is None)
    )
    return "deadline" if waiting else occasion


def _stays_in_review(ride: Ride, session: Session, verdict: Verdict) -> bool:
    """What lay far in the future is not charged by itself because that time has come meanwhile."""
    return (
        ride.state is SessionState.REVIEW
        and ride.reason == "time_in_the_future"
        and verdict.state in (SessionState.OPEN, SessionState.CLOSED, SessionState.INCOMPLETE)
        and first(session, "corrected") is None
    )


def _watched(ride: Ride, session: Session, catalog: Catalog, verdict: Verdict) -> Verdict:
    """A ride that becomes open late may have been passed over by the sweep: it is watched from here on."""
    if verdict.state is not SessionState.OPEN or not ride.revision or ride.state is SessionState.OPEN:
        return verdict
    return msgspec.structs.replace(verdict, watch_at=deadline(session, ride.operator, catalog))


def _owed(ride: Ride, used: Usage) -> bool:
    """Whether the rider owes the charge: settled with the first one."""
    if ride.owed is not None:
        return ride.owed
    operator = ride.operator
    return operator.live and (operator.bill_from is None or used.started_at >= operator.bill_from)


def _balance(ride: Ride, used: Usage, terms: Terms, book: BalanceBook) -> Balance:
    """What the rider's other rides used of the ride's windows.

    A re-rate uses what the charge before it was rated with, so that it stays the same though an earlier ride was taken
    back; where rides that closed since have used more, it uses that: no correction charges more than a cap leaves.
    What they used above the ride's own cap (another version has a higher one) takes nothing from what it was charged.
    """
    tariff = terms.version.tariff
    windows = windows_of(used, tariff)
    if not windows:
        return EMPTY
    operator_no, rider_no = ride.operator.operator_no, terms.agreement.rider_no
    rated, own = EMPTY, EMPTY
    if ride.charge is not None and ride.agreement is not None and ride.agreement.rider_no == rider_no:
        rated, own = ride.charge.charge.balance, Balance(ride.charge.charge.used)
    held = {window: book.read((operator_no, rider_no, window)) for window in windows}  # All are asked: all are locked.

    def before(window: str, used: Decimal) -> Decimal:
        mine, cap = own.of(window), cap_of(window, tariff)
        held_of_cap = used if cap is None or not mine else min(used, cap)
        return max(rated.of(window), held_of_cap - mine)

    return Balance(tuple(BalanceUse(window, before(window, used)) for window, used in held.items()))


def _move_balances(ride: Ride, charged: tuple[Terms, StoredCharge] | None, book: BalanceBook) -> tuple[CapUse, ...]:
    """Moves the rider's balances from what the standing charge used to what the new one does."""
    operator_no = ride.operator.operator_no
    moves = []
    if ride.charge is not None and ride.agreement is not None:
        moves += [((operator_no, ride.agreement.rider_no, use.window), -use.used) for use in ride.charge.charge.used]
    if charged is not None:
        terms, charge = charged
        moves += [((operator_no, terms.agreement.rider_no, use.window), use.used) for use in charge.charge.used]
    totals = {key: sum(amount for other, amount in moves if other == key) for key in dict.fromkeys(k for k, _ in moves)}
    uses = []
    for key, amount in totals.items():
        before = book.read(key)
        if amount:
            book.write(key, before + amount)
            uses.append(CapUse(key[1], key[2], before, before + amount))
    return tuple(uses)
