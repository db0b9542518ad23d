"""One ride's collection in memory: what service.flows.collection does around the real `Book`, without a database.

`Till` keeps the rows (debits, refunds, leases, the ledger, numbers by which late news finds a debit, the ride's hold)
and decides by the real rules what is due, what an answer or a notification means, and what follows. What is called,
when, and which answers are lost is the history's (sim_acts).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec.structs import replace
from sim_held import HoldsTeller
from sim_teller import CURRENCY

from service.adapters.postgres.collection import DebitRow, HoldCap, OwingRow
from service.billing.debits.collecting import Book, Context, Posted
from service.billing.debits.dunning import Calendar
from service.billing.debits.events import (
    DebitEvent,
    Due,
    GivenBack,
    LeaseOver,
    PolicyDue,
    RefundDecided,
    RefundRefusedError,
    RetryAsked,
)
from service.billing.debits.facts import Naming
from service.billing.debits.lives import LifeRow, lived
from service.billing.debits.obligations import owed_back_minor
from service.billing.debits.refunds import REFUND_FINAL, Refund, RefundEvent, RefundState
from service.billing.debits.state import FINAL, Debit, HoldSeen, Terms
from service.billing.keys import session_key_bytes, slot_of
from service.billing.outcomes import Outcome, Unknown
from service.flows.collection import LEASE
from service.flows.collection.calls import Answer, Claim, _ask, debit_event, refund_event
from service.flows.collection.hearing import _asks_less
from service.flows.collection.keeping import _finished, _owing

BEGINNING = datetime(2026, 11, 22, 4, tzinfo=UTC)
"""Noon in the rider's zone."""
ZONE = ZoneInfo("Asia/Shanghai")
SESSION = "ride"
KEY = session_key_bytes("op", SESSION)
NAMING = Naming("op", "agr", "sandbox")
Key = tuple[int, ...]
"""(ordinal) of a debit, (ordinal, number) of a refund."""
T = TypeVar("T")


def at_once(asked: Coroutine[Any, Any, T]) -> T:
    """What a coroutine comes to that waits for nothing."""
    try:
        asked.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a call of the model waits for something")


