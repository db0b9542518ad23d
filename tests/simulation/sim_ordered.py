"""The hold of a ride in memory: what service.flows.holds does around the real rules of holds, for one session."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from msgspec.structs import replace
from sim_teller import CURRENCY, Dice
from sim_till import KEY, SESSION, Till, at_once

from service.adapters.postgres.collection import HoldCap
from service.adapters.providers.port import AgreementRef, HoldRef, HoldRequest
from service.billing.agreements.holds import (
    Hold,
    HoldPolicy,
    HoldState,
    RideSeen,
    Step,
    answered,
    completing,
    next_step,
    waiting,
)
from service.billing.agreements.standing import HoldAnswer
from service.billing.debits.collecting import Book
from service.billing.debits.state import FINAL, HOLD_REFUSED, TO_CONFIRM, TO_OPEN, Debit, HoldSeen, State
from service.billing.keys import provider_key, slot_of
from service.billing.outcomes import NotFound, Unknown
from service.flows.hold_calls import LOCAL

POLICY = HoldPolicy()
ENDED = (HoldState.EXPIRED, HoldState.COMPLETED, HoldState.RELEASED, HoldState.REFUSED)
SETTLED = FINAL - {State.WRITTEN_OFF}


class Ordered:
    """The hold of a till's ride, if it has one."""

    def __init__(self, till: Till, cap_minor: int | None) -> None:
        self.till = till
        self.cap_minor = cap_minor
        self.hold: Hold | None = None
        till.on_holds = self.wanted
        till.finish_hold = self.finish
        till.hold_seen = self.seen
        till.hold_names = self.names
        till.hold_cap = self.cap
        till.opened_hold = self.opened

    def before_the_ride(self) -> None:
        """The app has asked for one, and the rider has unlocked with it."""
        self._ask(0, None)
        dice, self.till.teller.dice = self.till.teller.dice, Dice()
        self.step(Dice())
        order = self.till.teller.orders.get(self._known().provider_key)
        if order is not None and order.state == "pending":
            self.till.teller.confirm(order)
            self.step(Dice(), early=True)
        self.till.teller.dice = dice

    def due(self) -> bool:
        """Whether the hold's rounds look at it now."""
        hold = self.hold
        return hold is not None and hold.due_at is not None and hold.due_at <= self.till.now and hold.state not in ENDED

    def step(self, dice: Dice, *, early: bool = False, seldom: bool = False) -> None:
        """A round of the hold: what is to be done, and the answer; `early`: news came; `seldom`: the next is far."""
        hold, till = self.hold, self.till
        if hold is None or hold.state in ENDED or not (early or self.due()):
            return
        ride = self._ride()
        step, why = next_step(hold, ride, till.now, POLICY)
        if early and step == "wait":
            step = "ask"
        if step == "wait":
            self.hold = waiting(hold, ride, till.now)
            return
        if step in ("release", "finish") and hold.state is not HoldState.COMPLETING:
            hold = self.hold = completing(hold, why, till.now)
        fate = dice.roll(6)
        answer = self._call(hold, step) if fate != 2 else Unknown("lost")
        self.answered(Unknown("lost") if fate == 1 else answer)
        after = self._known()
        if seldom and after.state not in ENDED:
            self.hold = replace(after, due_at=till.now + timedelta(days=7))

    def look(self, dice: Dice) -> None:
        """As Holds.look: the rider wants to confirm it now."""
        if self.hold is not None and self.hold.state is HoldState.REQUESTED:
            fate = dice.roll(6)
            answer = self._call(self.hold, "ask") if fate != 2 else Unknown("lost")
            self.answered(Unknown("lost") if fate == 1 else answer)

    def answered(self, answer: HoldAnswer) -> None:
        """Keeps what the provider says, and wakes the debits that wait for it."""
        before, till = self._known(), self.till
        hold = self.hold = answered(before, answer, till.now, POLICY)
        if till.told is not None:
            text = f"    hold {hold.ordinal} {type(answer).__name__}: {before.state} > {hold.state} {hold.reason or ''}"
            till.told.append(text)
        till.reached["hold", hold.state] += 1
        if hold.state is not before.state or hold.action != before.action:
            for ordinal, debit in till.debits.items():
                if self._waits(debit, hold) and till.leases.get((ordinal,)) is None:
                    till.debits[ordinal] = replace(debit, due_at=till.now)

    def wanted(self, book: Book) -> None:
        """A debit asks for a hold of its own: in the place of one that is over."""
        for debit, wanted in book.holds_wanted:
            hold = self.hold
            if hold is None or (hold.state in ENDED and hold.ordinal < wanted.ordinal):
                self._ask(wanted.ordinal, wanted.amount_minor)
                if self.till.told is not None:
                    self.till.told.append(
                        f"    d{debit.ordinal} asks for hold {wanted.ordinal} of {wanted.amount_minor}"
                    )

    def finish(self, reason: str) -> None:
        """Nothing of the ride can be collected any more."""
        hold = self.hold
        if hold is None or hold.state not in (HoldState.OPEN, HoldState.REQUESTED):
            return
        if hold.state is HoldState.OPEN:
            hold = replace(hold, state=HoldState.COMPLETING, reason=reason)
        self.hold = replace(hold, due_at=self.till.now)

    def seen(self) -> HoldSeen | None:
        """As a debit's rules see it."""
        hold = self.hold
        if hold is None:
            return None
        named = (hold.state, hold.ordinal, hold.action, hold.reason, hold.cap_minor)
        return HoldSeen(*named, hold.refusal, hold.requested_at)

    def names(self) -> tuple[str | None, str | None]:
        """Our key of it, and the provider's number."""
        return (None, None) if self.hold is None else (self.hold.provider_key, self.hold.provider_ref)

    def cap(self) -> HoldCap | None:
        """What it allows."""
        hold = self.hold
        return None if hold is None else HoldCap(1, hold.state, hold.cap_minor, hold.opened_at is not None)

    def opened(self) -> tuple[int, datetime] | None:
        """As audit_holds: the cap under which debits were begun, and since when."""
        hold = self.hold
        if hold is None or hold.opened_at is None:
            return None
        stands = hold.state in (HoldState.OPEN, HoldState.COMPLETING, HoldState.COMPLETED)
        return (hold.cap_minor, hold.opened_at) if stands else None

    def _ask(self, ordinal: int, amount_minor: int | None) -> None:
        now, known = self.till.now, POLICY.cap_minor if self.cap_minor is None else self.cap_minor
        self.hold = Hold(
            session_key=UUID(bytes=KEY),
            slot=slot_of(KEY),
            operator_no=1,
            session_id=SESSION,
            agreement_no=1,
            account_no=1,
            tariff_id="t",
            vehicle_id=None,
            state=HoldState.REQUESTED,
            cap_minor=known if amount_minor is None else min(known, amount_minor),
            currency=CURRENCY,
            provider_key=provider_key(KEY, "hold", ordinal),
            requested_at=now,
            due_at=now,
            ordinal=ordinal,
            title="ride",
            subject="ride",
        )

    def _call(self, hold: Hold, step: Step) -> HoldAnswer:
        teller, ref = self.till.teller, HoldRef(hold.provider_key, hold.provider_ref, None, hold.title)
        if not self.till.teller.capabilities.hold_needed:
            return LOCAL[step]
        if step == "release":
            return at_once(teller.release_hold(ref))
        if step == "finish":
            return at_once(teller.finish_hold(ref))
        answer = at_once(teller.get_hold(ref))
        if hold.state is HoldState.REQUESTED and isinstance(answer, NotFound):
            agreement = AgreementRef("AGREEMENT", "agreement")
            named = (hold.subject, hold.requested_at, None, hold.title)
            request = HoldRequest(hold.provider_key, agreement, hold.cap_minor, CURRENCY, *named)
            return at_once(teller.open_hold(request))
        return answer

    def _waits(self, debit: Debit, hold: Hold) -> bool:
        """As wake_debits_of_hold."""
        if debit.state not in (State.NEW, State.RETRY_WAIT, State.NEEDS_RIDER, State.MANUAL):
            return False
        reason, now = debit.reason or "", self.till.now
        later = debit.due_at is not None and debit.due_at > now and reason in (TO_OPEN, TO_CONFIRM)
        refused = hold.state is HoldState.OPEN and reason.startswith(HOLD_REFUSED) and not debit.suspended
        return later or refused

    def _ride(self) -> RideSeen:
        """As rides_of_holds."""
        debits = list(self.till.debits.values())
        final = [_final(debit) for debit in debits]
        on_it = sum(1 for debit, over in zip(debits, final, strict=True) if not over and debit.begun_at is not None)
        return RideSeen(
            state="closed" if debits else "open",
            owed_minor=self.till.owed_minor,
            debits=len(debits),
            debits_final=sum(final),
            debits_minor=sum(debit.amount_minor for debit in debits),
            paid_minor=sum(debit.paid_minor for debit in debits),
            read_through_at=self.till.now + timedelta(hours=1),
            debits_on_hold=on_it,
        )

    def _known(self) -> Hold:
        assert self.hold is not None
        return self.hold


def _final(debit: Debit) -> bool:
    over = debit.state in SETTLED and debit.lowering_to is None
    return over or (debit.state is State.WRITTEN_OFF and debit.due_at is None)
