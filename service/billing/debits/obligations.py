"""What a ride owes, netted against its debits: what new debit, reduction or refund follows (collection.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from service.billing.capabilities import Capabilities
from service.billing.debits.answers import collected_yet
from service.billing.debits.events import OwedChanged, RefundAsked
from service.billing.debits.money import TOO_LITTLE, worth_a_debit
from service.billing.debits.state import (
    FINAL,
    UNSURE,
    Debit,
    Standing,
    State,
    certain,
    returned_minor,
    to_be_tried,
)
from service.billing.debits.wishes import refundable_minor


class OpenDebit(msgspec.Struct, frozen=True):
    """A further debit of the ride; NEEDS_RIDER: only with a payment that he approves; WAIVED: not worth one."""

    ordinal: int
    amount_minor: int
    state: Literal[State.NEW, State.NEEDS_RIDER, State.WAIVED]
    reason: str | None = None


class Change(msgspec.Struct, frozen=True):
    """Something happens to a debit that is there."""

    ordinal: int
    event: OwedChanged | RefundAsked


Netting = OpenDebit | Change


def net(
    owed_minor: int, debits: Sequence[Debit], capabilities: Capabilities, cap_minor: int | None
) -> tuple[Netting, ...]:
    """What follows when a ride owes `owed_minor` in all (the sum of its signed obligations).

    `debits` are all debits of the ride by ordinal; `cap_minor` is the most that may be debited for it without asking
    the rider. The first answer always opens a debit (WAIVED when nothing is owed), so that two who decide at once
    collide. While it is not known what became of a debit, obligations wait: the debit is marked and asks again.
    """
    difference = owed_minor - sum(map(covered_minor, debits))
    if not debits:
        return _more(difference, debits, capabilities, cap_minor) if difference > 0 else (_nothing_owed(),)
    waiting = [debit for debit in debits if _undecided(debit)]
    if waiting:
        marked = waiting if difference or any(map(_owed_no_longer, debits)) else ()
        return tuple(Change(debit.ordinal, OwedChanged(debit.amount_minor)) for debit in marked)
    steps = _more(difference, debits, capabilities, cap_minor) if difference > 0 else tuple(_less(-difference, debits))
    changed = {step.ordinal for step in steps if isinstance(step, Change)}
    return (*(Change(ordinal, OwedChanged(amount)) for ordinal, amount in _owed_after_all(debits, changed)), *steps)


def _undecided(debit: Debit) -> bool:
    """Whether it is not known what the debit will bring; one paid elsewhere stands as it is while it is closed."""
    unsure = debit.state in UNSURE and not certain(debit)
    return unsure or (debit.lowering_to is not None and debit.state not in FINAL)


def _owed_no_longer(debit: Debit) -> bool:
    """Whether less than the debit's amount was owed the last time: owed again as before, it makes no difference."""
    return debit.state not in FINAL and (debit.lowering_to is not None or debit.excess_minor > 0)


def covered_minor(debit: Standing) -> int:
    """How much of what the ride owes a debit stands for: what it asks for or brought, less what went back."""
    if debit.state in FINAL:
        return debit.paid_minor + debit.forgone_minor - returned_minor(debit)
    return debit.amount_minor - returned_minor(debit)


def owed_back_minor(owed_minor: int, debits: Sequence[Debit], debit: Debit) -> int:
    """How much of one of a ride's debits is the rider's, and on no way to him: brought by the provider or paid
    elsewhere, and more than the ride owes. What a bank takes, or a refund may still give back, is not."""
    if debit.state not in FINAL or debit.dispute == "chargeback":
        return 0
    here = sum(one.paid_minor - returned_minor(one) for one in debits)
    too_much = here + sum(one.outside_minor for one in debits) - owed_minor
    return max(min(too_much, refundable_minor(debit) + debit.outside_minor), 0)


def owed_of_minor(owed_minor: int, before: Iterable[Standing], debit: Standing) -> int:
    """How much of a debit's amount is owed now that its ride owes `owed_minor` in all; `before` are the ride's debits
    that were opened before it: the newest are lowered first."""
    left = owed_minor - sum(map(covered_minor, before))
    return min(max(left, 0), debit.amount_minor)


