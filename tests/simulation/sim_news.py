"""What reaches one ride's debits from outside: notifications, disputes, a rider who wants to pay (sim_till)."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace
from sim_ordered import Ordered
from sim_teller import Dice, Notice
from sim_till import Till, at_once

from service.adapters.providers.port import DisputeStatus
from service.billing.agreements.standing import HoldStatus
from service.billing.debits.events import ImpossibleEventError, Notified, PaymentAnswered, PaymentWanted
from service.billing.debits.refunds import UNPAID, RefundState
from service.billing.debits.state import Debit, State, waits_for_hold
from service.billing.outcomes import Accepted, NeedsRider, Outcome, Postponed, Prepared, Succeeded, Unknown
from service.flows.collection.calls import debit_ref, debit_request
from service.flows.collection.disputing import LOOK_AGAIN, LOOK_AGAIN_MAX, _news
from service.flows.collection.hearing import HOLDS_LOOKED_AT, PREPARED_MAX, order_number


class Unheard(msgspec.Struct):
    """A dispute that was told of a debit that nobody knew."""

    status: DisputeStatus
    told_at: datetime
    due_at: datetime
    asks: int = 0


class News:
    """The doors of a till."""

    def __init__(self, till: Till, ordered: Ordered) -> None:
        self.till = till
        self.ordered = ordered
        self.unheard: dict[tuple[str, str, str], Unheard] = {}

    def hear(self, notice: Notice, dice: Dice) -> bool:
        """Takes a notification in; False: it was not acknowledged, and comes again."""
        if self.till.told is not None:
            self.till.told.append(f"    notification {notice.line()}")
        told = notice.told
        if isinstance(told, DisputeStatus):
            self._disputed(told)
            return True
        if isinstance(told, HoldStatus):
            hold = self.ordered.hold
            if hold is not None and hold.provider_key == notice.key:
                self.ordered.answered(told)
            return True
        if notice.about == "refund":
            self._refund(notice.key, told)
            return True
        return self._debit(notice, told, dice)

    def hear_unheard(self) -> None:
        """Disputes that were told too early, once more."""
        for key, news in list(self.unheard.items()):
            if news.due_at > self.till.now:
                continue
            if self._tell(news.status) is not None:
                del self.unheard[key]
            else:
                news.due_at = self.till.now + min(LOOK_AGAIN * 2 ** min(news.asks, 9), LOOK_AGAIN_MAX)
                news.asks += 1

    def want_payment(self, ordinal: int, dice: Dice) -> bool:
        """As Hearing.ask_payment: what the rider has to do to pay a debit now; False: nothing. A call may be lost, and
        the process may die between two steps."""
        till, debit = self.till, self._wanted(ordinal, dice)
        if waits_for_hold(debit) and debit.action is not None:
            return True
        if debit.payable_until is None:
            return False
        outcome: Outcome = Unknown("not asked")
        for _ in range(PREPARED_MAX):
            fate = dice.roll(8)
            if fate == 1:
                return False  # It died before it asked.
            row = till.row(till.debits[ordinal])
            till.teller.dice = dice
            outcome = Unknown("no answer in time")
            if fate != 2:
                request = replace(debit_request(till.teller, row, debit), payable_until=debit.payable_until)  # type: ignore[arg-type]  # It has what is called.
                outcome = at_once(till.teller.request_payment(request))
            if fate == 3:
                return True  # It died before it kept the answer.
            outcome = Unknown("no answer in time") if fate == 4 else outcome
            debit = till.happen(ordinal, PaymentAnswered(debit.provider_key, outcome))
            if isinstance(outcome, NeedsRider) and row.hold_ref is not None and debit.attempts:
                till.numbers.add((order_number("hold_ref", row.hold_ref), ordinal))
            if not isinstance(outcome, Prepared):
                break
        return isinstance(outcome, NeedsRider)

    def _wanted(self, ordinal: int, dice: Dice) -> Debit:
        """As Hearing's: what he is to confirm is asked about first."""
        till = self.till
        if not waits_for_hold(till.debits[ordinal]):
            return till.happen(ordinal, PaymentWanted())
        for _ in range(HOLDS_LOOKED_AT):
            self.ordered.look(dice)
            debit = till.happen(ordinal, PaymentWanted())
            if not waits_for_hold(debit) or debit.action is not None:
                break
        return debit

    # ------------------------------------------------------------------ debits and refunds

    def by_key(self, key: str) -> dict[int, bool]:
        """As debits_by_provider_key: whether it is their present key."""
        found = {
            ordinal: True
            for ordinal, debit in self.till.debits.items()
            if debit.provider_key == key and debit.state not in (State.SETTLED, State.WAIVED)
        }
        return found | {ordinal: False for number, ordinal in sorted(self.till.numbers) if number == key}

    def by_ref(self, ref: str) -> list[int]:
        """As debits_by_provider_ref."""
        present = {ordinal for ordinal, debit in self.till.debits.items() if debit.provider_ref == ref}
        return sorted(present | {ordinal for number, ordinal in self.till.numbers if number == ref})

    def by_hold(self, number: str, *, by_ref: bool) -> dict[int, str]:
        """As debits_by_hold."""
        hold = self.ordered.hold
        if hold is None or hold.state not in ("requested", "open", "completing"):
            return {}
        if number != (hold.provider_ref if by_ref else hold.provider_key):
            return {}
        begun = [one for one in self.till.debits.values() if one.begun_at is not None or one.state is State.NEW]
        last = max(begun, key=lambda one: (one.begun_at is not None, one.ordinal), default=None)
        return {} if last is None else {last.ordinal: last.provider_key}

    def _debit(self, notice: Notice, outcome: Outcome, dice: Dice) -> bool:
        till, key, told = self.till, notice.key, dict[int, Outcome]()
        if notice.named_by == "key":
            known = self.by_key(key)
            debits = dict.fromkeys(known, key)
            for ordinal in (ordinal for ordinal, present in known.items() if not present):
                confirmed = self._confirmed(till.debits[ordinal], key, outcome, dice)
                if confirmed is None:
                    return False
                told[ordinal] = confirmed
        else:
            debits = self.by_hold(key, by_ref=notice.named_by == "hold_ref") or self._given(key, notice.named_by)
        for ordinal, own in debits.items():
            till.happen(ordinal, Notified(own, told.get(ordinal, outcome)))
        if debits:
            return True
        ref = outcome.provider_ref if isinstance(outcome, Accepted | Succeeded) else None
        if isinstance(outcome, Succeeded) and not (ref is not None and self.by_ref(ref)):
            till.reached["a payment", "that no debit knows of"] += 1
            if till.told is not None:
                till.told.append("    a payment that no debit knows of")
        return True

    def _given(self, number: str, named_by: str) -> dict[int, str]:
        """Of an order that is over, the debit whose rider was given it to pay."""
        if named_by == "key" or number not in self.ordered.names():
            return {}
        given = self.by_ref(order_number("hold_ref" if named_by == "hold_ref" else "hold", number))
        return {ordinal: self.till.debits[ordinal].provider_key for ordinal in given}

    def _confirmed(self, debit: Debit, key: str, told: Outcome, dice: Dice) -> Outcome | None:
        """What the provider answers of an earlier key; None: nothing."""
        if not isinstance(told, Succeeded):
            return told
        if dice.odd(4):
            return None
        earlier = replace(debit, provider_key=key, provider_ref=None)
        answer = at_once(self.till.teller.get_debit(debit_ref(self.till.teller, self.till.row(debit), earlier)))  # type: ignore[arg-type]  # It has what is called.
        return None if isinstance(answer, Unknown | Postponed) else answer

    def _refund(self, key: str, outcome: Outcome) -> None:
        again = isinstance(outcome, Succeeded)
        for number, refund in list(self.till.refunds.items()):
            over = refund.state in UNPAID or (again and refund.state is RefundState.SUCCEEDED)
            if refund.provider_key == key and not over:
                self.till.refund_noticed(number, Notified(key, outcome))

    # ------------------------------------------------------------------ disputes

    def _disputed(self, status: DisputeStatus) -> None:
        """As Disputing.disputed."""
        name = (status.key or status.debit_ref, status.kind, status.provider_ref or "")
        if self._tell(status) is not None:
            self.unheard.pop(name, None)
            return
        known, told_at = self.unheard.get(name), status.told_at or self.till.now
        newer = status.state != "opened" and (known is None or told_at >= known.told_at)
        if known is None or known.status.state == "opened" or newer:
            self.unheard[name] = Unheard(status, told_at, self.till.now)

    def _tell(self, status: DisputeStatus) -> bool | None:
        ordinals = self._of_dispute(status)
        believed = True if ordinals else None
        for ordinal in ordinals:
            try:
                self.till.happen(ordinal, *_news(self.till.debits[ordinal], status))
            except ImpossibleEventError:
                believed = False
        return believed

    def _of_dispute(self, status: DisputeStatus) -> list[int]:
        named = self.by_ref(status.debit_ref) if status.debit_ref else []
        if named or not status.key:
            return named
        if status.named_by == "key":
            return list(self.by_key(status.key))
        order = order_number(status.named_by, status.key)
        known = self.by_ref(order)
        if known:
            return known
        found = list(self.by_hold(status.key, by_ref=status.named_by == "hold_ref"))
        self.till.numbers |= {(order, ordinal) for ordinal in found}
        return found
