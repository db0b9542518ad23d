"""Disputes of a debit: what its rider complains of at the provider, and what his bank takes back, each a record of its
own under the provider's number, so that late news of one is never taken for news of another.

A dispute that is over is not opened again. Who won a chargeback may be reversed by the provider (an appeal, funds that
are withdrawn once more): then the money moves again. What a person opens has no number until the provider tells it.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from service.billing.debits import dunning
from service.billing.debits.answers import asked_about
from service.billing.debits.events import (
    DisputeClosed,
    DisputeOpened,
    Effect,
    ImpossibleEventError,
    NetAgain,
    Post,
    Publish,
    Told,
)
from service.billing.debits.money import LIVE, Step
from service.billing.debits.state import (
    FINAL,
    Debit,
    Dispute,
    DisputeKind,
    DisputeResult,
    State,
    Terms,
    kept_from_hold,
    to_be_tried,
    waits_for_hold,
)


def disputed(debit: Debit) -> bool:
    """Whether a complaint or chargeback is open."""
    return debit.dispute in ("complaint", "chargeback")


def known_dispute(debit: Debit, kind: DisputeKind, told: Told) -> Dispute | None:
    """The dispute of which a provider tells: by his number, else one of the kind that has no number yet.

    An inquiry that became a chargeback keeps its number: what is still told of the inquiry is about the chargeback.
    """
    if told.ref is not None:
        named = [one for one in debit.disputes if one.ref == told.ref and kind in (one.kind, "complaint")]
        if named:
            return next((one for one in named if one.kind == "chargeback"), named[-1])
    for one in reversed(debit.disputes):
        unnamed = one.ref is None or told.ref is None
        if unnamed and (one.kind == kind or (kind == "complaint" and one.state == "opened")):
            return one
    return None


def dispute_opened(debit: Debit, event: DisputeOpened, _now: datetime, terms: Terms) -> Step:
    """A complaint leaves the money where it is; a chargeback takes it, where the provider knows such a thing."""
    if event.kind == "chargeback" and terms.capabilities.dispute != "chargeback":
        raise ImpossibleEventError(debit, event)
    told = event.told
    known = None if told is None else known_dispute(debit, event.kind, told)
    if known is not None:
        assert told is not None
        debit, known, money = _amount_told(debit, known, event, told)
        again, more = _told_again(debit, known, event.fee_minor, told)
        return again, (*money, *more)
    if told is None and disputed(debit):
        return debit, ()
    ref, at = (None, None) if told is None else (told.ref, told.at)
    about = _all_of(debit, known_there=told is not None) if event.amount_minor is None else event.amount_minor
    amount_minor, fee_minor = about if event.kind == "chargeback" else 0, event.fee_minor or 0
    made = Dispute(len(debit.disputes) + 1, event.kind, "opened", amount_minor, 0, fee_minor, ref, at)
    fees = [Post("dispute_fee", fee_minor)] if fee_minor else []
    return _with(debit, made), (Publish("dispute.opened"), *fees)


def dispute_closed(debit: Debit, event: DisputeClosed, now: datetime, terms: Terms) -> Step:
    """Won: the money is back; lost after that: taken again. Collection goes on where it was stopped, and what was not
    given back meanwhile now is."""
    known, told = _ended(debit, event), event.told
    if known is None:
        return debit, ()
    if told is not None and _older(known, told):
        return debit, ()
    reversible = told is not None and known.kind == "chargeback" and "resolved" not in (known.state, event.result)
    if known.state == event.result or (known.state != "opened" and not reversible):
        return _told_again(debit, known, event.fee_minor, told) if told is not None else (debit, ())
    ended, money = _given_back(known, event.result)
    ended, fees = _fee(ended, event.fee_minor, told)
    ref, at = (known.ref, known.at) if told is None else (told.ref or known.ref, told.at or known.at)
    closed = _with(debit, replace(ended, state=event.result, ref=ref, at=at))
    if not disputed(closed):
        closed = to_be_noticed_again(closed)
        if to_be_tried(closed) and closed.due_at is None and not closed.suspended:
            closed = replace(closed, due_at=goes_on_at(closed, now, terms))
    effects: list[Effect] = [Publish("dispute.closed"), *money, *fees]
    if closed.state in FINAL:
        effects.append(NetAgain())
    return closed, tuple(effects)


def to_be_noticed_again(debit: Debit) -> Debit:
    """A debit that stood still is not reported by the notice from before: its rider is told again, and waited for."""
    told = debit.dunned == "noticed" and debit.record is None
    return replace(debit, dunned="overdue_reminded") if told else debit


def goes_on_at(debit: Debit, now: datetime, terms: Terms) -> datetime | None:
    """When a debit that stood still is next looked at."""
    if debit.state is State.NEW or waits_for_hold(debit) or kept_from_hold(debit):
        return now
    if debit.state is State.RETRY_WAIT:
        return dunning.in_hours(now, terms.zone, terms.calendar)
    return dunning.poll_at(0, now) if asked_about(debit, terms) else None


def _ended(debit: Debit, event: DisputeClosed) -> Dispute | None:
    """Of which dispute an end is told; a person means the one that is open, and a chargeback first."""
    if event.told is None:
        still_open = [one for one in debit.disputes if one.state == "opened"]
        return next((one for one in still_open if one.kind == "chargeback"), still_open[-1] if still_open else None)
    kind: DisputeKind = "complaint" if event.result == "resolved" else "chargeback"
    known = known_dispute(debit, kind, event.told)
    return known if known is None or known.kind == kind else None


def taken_by_banks(debit: Debit) -> Step:
    """What chargebacks take now, of what they are about: those that stand, the first before the others, as far as there
    is money that the rider has not back. A chargeback that is told before the payment, or before the end of an earlier
    one, takes when that is told.
    """
    left = debit.paid_minor - debit.refunded_minor - debit.disputed_minor
    taken: dict[int, int] = {}
    for one in sorted(debit.disputes, key=lambda dispute: dispute.number):
        stands = one.kind == "chargeback" and one.state in ("opened", "lost")
        more = min(one.amount_minor - one.taken_minor, left) if stands else 0
        if more > 0:
            taken[one.number] = more
            left -= more
    if not taken:
        return debit, ()
    disputes = tuple(replace(one, taken_minor=one.taken_minor + taken.get(one.number, 0)) for one in debit.disputes)
    more = sum(taken.values())
    return replace(debit, disputes=disputes, disputed_minor=debit.disputed_minor + more), (Post("chargeback", more),)


def _all_of(debit: Debit, *, known_there: bool) -> int:
    """What a chargeback is about of which nobody says how much: what the rider has paid and has not back, else what is
    being taken from him; `known_there`: its provider tells of it, so that a payment of which he has not told is on its
    way, whatever the debit waits for."""
    if debit.paid_minor:
        return debit.paid_minor - debit.refunded_minor
    if debit.state in LIVE:
        return debit.asked_minor
    return debit.amount_minor if known_there else 0


def _given_back(known: Dispute, result: DisputeResult) -> tuple[Dispute, list[Effect]]:
    """The money of a chargeback that was won: it is ours again. Lost, it is with the bank for good."""
    back = known.taken_minor if result == "won" else 0
    return (replace(known, taken_minor=0), [Post("chargeback_won", back)]) if back else (known, [])


def _amount_told(
    debit: Debit, known: Dispute, event: DisputeOpened, told: Told
) -> tuple[Debit, Dispute, tuple[Effect, ...]]:
    """A chargeback that a person has opened, about all that was paid, once its provider says how much it is about."""
    by_hand = known.ref is None and told.ref is not None and known.state in ("opened", "lost")
    if not by_hand or known.kind != "chargeback" or event.amount_minor in (None, known.amount_minor):
        return debit, known, ()
    assert event.amount_minor is not None
    back = max(known.taken_minor - event.amount_minor, 0)
    named = replace(known, amount_minor=event.amount_minor, taken_minor=known.taken_minor - back)
    effects: list[Effect] = [Post("chargeback_won", back)] if back else []
    if back and debit.state in FINAL:
        effects.append(NetAgain())
    return _with(debit, named), named, tuple(effects)


def _told_again(debit: Debit, known: Dispute, fee_minor: int | None, told: Told) -> Step:
    """What is told of a dispute whose state is known: its number, if it had none, its fee, and as of when."""
    if _older(known, told):
        return debit, ()
    changed, fees = _fee(known, fee_minor, told)
    over = known.state != "opened"
    changed = replace(changed, ref=known.ref or told.ref, at=(told.at or known.at) if over or fees else known.at)
    if changed == known:
        return debit, ()
    disputes = tuple(changed if one is known else one for one in debit.disputes)
    return replace(debit, disputes=disputes), tuple(fees)


def _fee(known: Dispute, fee_minor: int | None, told: Told | None) -> tuple[Dispute, list[Effect]]:
    """The fee is told as what the provider keeps in all: only the difference is posted. Where two messages of one
    instant differ, it is the higher."""
    same_instant = told is not None and told.at is not None and told.at == known.at
    if fee_minor is None or (same_instant and fee_minor < known.fee_minor):
        return known, []
    more = fee_minor - known.fee_minor
    if not more:
        return known, []
    post = Post("dispute_fee", more) if more > 0 else Post("dispute_fee_back", -more)
    return replace(known, fee_minor=fee_minor), [post]


def _older(known: Dispute, told: Told) -> bool:
    return known.at is not None and told.at is not None and told.at < known.at


def _with(debit: Debit, changed: Dispute) -> Debit:
    """The debit with a dispute whose state has changed. Of several that are over, it counts whether one was lost, then
    whether one was won: in which order their ends were told makes no difference."""
    disputes = (*(one for one in debit.disputes if one.number != changed.number), changed)
    open_now = {one.kind for one in disputes if one.state == "opened"}
    standing: DisputeKind | DisputeResult
    if open_now:
        standing = "chargeback" if "chargeback" in open_now else "complaint"
    else:
        states = {one.state for one in disputes}
        standing = "lost" if "lost" in states else "won" if "won" in states else "resolved"
    taken = sum(one.taken_minor for one in disputes)
    return replace(debit, disputes=disputes, dispute=standing, disputed_minor=taken)