class Till:
    """The rows of one ride, and what is done with them."""

    def __init__(self, calendar: Calendar, cap_minor: int | None) -> None:
        self.now = BEGINNING
        self.teller: HoldsTeller
        self.calendar = calendar
        self.cap_minor = cap_minor
        self.owed_minor = 0
        self.debits: dict[int, Debit] = {}
        self.refunds: dict[tuple[int, int], Refund] = {}
        self.leases: dict[Key, datetime | None] = {}
        self.lives: list[LifeRow] = []
        self.posted: list[Posted] = []
        self.posted_at: list[datetime] = []
        self.numbers: set[tuple[str, int]] = set()
        self.reached: Counter[tuple[str, str]] = Counter()
        self.told: list[str] | None = None
        self.on_holds: Callable[[Book], None] = lambda _: None
        self.finish_hold: Callable[[str], None] = lambda _: None
        self.hold_seen: Callable[[], HoldSeen | None] = lambda: None
        self.hold_names: Callable[[], tuple[str | None, str | None]] = lambda: (None, None)
        self.opened_hold: Callable[[], tuple[int, datetime] | None] = lambda: None
        self.hold_cap: Callable[[], HoldCap | None] = lambda: None

    # ------------------------------------------------------------------ what a decision looks at

    def row(self, debit: Debit) -> DebitRow:
        """A debit as a call is made with."""
        hold_key, hold_ref = self.hold_names()
        names = ("op", "", "", "", "agr", "Asia/Shanghai", "zh", "sandbox", "till", "", "AGREEMENT", "agreement")
        return DebitRow(debit, None, *names, hold_key, hold_ref, None, None, self.hold_seen())

    def context(self) -> Context:
        """What the rules look at beside a debit."""
        return Context(Terms(self.teller.capabilities, self.calendar, ZONE, self.hold_seen()), NAMING)

    # ------------------------------------------------------------------ claims and answers

    def due(self) -> list[Key]:
        """What can be claimed now, the longest waiting first."""
        free = [(at, key) for key, at in self.due_at() if at <= self.now and self._free(key)]
        return [key for _, key in sorted(free)]

    def due_at(self) -> list[tuple[Key, datetime]]:
        """When each debit and refund is due, of which anything is to be asked."""
        debits: list[tuple[Key, datetime | None]] = [((no,), one.due_at) for no, one in self.debits.items()]
        refunds: list[tuple[Key, datetime | None]] = [(key, one.due_at) for key, one in self.refunds.items()]
        return [(key, at) for key, at in (*debits, *refunds) if at is not None]

    def _free(self, key: Key) -> bool:
        lease = self.leases.get(key)
        return lease is None or lease <= self.now

    def claim(self, key: Key) -> list[Claim]:
        """Takes what is due, as `Collection._take` does: with a lease where somebody is to be called."""
        book, lease = Book(self.now), self.leases.get(key)
        event: Due | LeaseOver = Due() if lease is None else LeaseOver()
        debit = self.debits[key[0]]
        if len(key) == 1:
            self.happened(book, debit, event)
        else:
            self.refund_happened(book, self.refunds[key[0], key[1]], debit, event)
        until = self.now + LEASE
        self.keep(book, {key: until if book.work else None}, whole_ride=False)
        return [Claim(work, self.row(replace(debit)), until) for work in book.work]

    def call(self, claim: Claim) -> Outcome:
        """Asks the provider, with the requests that the service makes."""
        fault, what = self.teller.fault, claim.work.what
        if fault is not None and what in ("submit", "refund", "lower", "close"):
            return fault
        if isinstance(fault, Unknown) and what in ("query", "query_refund"):
            return fault
        return at_once(_ask(self.teller, claim))  # type: ignore[arg-type]  # It has what is called.

    def save(self, answer: Answer) -> None:
        """Keeps what a call brought, as `Collection._save_once` does."""
        work, book = answer.claim.work, Book(self.now)
        key: Key = (work.debit.ordinal,) if work.refund is None else (work.debit.ordinal, work.refund.refund_ordinal)
        ours = self.leases.get(key) == answer.claim.lease_until
        debit = self.debits[work.debit.ordinal]
        if work.refund is None:
            self.happened(book, debit, debit_event(answer, ours=ours))
        else:
            refund = self.refunds[key[0], key[1]]
            self.refund_happened(book, refund, debit, refund_event(answer, refund, ours=ours))
        self.keep(book, {key: None} if ours else {})

    # ------------------------------------------------------------------ what happens

    def happen(self, ordinal: int, *events: DebitEvent) -> Debit:
        """What people and notifications do to a debit, as `Hearing.happen` does; raises what the rules raise."""
        book = Book(self.now)
        debit = self.debits[ordinal]
        for event in events:
            debit = self.happened(book, debit, event)
        self.keep(book, {})
        return debit

    def policies(self) -> list[int]:
        """Debits at which the calendar looks now."""
        return [
            no for no, one in sorted(self.debits.items()) if one.policy_at is not None and one.policy_at <= self.now
        ]

    def policy(self, ordinal: int) -> list[Claim]:
        """The calendar's turn, as `Dunning._turn`: the calls that it wants."""
        book, debit = Book(self.now), self.debits[ordinal]
        self.happened(book, debit, PolicyDue())
        self.keep(book, {}, whole_ride=False)
        return [Claim(work, self.row(debit), self.now) for work in book.work]

    def owe(self, owed_minor: int) -> None:
        """What the ride owes in all has changed: it is planned, and netted."""
        self.owed_minor = owed_minor
        book = Book(self.now)
        self.net(book)
        self.keep(book, {})

    def refund_again(self) -> bool:
        """As `Hearing.refund_again`, for all debits of the ride."""
        book = Book(self.now)
        for refund in self.refunds.values():
            self.refund_happened(book, refund, self.debits[refund.ordinal], RetryAsked())
        self.net(book)
        refunds = (*self.refunds.values(), *book.refunds_opened)
        still = all(one.state in REFUND_FINAL or one.state is RefundState.MANUAL for one in refunds)
        if still and not any(_asks_less(self.debits[no], debit) for (_, no), debit in book.changed.items()):
            return False
        self.keep(book, {})
        return True

    def decide_refund(self, key: tuple[int, int], decision: RefundDecided) -> bool:
        """As `Hearing.decide_refund`."""
        book, refund = Book(self.now), self.refunds[key]
        if self.refund_happened(book, refund, self.debits[key[0]], decision) == refund:
            return False
        self.keep(book, {})
        return True

    def given_back(self, ordinal: int, given: GivenBack) -> None:
        """As `Hearing.given_back`."""
        book, debit = Book(self.now), self.debits[ordinal]
        if debit.state in FINAL and given.amount_minor > owed_back_minor(
            self.owed_minor, list(self.debits.values()), debit
        ):
            raise RefundRefusedError("more than is the rider's")
        self.happened(book, debit, given)
        self.keep(book, {})

    def refund_noticed(self, key: tuple[int, int], event: RefundEvent) -> None:
        """What a notification says of a refund."""
        book = Book(self.now)
        self.refund_happened(book, self.refunds[key], self.debits[key[0]], event)
        self.keep(book, {})

    def happened(self, book: Book, debit: Debit, event: DebitEvent) -> Debit:
        """One event, counted and told."""
        after = book.happen(debit, event, self.context())
        self.reached[debit.state, _kind(event)] += 1
        if self.told is not None:
            self.told.append(f"    d{debit.ordinal} {_shown(event)}: {_changes(debit, after)}")
        return after

    def refund_happened(self, book: Book, refund: Refund, debit: Debit, event: RefundEvent) -> Refund:
        """The same of a refund."""
        after = book.refund_happen(refund, debit, event, self.context())
        self.reached[f"refund {refund.state}", _kind(event)] += 1
        if self.told is not None:
            self.told.append(
                f"    r{refund.ordinal}-{refund.refund_ordinal} {_shown(event)}: {_changes(refund, after)}"
            )
        return after

    # ------------------------------------------------------------------ rows

    def net(self, book: Book, *, refunding: bool = True) -> None:
        """Nets the ride as it stands."""
        cap, about = self.cap_minor, self.context()
        owing = OwingRow(
            1, slot_of(KEY), 1, CURRENCY, self.owed_minor, 1, "", "op", "", "", "", "agr", 1, cap, None,
            "Asia/Shanghai", "zh", "sandbox", "till", "", None,
        )  # fmt: skip
        debits = [self.debits[ordinal] for ordinal in sorted(self.debits)]
        ride = _owing(owing, UUID(bytes=KEY), SESSION, self.hold_cap(), debits, about)
        book.net_ride(ride, refunding=refunding)

    def keep(self, book: Book, leases: dict[Key, datetime | None], *, whole_ride: bool = True) -> None:
        """Writes a book as `keeping.keep` does: what waited for it is netted again, in the same transaction."""
        self._write(book, leases)
        if book.net_again or book.lower_again:
            again = Book(self.now)
            self.net(again, refunding=bool(book.net_again))
            self._write(again, {})
        finished = _finished(book, self.debits.values()) if whole_ride else {}
        for reason in finished.values():
            self.finish_hold(reason)

    def _write(self, book: Book, leases: dict[Key, datetime | None]) -> None:
        lives = lived(book.transitions, book.posted, self.now, self.now)
        digests = {row.ordinal: row.digest for row in lives}
        for debit in (*book.changed.values(), *book.opened):
            known = replace(debit, digest=digests.get(debit.ordinal, debit.digest))
            if debit in book.opened:
                assert debit.ordinal not in self.debits, "a debit was opened twice"
                self._tell(f"    d{debit.ordinal} opened: {debit.state} {debit.amount_minor} {debit.reason or ''}")
            self.debits[debit.ordinal] = known
        for refund in book.refunds_opened:
            assert (refund.ordinal, refund.refund_ordinal) not in self.refunds, "a refund was opened twice"
            code = refund.code or ""
            self._tell(
                f"    r{refund.ordinal}-{refund.refund_ordinal} opened: {refund.state} {refund.amount_minor} {code}"
            )
            self.refunds[refund.ordinal, refund.refund_ordinal] = refund
        for refund in book.refunds_changed.values():
            self.refunds[refund.ordinal, refund.refund_ordinal] = refund
        self.leases |= leases
        self.lives += lives
        self.posted += book.posted
        self.posted_at += [self.now] * len(book.posted)
        self.numbers |= {(number, debit.ordinal) for debit, number in book.numbers_left}
        self.on_holds(book)

    def _tell(self, line: str) -> None:
        if self.told is not None:
            self.told.append(line)

    def ago(self) -> timedelta:
        """How long the history has been going on."""
        return self.now - BEGINNING


