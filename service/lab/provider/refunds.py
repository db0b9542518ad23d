"""Refunds: money goes back from the merchant to the rider's wallet, never more than was paid."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec.structs import replace

from service.lab.provider import debits
from service.lab.provider.books import Books
from service.lab.provider.refusals import RefusedError, conflict, unknown
from service.lab.provider.rows import Account, AskRefund, Debit, Entry, Refund

RETURNED = "REFUND_RETURNED"
"""The code of a refund that had been paid."""
Fails = Callable[[Refund], str | None]
"""The code with which a refund fails this time, or None."""


def refund(
    books: Books, account: Account, asked: AskRefund, now: datetime, fails: Fails, later_s: float | None = None
) -> Refund:
    """A refund by key: the same key refunds once, one that failed is tried again. Decided at once, or as slowly as the
    terms or the script say."""
    known = None if account.terms.forgets_keys else books.refunds.get((account.account_id, asked.key))
    if known and known.asked != asked:
        raise conflict("refund")
    if known and (known.state != "failed" or known.code == RETURNED):
        return known
    debit = debits.get(books, account, asked.debit)
    _check(books, account, debit, asked, now)
    wait_s = account.terms.refund_s if later_s is None else later_s
    number = known.number if known else books.next_number()
    made = Refund(number, account.account_id, asked, debit.number, debit.asked.currency, "pending", now)
    if not wait_s:
        return decide(books, made, now, fails)
    made = replace(made, next_at=now + timedelta(seconds=wait_s))
    books.put(made)
    return made


def decide(books: Books, made: Refund, now: datetime, fails: Fails) -> Refund:
    """The money goes back, or the refund fails."""
    code = fails(made)
    if code:
        made = replace(made, state="failed", code=code, next_at=None)
        books.put(made)
        return made
    debit = books.debits_by_number[made.debit_number]
    amount = made.asked.amount_minor
    opening = books.opening(debit.rider, made.currency, now)
    wallet = books.wallet(debit.rider, made.currency)
    about = (made.account_id, made.asked.key, made.ref)
    parties = (f"merchant:{made.account_id}", f"wallet:{debit.rider}")
    made = replace(made, state="paid", code=None, next_at=None)
    books.put(
        *opening,
        made,
        replace(debit, refunded_minor=debit.refunded_minor + amount, updated_at=now),
        replace(wallet, balance_minor=wallet.balance_minor + amount),
        Entry(books.next_number(), "refund", *about, *parties, amount, made.currency, now),
    )
    return made


def come_back(books: Books, made: Refund, now: datetime) -> Refund:
    """The rider's bank does not take what was given back: it is the merchant's again, for good."""
    debit = books.debits_by_number[made.debit_number]
    wallet, amount = books.wallet(debit.rider, made.currency), made.asked.amount_minor
    about = (made.account_id, made.asked.key, made.ref)
    parties = (f"wallet:{debit.rider}", f"merchant:{made.account_id}")
    made = replace(made, state="failed", code=RETURNED)
    books.put(
        made,
        replace(debit, refunded_minor=debit.refunded_minor - amount, updated_at=now),
        replace(wallet, balance_minor=wallet.balance_minor - amount),
        Entry(books.next_number(), "refund_returned", *about, *parties, amount, made.currency, now),
    )
    return made


def get(books: Books, account: Account, key: str) -> Refund:
    """The refund as it is now."""
    made = books.refunds.get((account.account_id, key))
    if made is None:
        raise unknown("refund")
    return made


def _check(books: Books, account: Account, debit: Debit, asked: AskRefund, now: datetime) -> None:
    asked_before = (books.refunds_by_number[number] for number in books.refunds_of_debit.get(debit.number, ()))
    given = sum(made.asked.amount_minor for made in asked_before if made.state != "failed")
    if any(dispute.kind == "chargeback" and dispute.state != "won" for dispute in books.disputes_of(debit.number)):
        raise RefusedError(409, "REFUND_DISPUTED", "a chargeback took the money")
    window = account.terms.refund_window_s
    if asked.amount_minor <= 0:
        raise RefusedError(422, "INVALID_REQUEST", "amount_minor is not above 0")
    if given + asked.amount_minor > debit.paid_minor:
        raise RefusedError(422, "REFUND_TOO_MUCH", f"{debit.paid_minor - given} can still be refunded")
    if window is not None and debit.updated_at + timedelta(seconds=window) < now:
        raise RefusedError(422, "REFUND_TOO_LATE", "the refund window is over")
