"""The desk: every operation a merchant may ask for, on the books, with what the script and the seed have in store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from heapq import heappop
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from service.lab.provider import agreements, debits, holds, refunds
from service.lab.provider.books import Books
from service.lab.provider.clock import ProviderClock
from service.lab.provider.faults import Faults
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import (
    Account,
    Agreement,
    AskAgreement,
    AskDebit,
    AskHold,
    AskRefund,
    Debit,
    Hold,
    Refund,
    Report,
)
from service.lab.provider.wire import StatementLine, rider_url, view


class Reduction(msgspec.Struct, frozen=True):
    """A debit's new, lower amount."""

    amount_minor: int


class Performance(msgspec.Struct, frozen=True):
    """A report about how the rider paid a debit: "completed" or "violated"."""

    debit: str
    record: str


class Desk:
    """One provider: its books, its clock, its faults."""

    def __init__(self, books: Books, clock: ProviderClock, faults: Faults, public_url: str) -> None:
        self.books = books
        self.clock = clock
        self.faults = faults
        self.public_url = public_url

    def advance(self, now: datetime) -> None:
        """Decides everything whose time has come."""
        books = self.books
        while books.due and books.due[0][0] <= now:
            due_at, number, table = heappop(books.due)
            if table == "refund":
                refund = books.refunds_by_number[number]
                if refund.next_at == due_at:
                    refunds.decide(books, refund, now)
                continue
            debit = books.debits_by_number[number]
            if debit.next_at == due_at:
                debits.decide(books, books.accounts[debit.account_id], debit, now, self.faults.decline)

    def rider_of(self, account: Account, key: str, asked: Any) -> str:
        """The rider a call is about, "" where it is about nobody known."""
        if isinstance(asked, AskAgreement):
            return asked.rider
        books, who = self.books, account.account_id
        if isinstance(asked, AskHold | AskDebit):
            found = books.agreements.get((who, asked.agreement))
            return found.asked.rider if found else ""
        at = (who, asked.debit if isinstance(asked, AskRefund | Performance) else key)
        known: Debit | Hold | None = books.debits.get(at) or books.holds.get(at)
        if known:
            return known.rider
        agreement = books.agreements.get(at)
        return agreement.asked.rider if agreement else ""

    def view(self, row: Agreement | Hold | Debit | Refund, account: Account) -> Any:
        """What the merchant sees of a row."""
        return view(row, account, self.public_url)


def begin_agreement(desk: Desk, account: Account, _: str, asked: AskAgreement, now: datetime) -> Any:
    """See agreements.begin."""
    refusal = desk.faults.refusal("agreement.begin", account.account_id, asked.key, asked.rider)
    return desk.view(agreements.begin(desk.books, account, asked, now, refusal), account)


