"""Debits: a rider's wallet pays a merchant, now, later, partly, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from service.lab.provider import agreements, holds
from service.lab.provider.books import Books
from service.lab.provider.refusals import RefusedError, conflict, unknown
from service.lab.provider.rows import Account, AskDebit, Debit, Entry, Hold, Row

RETRYABLE = frozenset({"BALANCE_NOT_ENOUGH", "CARD_BALANCE_NOT_ENOUGH", "DAY_LIMIT", "MONTH_LIMIT", "NO_PAYMENT_MEANS"})
RIDER_MUST_PAY = "RIDER_MUST_PAY"

Decline = Callable[[Debit], str | None]
"""The code with which the wallet declines a debit this time whatever its balance, or None."""


class Fate(msgspec.Struct, frozen=True):
    """What was written for a debit: that its tries are declined or take only half, that it is accepted and decided
    `later_s` seconds on."""

    decline: Decline
    later_s: float | None = None
    takes_half: Callable[[Debit], bool] = lambda _: False


def take(
    books: Books, account: Account, asked: AskDebit, now: datetime, fate: Fate, *, notify_url: str | None = None
) -> Debit:
    """A debit by key: the same key with the same request never debits twice; a retryable decline may be tried again."""
    known = remembered(books, account, asked, now)
    if known and not _may_try_again(account, known):
        return known
    if known and known.asked.hold:
        _open_hold(books, account, known.asked, now)
    rider = known.rider if known else _allowed(books, account, asked, now)
    debit = known or replace(_new(books, account, asked, rider, now), notify_url=notify_url)
    terms = account.terms
    wait_s = fate.later_s if fate.later_s is not None else terms.decide_s
    if wait_s is None and terms.provider_retries:
        wait_s = 0.0
    if wait_s is None:
        return decide(books, account, debit, now, fate)
    due = now + timedelta(seconds=wait_s)
    debit = replace(debit, state="accepted", code=None, next_at=due, updated_at=now)
    books.put(*books.opening(rider, asked.currency, now), debit)
    return debit


def decide(books: Books, account: Account, debit: Debit, now: datetime, fate: Fate) -> Debit:
    """The wallet pays what it can and may; a provider that retries by itself plans its next try."""
    rest = debit.amount_minor - debit.paid_minor
    opening = books.opening(debit.rider, debit.asked.currency, now)
    wallet = books.wallet(debit.rider, debit.asked.currency)
    code = _ended(books, account, debit, now) or fate.decline(debit)
    wanted = (rest + 1) // 2 if not code and fate.takes_half(debit) else rest
    have = 0 if code else min(wallet.balance_minor, wanted)
    paid = have if have == wanted or account.terms.partial else 0
    debit = replace(debit, paid_minor=debit.paid_minor + paid, tries=debit.tries + 1, updated_at=now)
    if paid:
        debit = replace(debit, paid_at=now)
    if paid == rest:
        debit = replace(debit, state="paid", code=None, next_at=None)
    else:
        debit = _unpaid(account, debit, code or "BALANCE_NOT_ENOUGH", now, partly=bool(paid))
    moved: list[Row] = []
    if paid:
        moved.append(replace(wallet, balance_minor=wallet.balance_minor - paid))
        moved += _payment(books, account, debit, f"wallet:{debit.rider}", paid, now)
    books.put(*opening, debit, *moved, *_hold_over(books, debit))
    return debit


def come_due(books: Books, account: Account, debit: Debit, now: datetime, fate: Fate) -> None:
    """What an unpaid debit's clock has in store: the next try of an accepted one, the end of a declined one."""
    if debit.state == "declined":
        _close(books, debit, "GIVEN_UP", now)
    elif debit.state == "accepted":
        decide(books, account, debit, now, fate)


def get(books: Books, account: Account, key: str) -> Debit:
    """The debit as it is now."""
    debit = books.debits.get((account.account_id, key))
    if debit is None:
        raise unknown("debit")
    return debit


def nudge(books: Books, account: Account, key: str, now: datetime, fate: Fate) -> Debit:
    """Tries an accepted debit at once, whatever the plan was."""
    debit = get(books, account, key)
    if not account.terms.nudge:
        raise RefusedError(403, "NOT_POSSIBLE", "this account's debits are not nudged")
    return decide(books, account, debit, now, fate) if debit.state == "accepted" else debit