def _nothing_owed() -> OpenDebit:
    return OpenDebit(1, 0, State.WAIVED, "nothing owed")


def _more(
    more_minor: int, debits: Sequence[Debit], capabilities: Capabilities, cap_minor: int | None
) -> tuple[Netting, ...]:
    """A further debit up to the cap where one is allowed; what is left needs the rider, never hidden in another."""
    room = more_minor if cap_minor is None else max(cap_minor - sum(map(of_cap_minor, debits)), 0)
    untried = next(filter(_untried, debits), None)
    if untried is not None:
        added = min(more_minor, room)
        raised = [Change(untried.ordinal, OwedChanged(untried.amount_minor + added))] if added else []
        return (*raised, *_approved_by_rider(more_minor - added, len(debits) + 1, capabilities))
    asked_before = any(map(_asked_for, debits))
    allowed = not asked_before or (capabilities.further_debit and not any(debit.capped for debit in debits))
    part = min(more_minor, room) if allowed else 0
    if not worth_a_debit(part, capabilities):
        return _approved_by_rider(more_minor, len(debits) + 1, capabilities)
    first = OpenDebit(len(debits) + 1, part, State.NEW)
    return (first, *_approved_by_rider(more_minor - part, len(debits) + 2, capabilities))


def _approved_by_rider(amount_minor: int, ordinal: int, able: Capabilities) -> tuple[Netting, ...]:
    """What is left for the rider to approve; so little that nobody could pay it is waived."""
    if not amount_minor:
        return ()
    if not worth_a_debit(amount_minor, able):
        return (OpenDebit(ordinal, amount_minor, State.WAIVED, TOO_LITTLE),)
    return (OpenDebit(ordinal, amount_minor, State.NEEDS_RIDER, "more than may be debited without the rider"),)


def _less(excess_minor: int, debits: Sequence[Debit]) -> Iterable[Netting]:
    """The newest debits first: what is unpaid is lowered (what can't be is left to settle), then money goes back, of
    those last of which refunds came to nothing. What was paid outside stands: it goes back there."""
    for debit in reversed(debits):
        ended = debit.state in FINAL
        unpaid = debit.forgone_minor - debit.outside_minor if ended else debit.amount_minor - debit.paid_minor
        lowered = min(excess_minor, unpaid)
        if lowered:
            excess_minor -= lowered
            yield Change(debit.ordinal, OwedChanged(debit.amount_minor - lowered))
    for debit in sorted(debits, key=lambda debit: (_refused(debit), -debit.ordinal)):
        if debit.state in FINAL and debit.dispute != "chargeback":
            back = min(excess_minor, refundable_minor(debit))
            if back:
                excess_minor -= back
                yield Change(debit.ordinal, RefundAsked(back, "owed less"))


def _refused(debit: Debit) -> int:
    return sum(receipt.refused for receipt in debit.receipts)


def _owed_after_all(debits: Sequence[Debit], changed: set[int]) -> Iterable[tuple[int, int]]:
    """Debits of which a part was owed no longer, and now is."""
    for debit in debits:
        if debit.excess_minor and debit.state not in FINAL and debit.ordinal not in changed:
            yield debit.ordinal, debit.amount_minor


def _asked_for(debit: Debit) -> bool:
    """Whether the debit is, or may have been, the one that a provider allows; what ended unsent is not."""
    return debit.submitted_at is not None or debit.state not in (State.WAIVED, State.CANCELLED, State.SETTLED_ELSEWHERE)


def _untried(debit: Debit) -> bool:
    """Whether more can still be in the same debit: it was never sent, nor given to the rider, and will be sent."""
    return to_be_tried(debit) and not debit.attempts and debit.submitted_at is None


def of_cap_minor(debit: Debit) -> int:
    """What a debit uses of the cap: what was or may be taken without the rider's approval, and has not gone back; also
    what is written off, while its provider still collects it by himself."""
    if debit.state in FINAL and (debit.given or not collected_yet(debit)):
        return debit.paid_minor - debit.refunded_minor
    return debit.amount_minor
