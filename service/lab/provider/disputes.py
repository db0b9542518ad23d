"""Complaints and chargebacks: a rider holds something against a debit."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from service.lab.provider import debits
from service.lab.provider.books import Books
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account, Dispute, Entry

ENDS = {"complaint": ("resolved",), "chargeback": ("won", "lost")}


class AskDispute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dispute about the debit of a key is opened, or ends: a complaint resolved, a chargeback won (by the merchant)
    or lost. `amount_minor` None: all that was paid and is not disputed yet, though some of it was given back (a bank
    takes the payment: docs.stripe.com/disputes/how-disputes-work); of a complaint all that was asked for, as a
    rider may complain before he has paid. `another`: one may be opened after one that is over, as banks do:
    https://support.stripe.com/questions/receiving-multiple-disputes-per-payment-faq."""

    account_id: str
    debit: str
    kind: Literal["complaint", "chargeback"]
    state: Literal["open", "resolved", "won", "lost"] = "open"
    amount_minor: int | None = None
    another: bool = False


def dispute(books: Books, account: Account, asked: AskDispute, now: datetime) -> Dispute:
    """Opens or ends it; a chargeback's money is with the bank while it is open. The same again changes nothing."""
    debit = debits.get(books, account, asked.debit)
    known = next((made for made in reversed(books.disputes_of(debit.number)) if made.kind == asked.kind), None)
    if known and known.state == asked.state:
        return known
    if asked.state == "open":
        if known and not asked.another:
            raise RefusedError(409, "WRONG_STATE", f"the {asked.kind} is {known.state}")
        return _open(books, account, asked, now)
    if known is None or known.state != "open" or asked.state not in ENDS[asked.kind]:
        raise RefusedError(409, "WRONG_STATE", f"no {asked.kind} can be {asked.state} now")
    ended = replace(known, state=asked.state)
    to = f"merchant:{account.account_id}" if asked.state == "won" else "outside"
    books.put(ended, *_moved(books, ended, asked.debit, "bank", to, now))
    return ended


def _open(books: Books, account: Account, asked: AskDispute, now: datetime) -> Dispute:
    debit = debits.get(books, account, asked.debit)
    before = (made for made in books.disputes_of(debit.number) if made.kind == asked.kind == "chargeback")
    left = debit.paid_minor - sum(made.amount_minor for made in before if made.state != "won")
    if asked.kind == "complaint":
        left = debit.amount_minor
    amount = left if asked.amount_minor is None else asked.amount_minor
    if not 0 < amount <= left:
        raise RefusedError(422, "INVALID_REQUEST", f"amount_minor is not within 1 and {left}")
    currency = debit.asked.currency
    made = Dispute(books.next_number(), account.account_id, debit.number, asked.kind, "open", amount, currency, now)
    books.put(made, *_moved(books, made, asked.debit, f"merchant:{account.account_id}", "bank", now))
    return made


def _moved(books: Books, made: Dispute, key: str, payer: str, payee: str, now: datetime) -> tuple[Entry, ...]:
    """The money of a chargeback; a complaint moves none."""
    if made.kind == "complaint":
        return ()
    what = ("chargeback", made.account_id, key, made.ref, payer, payee, made.amount_minor, made.currency, now)
    return (Entry(books.next_number(), *what),)