def reduce(books: Books, account: Account, key: str, amount_minor: int, now: datetime) -> Debit:
    """Lowers an unpaid debit, down to nothing, which closes it."""
    debit = get(books, account, key)
    if debit.amount_minor == amount_minor:
        return debit
    _must_be_unpaid(debit)
    terms = account.terms
    if not (terms.reduce_pending if debit.state == "accepted" else terms.reduce_declined):
        raise RefusedError(403, "NOT_POSSIBLE", f"this account's debits are not reduced while {debit.state}")
    if not debit.paid_minor <= amount_minor < debit.amount_minor:
        raise RefusedError(422, "INVALID_REQUEST", f"amount_minor is not within {debit.paid_minor} and the debit's")
    if amount_minor == debit.paid_minor:
        return _close(books, debit, "REDUCED", now)
    debit = _lowered(debit, amount_minor)
    books.put(replace(debit, updated_at=now))
    return debit


def close(books: Books, account: Account, key: str, code: str, now: datetime) -> Debit:
    """Stops an unpaid debit for good: closed by the merchant ("CLOSED") or paid elsewhere ("PAID_ELSEWHERE")."""
    debit = get(books, account, key)
    if debit.state == "closed":
        return debit
    if not account.terms.close and code == "CLOSED":
        raise RefusedError(403, "NOT_POSSIBLE", "this account's debits are not closed")
    _must_be_unpaid(debit)
    return _close(books, debit, code, now)


def ask_rider(
    books: Books,
    account: Account,
    asked: AskDebit,
    now: datetime,
    *,
    rider: str | None = None,
    notify_url: str | None = None,
) -> Debit:
    """A debit that waits for the rider to pay it himself; an unpaid one goes on as it is and may be paid by him too.

    `rider` is who was shown it, where it is on no agreement.
    """
    known = remembered(books, account, asked, now) or _to_be_paid(books, account, asked)
    if known:
        return known
    rider = rider or agreements.get(books, account, asked.agreement, now).asked.rider
    debit = _new(books, account, asked, rider, now)
    debit = replace(debit, state="declined", code=RIDER_MUST_PAY, notify_url=notify_url)
    books.put(*books.opening(rider, asked.currency, now), debit)
    return debit


def pay_by_rider(books: Books, account: Account, key: str, now: datetime) -> Debit:
    """The rider pays what is left from his other means, not from the wallet."""
    debit = get(books, account, key)
    if debit.state not in ("accepted", "declined"):
        return debit
    rest = debit.amount_minor - debit.paid_minor
    debit = replace(debit, state="paid", code=None, paid_minor=debit.amount_minor, next_at=None, updated_at=now)
    debit = replace(debit, paid_at=now)
    books.put(debit, *_payment(books, account, debit, "outside", rest, now), *_hold_over(books, debit))
    return debit


def remembered(books: Books, account: Account, asked: AskDebit, now: datetime) -> Debit | None:
    """The debit of this key while the provider remembers keys; the key with another request is a conflict.

    A declined debit may be tried again for less, where the account's debits can be reduced.
    """
    known = books.debits.get((account.account_id, asked.key))
    window = account.terms.key_window_s
    if known is None or account.terms.forgets_keys:
        return None
    if window is not None and known.created_at + timedelta(seconds=window) <= now:
        return None
    if known.asked == asked:
        return known
    lower = _lowered(known, asked.amount_minor)
    less = lower.asked == asked and known.paid_minor < asked.amount_minor < known.amount_minor
    if less and account.terms.reduce_declined and _may_try_again(account, known):
        return lower
    raise conflict("debit")


def _to_be_paid(books: Books, account: Account, asked: AskDebit) -> Debit | None:
    """What the rider is shown where keys are ignored: that takes nothing, so that what is unpaid is not doubled, nor
    what he has paid asked for in its place."""
    there = books.debits.get((account.account_id, asked.key)) if account.terms.forgets_keys else None
    return there if there is not None and there.asked == asked and there.state != "closed" else None


def _lowered(debit: Debit, amount_minor: int) -> Debit:
    """The debit of a lower amount: later calls under its key must ask for that."""
    return replace(debit, amount_minor=amount_minor, asked=replace(debit.asked, amount_minor=amount_minor))


def _may_try_again(account: Account, known: Debit) -> bool:
    return known.state == "declined" and known.code in RETRYABLE and not account.terms.new_key_after_decline


