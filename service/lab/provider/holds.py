"""Holds: an order with a cap, open while the rider rides, so that the debit at the end is allowed."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from service.lab.provider import agreements
from service.lab.provider.books import Books
from service.lab.provider.refusals import RefusedError, conflict, unknown
from service.lab.provider.rows import Account, AskHold, Hold


def open_hold(
    books: Books,
    account: Account,
    asked: AskHold,
    now: datetime,
    refusal: str | None = None,
    *,
    notify_url: str | None = None,
) -> Hold:
    """Opens the hold or says why not; a refused key may be asked again, an open one stays as it is."""
    known = books.holds.get((account.account_id, asked.key))
    if known and known.asked != asked:
        raise conflict("hold")
    if known and known.state != "refused":
        return get(books, account, asked.key, now)
    agreement = agreements.active(books, account, asked.agreement, now)
    cap = agreement.cap_minor if asked.cap_minor is None else asked.cap_minor
    if asked.currency != agreement.asked.currency:
        raise RefusedError(422, "INVALID_REQUEST", f"the agreement is in {agreement.asked.currency}")
    if cap > agreement.cap_minor:
        raise RefusedError(422, "CAP_EXCEEDED", "more than the agreement allows", cap_minor=agreement.cap_minor)
    rider = agreement.asked.rider
    code = refusal or _too_many(books, account, rider)
    state = "refused" if code else "pending" if account.terms.confirm_hold else "open"
    number = known.number if known else books.next_number()
    hold = _new(account, number, asked, rider, cap, state, now)
    hold = replace(hold, code=code, notify_url=notify_url)
    books.put(hold)
    return hold


def offer(
    books: Books,
    account: Account,
    asked: AskHold,
    rider: str,
    now: datetime,
    *,
    within: timedelta,
    notify_url: str | None = None,
) -> Hold:
    """A hold on no agreement, which the rider who was shown it confirms or refuses (`answer_by_rider`) in that time."""
    known = books.holds.get((account.account_id, asked.key))
    if known and known.asked != asked:
        raise conflict("hold")
    if known:
        return get(books, account, asked.key, now)
    cap = asked.cap_minor or 0
    if not 0 < cap <= account.terms.cap_minor:
        raise RefusedError(422, "INVALID_REQUEST", f"the amount is not within 1 and {account.terms.cap_minor}")
    hold = _new(account, books.next_number(), asked, rider, cap, "pending", now)
    hold = replace(hold, expires_at=now + within, notify_url=notify_url)
    books.put(*books.opening(rider, asked.currency, now), hold)
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


def free(books: Books, account: Account, key: str, amount_minor: int, now: datetime) -> Hold:
    """Gives up a part of what is left of an open hold; when nothing is left the hold is over."""
    hold = get(books, account, key, now)
    if hold.state != "open":
        raise RefusedError(409, "WRONG_STATE", f"the hold is {hold.state}")
    left = left_minor(books, hold)
    if not 0 < amount_minor <= left:
        raise RefusedError(422, "AMOUNT_EXCEEDED", f"{left} is left of the hold")
    over = "finished" if _debited(books, account, key) else "released"
    state = over if amount_minor == left and not _waiting(books, account, key) else "open"
    hold = replace(hold, freed_minor=hold.freed_minor + amount_minor, state=state)
    books.put(hold)
    return hold


def answer_by_rider(books: Books, account: Account, key: str, confirmed: bool, now: datetime) -> Hold:
    """The rider confirms or refuses a hold that waits for him, and it lives from then on; anything else stays as it
    is."""
    hold = get(books, account, key, now)
    if hold.state != "pending":
        return hold
    code = (_too_many(books, account, hold.rider, but=key)) if confirmed else "RIDER_REFUSED"
    if not code:
        hold = replace(hold, expires_at=now + timedelta(seconds=account.terms.hold_life_s))
    hold = replace(hold, state="refused" if code else "open", code=code)
    books.put(hold)
    return hold


def left_minor(books: Books, hold: Hold) -> int:
    """How much of the cap no debit has taken yet."""
    numbers = books.debits_of_hold.get((hold.account_id, hold.asked.key), ())
    debits = (books.debits_by_number[number] for number in numbers)
    taken = sum(d.paid_minor if d.state == "closed" else d.amount_minor for d in debits)
    return hold.cap_minor - hold.freed_minor - taken


def _new(account: Account, number: int, asked: AskHold, rider: str, cap: int, state: str, now: datetime) -> Hold:
    expires_at = now + timedelta(seconds=account.terms.hold_life_s)
    return Hold(number, account.account_id, asked, rider, cap, state, now, expires_at)


def _too_many(books: Books, account: Account, rider: str, but: str = "") -> str | None:
    terms = account.terms
    who = (account.account_id, rider)
    running = books.running_holds.get(who, set()) - {but}
    if terms.holds_max is not None and len(running) >= terms.holds_max:
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
