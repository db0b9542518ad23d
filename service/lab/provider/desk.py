"""The desk: every operation a merchant may ask for, on the books, with what the script and the seed have in store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from heapq import heappop
from typing import TypeVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from service.lab.provider import agreements, debits, holds, refunds
from service.lab.provider.books import Books
from service.lab.provider.clock import ProviderClock
from service.lab.provider.faults import Faults
from service.lab.provider.refusals import RefusedError, unknown
from service.lab.provider.rows import (
    Account,
    Agreement,
    AskAgreement,
    AskDebit,
    AskHold,
    AskRefund,
    Debit,
    Entry,
    Hold,
    Refund,
    Report,
)

T = TypeVar("T", bound=Agreement | Hold | Debit | Refund)


class Movement(msgspec.Struct, frozen=True):
    """One movement on a merchant's statement; `fee_minor` is the provider's."""

    kind: str
    key: str
    ref: str
    amount_minor: int
    fee_minor: int
    currency: str
    at: datetime


class Desk:
    """One provider: its books, its clock, its faults. `deliver` sends out what is due to merchants."""

    def __init__(self, books: Books, clock: ProviderClock, faults: Faults, public_url: str) -> None:
        self.books = books
        self.clock = clock
        self.faults = faults
        self.public_url = public_url
        self.deliver: Callable[[], Awaitable[None]] | None = None
        books.now = clock.now

    def advance(self, now: datetime) -> None:
        """Decides everything whose time has come."""
        books = self.books
        while books.due and books.due[0][0] <= now:
            due_at, number, table = heappop(books.due)
            if table == "refund":
                refund = books.refunds_by_number[number]
                if refund.next_at == due_at:
                    refunds.decide(books, refund, now, self.refund_fails)
                continue
            debit = books.debits_by_number[number]
            if debit.next_at == due_at:
                debits.come_due(books, books.accounts[debit.account_id], debit, now, self.fate())

    def fate(self, later_s: float | None = None) -> debits.Fate:
        """What is in store for a debit."""
        return debits.Fate(self.faults.decline, later_s, self.faults.takes_half)

    def refund_fails(self, refund: Refund) -> str | None:
        """The code with which a refund fails."""
        rider = self.books.debits_by_number[refund.debit_number].rider
        return self.faults.refund_fails(refund.account_id, refund.asked.key, (refund.asked.debit, rider))

    def names(self, account: Account, key: str) -> tuple[str, ...]:
        """What else the object of a key is called: its rider, its hold, the provider's number. For scripted faults."""
        books, at = self.books, (account.account_id, key)
        found: list[str] = []
        if debit := books.debits.get(at):
            found += [debit.rider, debit.ref, debit.asked.hold or key]
        if hold := books.holds.get(at):
            found += [hold.rider, hold.ref]
        if agreement := books.agreements.get(at):
            found += [agreement.asked.rider, agreement.ref]
        if refund := books.refunds.get(at):
            found += [refund.ref, *self.names(account, refund.asked.debit)]
        return tuple(found)

    def names_of_asked(self, account: Account, asked: object) -> tuple[str, ...]:
        """What a request is about besides its own key."""
        match asked:
            case AskAgreement():
                return (asked.rider,)
            case AskHold():
                return (asked.agreement, *self.names(account, asked.agreement))
            case AskDebit():
                return (asked.hold or asked.agreement, *self.names(account, asked.hold or asked.agreement))
            case AskRefund():
                return (asked.debit, *self.names(account, asked.debit))
        return ()

    def seen(self, row: T, lag_s: float, now: datetime) -> T:
        """The row as a copy shows it that lags: before its last change where that is younger; raises RefusedError
        when it was not there then."""
        changed_at, before = self.books.before.get(row.number, (None, None))
        if not lag_s or changed_at is None or changed_at + timedelta(seconds=lag_s) <= now:
            return row
        if not isinstance(before, type(row)):
            raise unknown("object")
        return before


def begin_agreement(desk: Desk, account: Account, _: str, asked: AskAgreement, now: datetime) -> Agreement:
    """See agreements.begin."""
    refusal = desk.faults.refusal("agreement.begin", account.account_id, asked.key, (asked.rider,))
    return agreements.begin(desk.books, account, asked, now, refusal)


