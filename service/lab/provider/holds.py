"""Holds: an order with a cap, open while the rider rides, so that the debit at the end is allowed."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from service.lab.provider import agreements
from service.lab.provider.books import Books
from service.lab.provider.refusals import RefusedError, conflict, unknown
from service.lab.provider.rows import Account, AskHold, Hold


def open_hold(books: Books, account: Account, asked: AskHold, now: datetime, refusal: str | None = None) -> Hold:
    """Opens the hold or says why not; a refused key may be asked again, an open one stays as it is."""
    known = books.holds.get((account.account_id, asked.key))
    if known and known.asked != asked:
        raise conflict("hold")
    if known and known.state != "refused":
        return get(books, account, asked.key, now)
    agreement = agreements.active(books, account, asked.agreement, now)
    terms = account.terms
    cap = agreement.cap_minor if asked.cap_minor is None else asked.cap_minor
    if asked.currency != agreement.asked.currency:
        raise RefusedError(422, "INVALID_REQUEST", f"the agreement is in {agreement.asked.currency}")
    if cap > agreement.cap_minor:
        raise RefusedError(422, "CAP_EXCEEDED", "more than the agreement allows", cap_minor=agreement.cap_minor)
    code = refusal or _too_many(books, account, asked)
    hold = Hold(
        number=known.number if known else books.next_number(),
        account_id=account.account_id,
        asked=asked,
        rider=agreement.asked.rider,
        cap_minor=cap,
        state="refused" if code else "pending" if terms.confirm_hold else "open",
        created_at=now,
        expires_at=now + timedelta(seconds=terms.hold_life_s),
        code=code,
    )
    books.put(hold)
    return hold


def get(books: Books, account: Account, key: str, now: datetime) -> Hold:
    """The hold as it is now; one past its life has expired."""
    hold = books.holds.get((account.account_id, key))
    if hold is None:
        raise unknown("hold")
    if hold.state in ("open", "pending") and hold.expires_at <= now:
        hold = replace(hold, state="expired")
        books.put(hold)
    return hold


def end(books: Books, account: Account, key: str, state: str, now: datetime) -> Hold:
    """Finishes ("finished") or cancels ("released") the hold; refused while a debit on it may still be taken."""
    hold = get(books, account, key, now)
    if hold.state == state or hold.state in ("expired", "refused"):
        return hold
    if hold.state in ("finished", "released"):
        raise RefusedError(409, "WRONG_STATE", f"the hold is {hold.state}")
    if state == "released" and _debited(books, account, key):
        raise RefusedError(409, "WRONG_STATE", "a debit was made on this hold")
    if _waiting(books, account, key):
        raise RefusedError(409, "DEBIT_NOT_FINAL", "a debit on this hold is not final")
    hold = replace(hold, state=state)
    books.put(hold)
    return hold


def answer_by_rider(books: Books, account: Account, key: str, confirmed: bool, now: datetime) -> Hold:
    """The rider confirms or refuses a hold that waits for him; anything else stays as it is."""
    hold = get(books, account, key, now)
    if hold.state == "pending":
        hold = replace(hold, state="open" if confirmed else "refused", code=None if confirmed else "RIDER_REFUSED")
        books.put(hold)
    return hold


def left_minor(books: Books, hold: Hold) -> int:
    """How much of the cap no debit has taken yet."""
    numbers = books.debits_of_hold.get((hold.account_id, hold.asked.key), ())
    debits = (books.debits_by_number[number] for number in numbers)
    return hold.cap_minor - sum(d.paid_minor if d.state == "closed" else d.amount_minor for d in debits)


def _too_many(books: Books, account: Account, asked: AskHold) -> str | None:
    terms = account.terms
    who = (account.account_id, asked.agreement)
    if terms.holds_max is not None and len(books.running_holds.get(who, ())) >= terms.holds_max:
        return "TOO_MANY_HOLDS"
    if terms.unpaid_max is not None and len(books.unpaid_debits.get(who, ())) > terms.unpaid_max:
        return "TOO_MANY_UNPAID"
    return None


def _debited(books: Books, account: Account, key: str) -> bool:
    numbers = books.debits_of_hold.get((account.account_id, key), ())
    return any(books.debits_by_number[number].paid_minor for number in numbers)


def _waiting(books: Books, account: Account, key: str) -> bool:
    numbers = books.debits_of_hold.get((account.account_id, key), ())
    return any(books.debits_by_number[number].state == "accepted" for number in numbers)
