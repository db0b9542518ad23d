"""Agreements of riders with a merchant, and the rider's side of them."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.lab.provider.books import Books
from service.lab.provider.refusals import RefusedError, conflict, unknown
from service.lab.provider.rows import Account, Agreement, AskAgreement


def begin(books: Books, account: Account, asked: AskAgreement, now: datetime, refusal: str | None = None) -> Agreement:
    """Signs an agreement, or waits for the rider to confirm; `refusal` is the code with which the provider declines."""
    known = books.agreements.get((account.account_id, asked.key))
    if known:
        if known.asked != asked:
            raise conflict("agreement")
        return known
    if asked.cap_minor is not None and asked.cap_minor < 0:
        raise RefusedError(422, "INVALID_REQUEST", "cap_minor is negative")
    cap = account.terms.cap_minor if asked.cap_minor is None else min(asked.cap_minor, account.terms.cap_minor)
    state = "refused" if refusal else "pending" if account.terms.confirm_agreement else "active"
    agreement = Agreement(books.next_number(), account.account_id, asked, cap, state, now, refusal, updated_at=now)
    books.put(*books.opening(asked.rider, asked.currency, now), agreement)
    return agreement


def get(books: Books, account: Account, key: str, now: datetime) -> Agreement:
    """The agreement as it is now; one past its day has expired."""
    agreement = books.agreements.get((account.account_id, key))
    if agreement is None:
        raise unknown("agreement")
    if agreement.state == "active" and agreement.valid_until and agreement.valid_until <= now:
        agreement = replace(agreement, state="expired", updated_at=agreement.valid_until)
        books.put(agreement)
    return agreement


def revoke(books: Books, account: Account, key: str, now: datetime) -> Agreement:
    """Ends the agreement, by either side; what is on hold may still be debited."""
    agreement = get(books, account, key, now)
    if agreement.state in ("active", "pending"):
        agreement = replace(agreement, state="revoked", updated_at=now)
        books.put(agreement)
    return agreement


def answer_by_rider(books: Books, account: Account, key: str, confirmed: bool, now: datetime) -> Agreement:
    """The rider confirms or refuses what waits for him; anything else stays as it is."""
    agreement = get(books, account, key, now)
    if agreement.state == "pending":
        state, code = ("active", None) if confirmed else ("refused", "RIDER_REFUSED")
        agreement = replace(agreement, state=state, code=code, updated_at=now)
        books.put(agreement)
    return agreement


def limit(
    books: Books, account: Account, key: str, now: datetime, *, cap_minor: int | None, valid_until: datetime | None
) -> Agreement:
    """The provider changes what an agreement allows: its cap, or its last day."""
    agreement = get(books, account, key, now)
    agreement = replace(
        agreement,
        cap_minor=agreement.cap_minor if cap_minor is None else cap_minor,
        valid_until=valid_until or agreement.valid_until,
    )
    books.put(agreement)
    return agreement


def active(books: Books, account: Account, key: str, now: datetime) -> Agreement:
    """The agreement, if new business may be done on it; raises RefusedError otherwise."""
    agreement = books.agreements.get((account.account_id, key))
    if agreement is None:
        raise RefusedError(422, "AGREEMENT_UNKNOWN", "no agreement has this key")
    agreement = get(books, account, key, now)
    if agreement.state != "active":
        raise RefusedError(402, f"AGREEMENT_{agreement.state.upper()}", f"the agreement is {agreement.state}")
    return agreement