def get_agreement(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Agreement:
    """See agreements.get."""
    return agreements.get(desk.books, account, key, now)


def revoke_agreement(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Agreement:
    """See agreements.revoke."""
    return agreements.revoke(desk.books, account, key, now)


def open_hold(desk: Desk, account: Account, _: str, asked: AskHold, now: datetime) -> Hold:
    """See holds.open_hold."""
    names = desk.names_of_asked(account, asked)
    refusal = desk.faults.refusal("hold.open", account.account_id, asked.key, names)
    return holds.open_hold(desk.books, account, asked, now, refusal)


def get_hold(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Hold:
    """See holds.get."""
    return holds.get(desk.books, account, key, now)


def finish_hold(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Hold:
    """See holds.end."""
    return holds.end(desk.books, account, key, "finished", now)


def release_hold(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Hold:
    """See holds.end."""
    return holds.end(desk.books, account, key, "released", now)


def take_debit(
    desk: Desk, account: Account, _: str, asked: AskDebit, now: datetime, *, notify_url: str | None = None
) -> Debit:
    """See debits.take."""
    faults = desk.faults
    names = desk.names_of_asked(account, asked) if faults.scripted else ()
    later_s = faults.later_s("debit.take", account.account_id, asked.key, names)
    return debits.take(desk.books, account, asked, now, desk.fate(later_s), notify_url=notify_url)


def get_debit(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Debit:
    """See debits.get."""
    return debits.get(desk.books, account, key)


def nudge_debit(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Debit:
    """See debits.nudge."""
    return debits.nudge(desk.books, account, key, now, desk.fate())


def close_debit(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Debit:
    """See debits.close."""
    return debits.close(desk.books, account, key, "CLOSED", now)


def settle_elsewhere(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Debit:
    """See debits.close."""
    return debits.close(desk.books, account, key, "PAID_ELSEWHERE", now)


def request_payment(desk: Desk, account: Account, _: str, asked: AskDebit, now: datetime) -> Debit:
    """See debits.ask_rider."""
    return debits.ask_rider(desk.books, account, asked, now)


def make_refund(desk: Desk, account: Account, _: str, asked: AskRefund, now: datetime) -> Refund:
    """See refunds.refund."""
    names = desk.names_of_asked(account, asked) if desk.faults.scripted else ()
    later_s = desk.faults.later_s("refund.make", account.account_id, asked.key, names)
    return refunds.refund(desk.books, account, asked, now, desk.refund_fails, later_s)


def get_refund(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Refund:
    """See refunds.get."""
    return refunds.get(desk.books, account, key)


def report(desk: Desk, account: Account, debit: str, kind: str, now: datetime) -> None:
    """Keeps a report about a debit; the same report again changes nothing."""
    debits.get(desk.books, account, debit)
    if (account.account_id, debit, kind) not in desk.books.reports:
        desk.books.put(Report(desk.books.next_number(), account.account_id, debit, kind, now))


def movements(desk: Desk, account: Account, day: str) -> Sequence[Movement]:
    """Every movement that the statement of one civil day of the account's zone shows, right or wrong."""
    try:
        first = datetime.combine(date.fromisoformat(day), time(), ZoneInfo(account.terms.time_zone))
    except ValueError:
        raise RefusedError(422, "INVALID_REQUEST", "the day is not YYYY-MM-DD") from None
    before, start, end = ((first + timedelta(days=days)).astimezone(UTC) for days in (-1, 0, 1))
    mine = [e for e in desk.books.entries if e.account_id == account.account_id and before <= e.at < end]
    fees = {(e.ref, e.at): e.amount_minor for e in mine if e.what == "fee"}
    shown: list[Movement] = []
    for entry in mine:
        if entry.what in ("debit", "refund"):
            fee = fees.get((entry.ref, entry.at), 0)
            shown += _as_shown(desk, account, entry, fee, today=entry.at >= start)
    return shown


def _as_shown(desk: Desk, account: Account, entry: Entry, fee: int, *, today: bool) -> Sequence[Movement]:
    """The rows that a day's statement has for one movement of that day, or of the day before."""
    fault = desk.faults.of_line(account.account_id, entry.key, entry.ref)
    kind = fault.kind if fault else ""
    row = Movement(entry.what, entry.key, entry.ref, entry.amount_minor, fee, entry.currency, entry.at)
    if not today:
        return (row,) if kind == "statement_late" else ()
    match kind:
        case "statement_missing" | "statement_late":
            return ()
        case "statement_off":
            return (replace(row, amount_minor=row.amount_minor + 1),)
        case "statement_twice":
            return (row, row)
        case "statement_extra":
            return (row, replace(row, key=f"{row.key}x", ref=f"{row.ref}9"))
    return (row,)
