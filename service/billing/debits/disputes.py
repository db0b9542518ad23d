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
        if unnamed and (one.kind == kind or (kind == "complaint" and one.state == "opened")) and not _past(one, told):
            return one
    return None


def _past(one: Dispute, told: Told) -> bool:
    """Whether a dispute is over by a person's word, and what is told is open: it is another one. What was lost by such
    a word is told late: the bank has that money, and takes it once."""
    return one.ref is None and told.ref is not None and one.state in ("won", "resolved") and not told.over


def dispute_opened(debit: Debit, event: DisputeOpened, _now: datetime, terms: Terms) -> Step:
    """A complaint leaves the money where it is; a chargeback takes it, where the provider knows such a thing."""
    if event.kind == "chargeback" and terms.capabilities.dispute != "chargeback":
        raise ImpossibleEventError(debit, event)
    told = event.told
    known = None if told is None else known_dispute(debit, event.kind, told)
    if known is not None:
        assert told is not None
        return _told_again(debit, _amount_told(known, event, told), event.fee_minor, told)
    if told is None and disputed(debit):
        return debit, ()
    about = _all_of(debit, known_there=told is not None) if event.amount_minor is None else event.amount_minor
    amount_minor, fee_minor = about if event.kind == "chargeback" else 0, event.fee_minor or 0
    made = Dispute(len(debit.disputes) + 1, event.kind, "opened", amount_minor, fee_minor=fee_minor)
    if told is not None:
        made = _moved(replace(made, ref=told.ref, at=told.at), told)
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
    reversible = known.kind == "chargeback" and "resolved" not in (known.state, event.result)
    if known.state == event.result or (known.state != "opened" and not reversible):
        return _told_again(debit, known, event.fee_minor, told) if told is not None else (debit, ())
    ended, fees = _fee(replace(known, state=event.result), event.fee_minor, told)
    if told is None:
        ended = replace(ended, moved_minor=None)  # A person's word; the provider's own, where he has one, comes after.
    else:
        ended = replace(_moved(ended, told), ref=told.ref or known.ref, at=told.at or known.at)
    closed = _with(debit, ended)
    if not disputed(closed):
        closed = to_be_noticed_again(closed)
        if to_be_tried(closed) and closed.due_at is None and not closed.suspended:
            closed = replace(closed, due_at=goes_on_at(closed, now, terms))
    effects: list[Effect] = [Publish("dispute.closed"), *fees]
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
    """Of which dispute an end is told; a person means the one that is open, a chargeback first, or the chargeback that
    was lost last, where it is won after all, or was closed by mistake."""
    if event.told is None:
        still_open = [one for one in debit.disputes if one.state == "opened"]
        lost = [one for one in debit.disputes if one.state == "lost" and event.result == "won"]
        bank = next((one for one in still_open if one.kind == "chargeback"), None)
        return bank or next(reversed([*lost, *still_open]), None)
    kind: DisputeKind = "complaint" if event.result == "resolved" else "chargeback"
    known = known_dispute(debit, kind, event.told)
    return known if known is None or known.kind == kind else None


def taken_by_banks(debit: Debit) -> Step:
    """What chargebacks have taken, brought up to what is known of them: what the provider says that he has moved, else
    of those that stand what they are about, the first before the others, as far as there is money that the rider has
    not back; of one that is told before the payment, or before the end of an earlier one, that is told later.
    """
    has = {one.number: _has(one) for one in debit.disputes}
    left = debit.paid_minor - debit.refunded_minor - sum(has.values())
    for one in sorted(debit.disputes, key=lambda dispute: dispute.number):
        stands = one.kind == "chargeback" and one.state in ("opened", "lost") and one.moved_minor is None
        more = min(one.amount_minor - has[one.number], left) if stands else 0
        if more > 0:
            has[one.number] += more
            left -= more
    changed = [has[one.number] - one.taken_minor for one in debit.disputes]
    if not any(changed):
        return debit, ()
    disputes = tuple(replace(one, taken_minor=has[one.number]) for one in debit.disputes)
    taken, back = sum(more for more in changed if more > 0), -sum(more for more in changed if more < 0)
    effects: list[Effect] = [Post("chargeback", taken)] if taken else []
    effects += [Post("chargeback_won", back)] if back else []
    if back and debit.state in FINAL:
        effects.append(NetAgain())
    return replace(debit, disputes=disputes, disputed_minor=sum(has.values())), tuple(effects)


def _has(one: Dispute) -> int:
    """What the bank has for a chargeback, before it takes more of what it is about. Won, the money is ours again; lost,
    it is with the bank for good."""
    if one.moved_minor is not None:
        return one.moved_minor
    return min(one.taken_minor, one.amount_minor) if one.state in ("opened", "lost") else 0


def _all_of(debit: Debit, *, known_there: bool) -> int:
    """What a chargeback is about of which nobody says how much: what the rider has paid and has not back, else what is
    being taken from him; `known_there`: its provider tells of it, so that a payment of which he has not told is on its
    way, whatever the debit waits for."""
    if debit.paid_minor:
        return debit.paid_minor - debit.refunded_minor
    if debit.state in LIVE:
        return debit.asked_minor
    return debit.amount_minor if known_there else 0


def _amount_told(known: Dispute, event: DisputeOpened, told: Told) -> Dispute:
    """A chargeback that a person has opened, about all that was paid, once its provider says how much it is about."""
    by_hand = known.ref is None and told.ref is not None and known.state in ("opened", "lost")
    if not by_hand or known.kind != "chargeback" or event.amount_minor is None:
        return known
    return replace(known, amount_minor=event.amount_minor)


def _moved(known: Dispute, told: Told) -> Dispute:
    """What the provider has for a chargeback, as he tells. Of two messages of one instant that differ, the one counts
    that has come further: money that was taken, and once it is won, money that was given back."""
    stale = told.at is None and known.state != "opened" and not told.over
    if told.moved_minor is None or known.kind != "chargeback" or stale:
        return known
    moved_minor = told.moved_minor
    if known.moved_minor is not None and told.at is not None and told.at == known.at:
        moved_minor = (min if known.state == "won" else max)(moved_minor, known.moved_minor)
    return replace(known, moved_minor=moved_minor)


def _told_again(debit: Debit, known: Dispute, fee_minor: int | None, told: Told) -> Step:
    """What is told of a dispute whose state is known: its number, if it had none, its money and fee, as of when."""
    if _older(known, told):
        return debit, ()
    changed, fees = _fee(_moved(known, told), fee_minor, told)
    heard = known.state != "opened" or fees or changed.moved_minor != known.moved_minor
    changed = replace(changed, ref=known.ref or told.ref, at=(told.at or known.at) if heard else known.at)
    disputes = tuple(changed if one.number == known.number else one for one in debit.disputes)
    if disputes == debit.disputes:
        return debit, ()
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