def _allowed(books: Books, account: Account, asked: AskDebit, now: datetime) -> str:
    """The rider of an agreement or hold on which this debit may be made; RefusedError otherwise."""
    terms = account.terms
    if asked.amount_minor < terms.amount_min_minor:
        raise RefusedError(422, "INVALID_REQUEST", f"amount_minor is less than {terms.amount_min_minor}")
    if asked.hold is None:
        if terms.hold_needed:
            raise RefusedError(422, "HOLD_NEEDED", "debits of this account are made on a hold")
        agreement = agreements.active(books, account, asked.agreement, now)
        _check(asked, agreement.asked.currency, agreement.cap_minor)
        return agreement.asked.rider
    hold = _open_hold(books, account, asked, now)
    if terms.revoking_ends_debits:
        agreements.active(books, account, asked.agreement, now)
    if not terms.further_debits and books.debits_of_hold.get((account.account_id, asked.hold)):
        raise RefusedError(403, "NOT_POSSIBLE", "one debit on a hold")
    _check(asked, hold.asked.currency, holds.left_minor(books, hold))
    return hold.rider


def _ended(books: Books, account: Account, debit: Debit, now: datetime) -> str | None:
    """The code with which a debit is declined whose agreement is over, where that ends debits."""
    if not account.terms.revoking_ends_debits or not debit.asked.agreement:
        return None
    state = agreements.get(books, account, debit.asked.agreement, now).state
    return None if state == "active" else f"AGREEMENT_{state.upper()}"


def _open_hold(books: Books, account: Account, asked: AskDebit, now: datetime) -> Hold:
    hold = holds.get(books, account, asked.hold or "", now)
    if hold.asked.agreement != asked.agreement:
        raise RefusedError(422, "INVALID_REQUEST", "the hold is on another agreement")
    if hold.state != "open":
        raise RefusedError(402, "HOLD_CLOSED", f"the hold is {hold.state}")
    return hold


def _check(asked: AskDebit, currency: str, cap_minor: int) -> None:
    if asked.currency != currency:
        raise RefusedError(422, "INVALID_REQUEST", f"the agreement is in {currency}")
    if asked.amount_minor > cap_minor:
        raise RefusedError(422, "CAP_EXCEEDED", "more than the cap", cap_minor=cap_minor)


def _new(books: Books, account: Account, asked: AskDebit, rider: str, now: datetime) -> Debit:
    number, retries = books.next_number(), account.terms.provider_retries
    return Debit(number, account.account_id, asked, rider, asked.amount_minor, "accepted", now, now, retries=retries)


def _hold_over(books: Books, debit: Debit) -> Iterator[Hold]:
    """The hold that the debit ends, once it is paid."""
    hold = books.holds.get((debit.account_id, debit.asked.hold or ""))
    if hold and debit.asked.ends_hold and debit.state == "paid" and hold.state == "open":
        yield replace(hold, state="finished")


def _unpaid(account: Account, debit: Debit, code: str, now: datetime, *, partly: bool) -> Debit:
    terms = account.terms
    ends_at = None if terms.give_up_s is None else debit.created_at + timedelta(seconds=terms.give_up_s)
    if not debit.retries and not partly:
        last = ends_at if not terms.new_key_after_decline else None
        return replace(debit, state="declined", code=code, next_at=last)
    if ends_at is not None and ends_at <= now:
        return replace(debit, state="closed", code="GIVEN_UP", next_at=None)
    wait = terms.retry_s[min(debit.tries, len(terms.retry_s)) - 1]
    return replace(debit, state="accepted", code=code, next_at=now + timedelta(seconds=wait))


def _must_be_unpaid(debit: Debit) -> None:
    if debit.state == "paid":
        raise RefusedError(409, "ALREADY_PAID", "the debit is paid")
    if debit.state == "closed":
        raise RefusedError(409, "DEBIT_CLOSED", "the debit is closed")


def _close(books: Books, debit: Debit, code: str, now: datetime) -> Debit:
    if debit.paid_minor:  # What was taken stays taken: the debit ends as paid, at that amount.
        debit = replace(debit, state="paid", amount_minor=debit.paid_minor, code=None, next_at=None, updated_at=now)
    else:
        debit = replace(debit, state="closed", code=code, next_at=None, updated_at=now)
    books.put(debit)
    return debit


def _payment(
    books: Books, account: Account, debit: Debit, payer: str, amount_minor: int, now: datetime
) -> Iterator[Entry]:
    """The entries of money that reaches the merchant, and of the provider's fee."""
    merchant = f"merchant:{account.account_id}"
    about = (account.account_id, debit.asked.key, debit.ref)
    currency = debit.asked.currency
    yield Entry(books.next_number(), "debit", *about, payer, merchant, amount_minor, currency, now)
    fee = amount_minor * account.terms.fee_per_mille // 1000
    if fee:
        yield Entry(books.next_number(), "fee", *about, merchant, "fees", fee, currency, now)