def get_agreement(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Any:
    """See agreements.get."""
    return desk.view(agreements.get(desk.books, account, key, now), account)


def revoke_agreement(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Any:
    """See agreements.revoke."""
    return desk.view(agreements.revoke(desk.books, account, key, now), account)


def open_hold(desk: Desk, account: Account, _: str, asked: AskHold, now: datetime) -> Any:
    """See holds.open_hold."""
    rider = desk.rider_of(account, asked.key, asked)
    refusal = desk.faults.refusal("hold.open", account.account_id, asked.key, rider)
    return desk.view(holds.open_hold(desk.books, account, asked, now, refusal), account)


def get_hold(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Any:
    """See holds.get."""
    return desk.view(holds.get(desk.books, account, key, now), account)


def finish_hold(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Any:
    """See holds.end."""
    return desk.view(holds.end(desk.books, account, key, "finished", now), account)


def release_hold(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Any:
    """See holds.end."""
    return desk.view(holds.end(desk.books, account, key, "released", now), account)


def take_debit(desk: Desk, account: Account, _: str, asked: AskDebit, now: datetime) -> Any:
    """See debits.take."""
    faults = desk.faults
    rider = desk.rider_of(account, asked.key, asked) if faults.scripted else ""
    later_s = faults.later_s("debit.take", account.account_id, asked.key, rider)
    fate = debits.Fate(faults.decline, later_s)
    return desk.view(debits.take(desk.books, account, asked, now, fate), account)


def get_debit(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Any:
    """See debits.get."""
    return desk.view(debits.get(desk.books, account, key), account)


def nudge_debit(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Any:
    """See debits.nudge."""
    return desk.view(debits.nudge(desk.books, account, key, now, desk.faults.decline), account)


def reduce_debit(desk: Desk, account: Account, key: str, asked: Reduction, now: datetime) -> Any:
    """See debits.reduce."""
    return desk.view(debits.reduce(desk.books, account, key, asked.amount_minor, now), account)


def close_debit(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Any:
    """See debits.close."""
    return desk.view(debits.close(desk.books, account, key, "CLOSED", now), account)


def settle_elsewhere(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Any:
    """See debits.close."""
    return desk.view(debits.close(desk.books, account, key, "PAID_ELSEWHERE", now), account)


def request_payment(desk: Desk, account: Account, _: str, asked: AskDebit, now: datetime) -> Any:
    """See debits.ask_rider; the answer has the link on which the rider pays."""
    seen = desk.view(debits.ask_rider(desk.books, account, asked, now), account)
    if seen.state in ("accepted", "declined"):
        seen.action_url = rider_url(desk.public_url, account, "debit", asked.key)
    return seen


def make_refund(desk: Desk, account: Account, _: str, asked: AskRefund, now: datetime) -> Any:
    """See refunds.refund."""
    rider = desk.rider_of(account, asked.key, asked) if desk.faults.scripted else ""
    later_s = desk.faults.later_s("refund.make", account.account_id, asked.key, rider)
    return desk.view(refunds.refund(desk.books, account, asked, now, later_s), account)


def get_refund(desk: Desk, account: Account, key: str, _: None, now: datetime) -> Any:
    """See refunds.get."""
    return desk.view(refunds.get(desk.books, account, key), account)


def report(desk: Desk, account: Account, _: str, asked: Performance, now: datetime) -> Any:
    """Keeps a report about a debit; the same report again changes nothing."""
    if asked.record not in ("completed", "violated"):
        raise RefusedError(422, "INVALID_REQUEST", "record is neither completed nor violated")
    debits.get(desk.books, account, asked.debit)
    known = desk.books.reports.get((account.account_id, asked.debit, asked.record))
    if known is None:
        desk.books.put(Report(desk.books.next_number(), account.account_id, asked.debit, asked.record, now))
    return asked


def about_account(desk: Desk, account: Account, _: str, __: None, now: datetime) -> Any:
    """The account and its terms; moves nothing."""
    return {"account_id": account.account_id, "terms": account.terms}


def statement(desk: Desk, account: Account, day: str, _: None, now: datetime) -> Sequence[StatementLine]:
    """Every movement of one civil day of the account's zone."""
    try:
        first = datetime.combine(date.fromisoformat(day), time(), ZoneInfo(account.terms.time_zone))
    except ValueError:
        raise RefusedError(422, "INVALID_REQUEST", "the day is not YYYY-MM-DD") from None
    start, end = first.astimezone(UTC), (first + timedelta(days=1)).astimezone(UTC)
    mine = [e for e in desk.books.entries if e.account_id == account.account_id and start <= e.at < end]
    fees = {(e.ref, e.at): e.amount_minor for e in mine if e.what == "fee"}
    return [
        StatementLine(e.what, e.key, e.ref, e.amount_minor, fees.get((e.ref, e.at), 0), e.currency, e.at)
        for e in mine
        if e.what in ("debit", "refund")
    ]


class Operation(msgspec.Struct, frozen=True):
    """What an address stands for: the operation's name, the shape of its body, what runs it."""

    name: str
    shape: Any
    run: Callable[[Desk, Account, str, Any, datetime], Any]


OPERATIONS: dict[tuple[str, str, bool, str], Operation] = {
    # (method, collection, with a key in the path, verb)
    ("POST", "agreements", False, ""): Operation("agreement.begin", AskAgreement, begin_agreement),
    ("GET", "agreements", True, ""): Operation("agreement.get", None, get_agreement),
    ("POST", "agreements", True, "revoke"): Operation("agreement.revoke", None, revoke_agreement),
    ("POST", "holds", False, ""): Operation("hold.open", AskHold, open_hold),
    ("GET", "holds", True, ""): Operation("hold.get", None, get_hold),
    ("POST", "holds", True, "finish"): Operation("hold.finish", None, finish_hold),
    ("POST", "holds", True, "release"): Operation("hold.release", None, release_hold),
    ("POST", "debits", False, ""): Operation("debit.take", AskDebit, take_debit),
    ("GET", "debits", True, ""): Operation("debit.get", None, get_debit),
    ("POST", "debits", True, "nudge"): Operation("debit.nudge", None, nudge_debit),
    ("POST", "debits", True, "reduce"): Operation("debit.reduce", Reduction, reduce_debit),
    ("POST", "debits", True, "close"): Operation("debit.close", None, close_debit),
    ("POST", "debits", True, "settle_elsewhere"): Operation("debit.settle_elsewhere", None, settle_elsewhere),
    ("POST", "payments", False, ""): Operation("debit.request_payment", AskDebit, request_payment),
    ("POST", "refunds", False, ""): Operation("refund.make", AskRefund, make_refund),
    ("GET", "refunds", True, ""): Operation("refund.get", None, get_refund),
    ("POST", "reports", False, ""): Operation("performance.report", Performance, report),
    ("GET", "statements", True, ""): Operation("statement.get", None, statement),
    ("GET", "account", False, ""): Operation("account.get", None, about_account),
}