def _kind(event: DebitEvent | RefundEvent) -> str:
    outcome = getattr(event, "outcome", None)
    told = getattr(event, "decision", None) or (type(outcome).__name__ if outcome is not None else "")
    return f"{type(event).__name__} {told}".rstrip()


def _shown(event: DebitEvent | RefundEvent) -> str:
    values = []
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name == "key":
            values.append(str(value)[-4:])
        elif value is not None:
            text = str(value)
            values.append(text if name == "outcome" else f"{name}={text}")
    return f"{type(event).__name__}({', '.join(values)})"


QUIET = frozenset({"digest", "transitions", "not_found_at", "policy_at", "action", "subject", "begun_at", "updated_at"})


def _changes(before: Debit | Refund, after: Debit | Refund) -> str:
    changed = []
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if old != new and name not in QUIET:
            changed.append(f"{name} {_plain(old)} > {_plain(new)}")
    return "; ".join(changed) or "nothing"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        ago = value - BEGINNING
        return f"+{ago.days}d{ago.seconds // 3600:02}:{ago.seconds % 3600 // 60:02}:{ago.seconds % 60:02}"
    if isinstance(value, tuple):
        return f"({', '.join(_plain(one) for one in value)})"
    fields = getattr(value, "__struct_fields__", None)
    if fields:
        return " ".join(str(_plain(getattr(value, name)))[-12:] for name in fields)
    return str(value)
