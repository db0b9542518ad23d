"""The decisions of one round of collection, gathered: what to write about debits and refunds, and whom to call.

`Book` is to collection what `batch.advance` is to the intake: events go in, rows, transfers, facts and calls come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Literal
from uuid import UUID

import msgspec
from msgspec.structs import replace

from service.billing import ledger
from service.billing.debits import after, dunning
from service.billing.debits.content import Content, items_of, subject_of
from service.billing.debits.events import (
    Call,
    DebitEvent,
    Due,
    LeaseOver,
    NetAgain,
    OpenHold,
    Post,
    Publish,
    RefundAsked,
    RefundDecided,
    RefundEnded,
    RefundReturned,
    RetryAsked,
    StartRefund,
)
from service.billing.debits.facts import Naming, debit_fact, refund_fact
from service.billing.debits.obligations import OpenDebit, net
from service.billing.debits.refunds import (
    CHARGEBACK,
    REFUND_FINAL,
    UNPAID,
    Refund,
    RefundEvent,
    RefundState,
    asked_first,
    refund_after,
    refund_call,
)
from service.billing.debits.state import Debit, State, Terms, by_support
from service.billing.debits.steps import why_text
from service.billing.facts import EncodedFact
from service.billing.keys import provider_key
from service.billing.ledger import Fact, Transfer
from service.billing.words import refund_text, spoken

FACT_ORDINALS = 1_000_000
"""Room for a debit's transitions, or its refunds, in the ordinal of a transfer."""


class Context(msgspec.Struct, frozen=True):
    """What a decision about a debit looks at beside it; `restored_at`: when the database was last restored."""

    terms: Terms
    naming: Naming
    restored_at: datetime | None = None


class Transition(msgspec.Struct, frozen=True):
    """A row of a debit's life."""

    debit: Debit
    from_state: State | None
    why: str


class Posted(msgspec.Struct, frozen=True):
    """A transfer with the fact it belongs to."""

    ride_no: int
    slot: int
    operator_no: int
    fact: Fact
    ordinal: int
    line: int
    transfer: Transfer


class Work(msgspec.Struct, frozen=True):
    """A call to make once everything is committed."""

    what: Literal["submit", "query", "lower", "close", "nudge", "report", "refund", "query_refund"]
    debit: Debit
    refund: Refund | None = None


class RideOwing(msgspec.Struct, frozen=True):
    """What a ride owes in all, and everything that a new debit of it needs to know."""

    ride_no: int
    slot: int
    operator_no: int
    agreement_no: int
    account_no: int
    session_key: UUID
    session_id: str
    currency: str
    owed_minor: int
    cap_minor: int | None
    debits: tuple[Debit, ...]
    context: Context
    content: Content = Content()
    verify: bool = False


class Book:
    """Decisions about debits and refunds at one instant, to be written in one transaction.

    Feed it with `happen`, `refund_happen` and `net_ride`; then `opened` and `changed` debits, `refunds_opened`,
    `refunds_changed`, `transitions`, `posted`, `facts`, `work`, `net_again` and `lower_again` (ride numbers),
    `holds_wanted` (debits and the holds that they need) and `numbers_left` (debits and what they were called before)
    are what to write and do.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.opened: list[Debit] = []
        self.changed: dict[tuple[int, int], Debit] = {}
        self.refunds_opened: list[Refund] = []
        self.refunds_changed: dict[tuple[int, int, int], Refund] = {}
        self.transitions: list[Transition] = []
        self.posted: list[Posted] = []
        self.facts: list[EncodedFact] = []
        self.work: list[Work] = []
        self.net_again: set[int] = set()
        self.lower_again: set[int] = set()
        self.holds_wanted: list[tuple[Debit, OpenHold]] = []
        self.numbers_left: list[tuple[Debit, str]] = []

    def happen(self, debit: Debit, event: DebitEvent, context: Context) -> Debit:
        """Applies an event; raises what `after` raises. Returns the debit after it."""
        decided, effects = after(debit, event, self.now, context.terms)
        if _told_by(decided) != _told_by(debit) or (isinstance(event, RetryAsked) and decided != debit):
            decided = replace(decided, transitions=debit.transitions + 1)
            self.transitions.append(Transition(decided, debit.state, why_text(event, decided)))
        if decided != debit:
            self.changed[decided.ride_no, decided.ordinal] = decided
            self.numbers_left += ((decided, number) for number in sorted(_left(debit, decided)))
        for effect in effects:
            match effect:
                case Call():
                    self.work.append(Work(effect.what, decided))
                case Post():
                    self._post(decided, effect, decided.transitions)
                case Publish():
                    self.facts.append(debit_fact(decided, effect, context.naming, self.now))
                case StartRefund():
                    self._open_refund(decided, effect, context)
                case NetAgain():
                    self.net_again.add(decided.ride_no)
                case OpenHold():
                    self.holds_wanted.append((decided, effect))
        return decided

    def refund_happen(self, refund: Refund, debit: Debit, event: RefundEvent, context: Context) -> Refund:
        """Applies an event to a refund, and what follows from its end to its debit."""
        decided = refund_after(refund, event, self.now)
        if decided != refund:
            self.refunds_changed[decided.ride_no, decided.ordinal, decided.refund_ordinal] = decided
            if isinstance(event, RefundDecided):
                what = f"refund {decided.refund_ordinal} decided {event.decision}"
                self._tell(debit, f"{what}: {by_support(event.reason)}")
        if decided.state in UNPAID and refund.state not in UNPAID:
            self.lower_again.add(decided.ride_no)
        if decided.state in REFUND_FINAL and refund.state not in REFUND_FINAL:
            rest = refund.amount_minor - decided.amount_minor
            if decided.code == CHARGEBACK:
                self.net_again.add(decided.ride_no)  # What of it the bank has left is given back.
            if rest:  # An operator found that less was given back.
                debit = self._current(debit)
                debit = self.happen(debit, RefundEnded(decided.debit_key, rest, False, decided.debit_ref), context)
                self.net_again.add(decided.ride_no)
            self._refund_ended(decided, debit, context)
        elif decided.state is RefundState.RETURNED and refund.state is RefundState.SUCCEEDED:
            self._refund_returned(decided, debit, context)
        elif isinstance(event, Due | LeaseOver):
            call = refund_call(decided)
            if call is not None and decided.due_at == self.now:
                self.work.append(Work("refund" if call == "submit" else "query_refund", debit, decided))
        return decided

    def _tell(self, debit: Debit, why: str) -> None:
        """What a person did that changes nothing of the debit itself stands in its life."""
        debit = self._current(debit)
        told = replace(debit, transitions=debit.transitions + 1)
        self.transitions.append(Transition(told, debit.state, why))
        self.changed[told.ride_no, told.ordinal] = told

    def net_ride(self, ride: RideOwing, *, refunding: bool = True) -> None:
        """Nets what a ride owes against its debits; without `refunding` what is unpaid is lowered, at most."""
        capabilities = ride.context.terms.capabilities
        debits = {debit.ordinal: debit for debit in ride.debits}
        for step in net(ride.owed_minor, ride.debits, capabilities, ride.cap_minor):
            if isinstance(step, OpenDebit):
                self._open(ride, step)
            else:
                if isinstance(step.event, RefundAsked) and not refunding:
                    continue
                event = _because(step.event, ride.content.because)
                debits[step.ordinal] = self.happen(debits[step.ordinal], event, ride.context)
        self.net_again.discard(ride.ride_no)

    def _open(self, ride: RideOwing, step: OpenDebit) -> None:
        calendar, zone = ride.context.terms.calendar, ride.context.terms.zone
        charge = ride.content.charge
        usage = None if charge is None else charge.usage
        waived = step.state is State.WAIVED
        pay_by = None if waived else dunning.pay_by(self.now, zone, calendar)
        debit = Debit(
            ride_no=ride.ride_no,
            ordinal=step.ordinal,
            slot=ride.slot,
            operator_no=ride.operator_no,
            agreement_no=ride.agreement_no,
            account_no=ride.account_no,
            session_key=ride.session_key,
            session_id=ride.session_id,
            tariff_no=ride.content.tariff_no,
            started_at=None if usage is None else usage.started_at,
            ended_at=None if usage is None else usage.ended_at,
            items=items_of(charge, step.amount_minor, ride.content.language) if charge is not None else (),
            subject=subject_of(ride.content, step.ordinal, self.now, zone),
            verify="present" if ride.verify else None,
            currency=ride.currency,
            amount_minor=step.amount_minor,
            forgone_minor=step.amount_minor if waived else 0,
            created_at=self.now,
            provider_key=provider_key(ride.session_key.bytes, "debit", step.ordinal),
            state=step.state,
            reason=step.reason,
            due_at=dunning.first_attempt_at(self.now, zone, calendar) if step.state is State.NEW else None,
            pay_by=pay_by,
            policy_at=pay_by if step.state is State.NEEDS_RIDER else None,
            transitions=1,
        )
        self.opened.append(debit)
        self.transitions.append(Transition(debit, None, "owed"))
        if waived and step.amount_minor:
            self._post(debit, Post("waiver", step.amount_minor), 1)
        if step.state is State.NEEDS_RIDER:
            self.facts.append(debit_fact(debit, Publish("debit.needs_rider"), ride.context.naming, self.now))

    def _open_refund(self, debit: Debit, start: StartRefund, context: Context) -> None:
        refund = Refund(
            ride_no=debit.ride_no,
            ordinal=debit.ordinal,
            refund_ordinal=start.ordinal,
            slot=debit.slot,
            operator_no=debit.operator_no,
            agreement_no=debit.agreement_no,
            account_no=debit.account_no,
            currency=debit.currency,
            amount_minor=start.amount_minor,
            provider_key=provider_key(debit.session_key.bytes, "refund", debit.ordinal * 1000 + start.ordinal),
            debit_key=start.receipt.key,
            debit_ref=start.receipt.provider_ref,
            tariff_no=debit.tariff_no,
            created_at=self.now,
            reason=start.reason,
            because=start.because,
            told=refund_text(spoken(context.naming.language or ""), twice=start.reason == State.SETTLED_TWICE),
            due_at=self.now,
        )
        if _forgotten(debit, context):
            refund = asked_first(refund)
        if start.refused is not None:
            refund = replace(refund, state=RefundState.FAILED, code=start.refused, due_at=None)
            self.facts.append(refund_fact(refund, debit.session_id, context.naming, self.now))
        self.refunds_opened.append(refund)

    def _refund_ended(self, refund: Refund, debit: Debit, context: Context) -> None:
        succeeded = refund.state is RefundState.SUCCEEDED
        ended = RefundEnded(refund.debit_key, refund.amount_minor, succeeded, refund.debit_ref)
        self.happen(self._current(debit), ended, context)
        self.facts.append(refund_fact(refund, debit.session_id, context.naming, self.now))
        if succeeded:
            moved = ledger.refund_transfers(
                refund.agreement_no, refund.account_no, refund.amount_minor, refund.currency
            )
            self._add(debit, Fact.REFUND, refund.ordinal * FACT_ORDINALS + refund.refund_ordinal, moved)

    def _refund_returned(self, refund: Refund, debit: Debit, context: Context) -> None:
        """What was given back is ours again, and owed to the rider. The same road would end the same way, so that
        nothing is sent until somebody asks for it; what the ride came to owe since is paid of it."""
        back = RefundReturned(refund.debit_key, refund.amount_minor, refund.debit_ref)
        self.happen(self._current(debit), back, context)
        self.facts.append(refund_fact(refund, debit.session_id, context.naming, self.now))
        moved = ledger.settlement_transfers(
            refund.agreement_no, refund.account_no, refund.amount_minor, refund.currency
        )
        self._add(debit, Fact.REFUND_BACK, refund.ordinal * FACT_ORDINALS + refund.refund_ordinal, moved)

    def _current(self, debit: Debit) -> Debit:
        return self.changed.get((debit.ride_no, debit.ordinal), debit)

    def _post(self, debit: Debit, post: Post, transition: int) -> None:
        fact = Fact[post.fact.upper()]
        self._add(
            debit, fact, debit.ordinal * FACT_ORDINALS + transition, ledger_transfers(debit, fact, post.amount_minor)
        )

    def _add(self, debit: Debit, fact: Fact, ordinal: int, transfers: Sequence[Transfer]) -> None:
        for line, transfer in enumerate(transfers):
            self.posted.append(Posted(debit.ride_no, debit.slot, debit.operator_no, fact, ordinal, line, transfer))


def _because(event: DebitEvent, because: str | None) -> DebitEvent:
    """What netting asks for, with the reason that somebody gave for it."""
    return replace(event, because=because) if isinstance(event, RefundAsked) else event


def _forgotten(debit: Debit, context: Context) -> bool:
    """Whether refunds of the debit may have been sent in the time that a restored database has lost."""
    began_at = min(debit.created_at, debit.ended_at or debit.created_at)
    return context.restored_at is not None and began_at <= context.restored_at


def _left(before: Debit, debit: Debit) -> set[str]:
    """What the debit, or a receipt of it, was called until now, and is no longer found by."""
    same = (before.provider_key, before.provider_ref) == (debit.provider_key, debit.provider_ref)
    if same and before.receipts is debit.receipts:
        return set()
    left_before = _numbers(before) - {before.provider_key, before.provider_ref}
    left = (_numbers(before) | _numbers(debit)) - {debit.provider_key, debit.provider_ref} - left_before
    return {number for number in left if number is not None}


def _numbers(debit: Debit) -> set[str | None]:
    taken = (number for receipt in debit.receipts for number in (receipt.key, receipt.provider_ref))
    return {debit.provider_key, debit.provider_ref, *taken}


def ledger_transfers(debit: Debit, fact: Fact, amount_minor: int) -> tuple[Transfer, ...]:
    """What a fact about a debit moves in the ledger; nothing for 0. A refund's moves are the refund's own."""
    if not amount_minor:
        return ()
    agreement_no, account_no, operator_no = debit.agreement_no, debit.account_no, debit.operator_no
    match fact:
        case Fact.SETTLEMENT | Fact.GIVEN_BACK_FAILED:
            return ledger.settlement_transfers(agreement_no, account_no, amount_minor, debit.currency)
        case Fact.GIVEN_BACK_THERE:
            return ledger.refund_transfers(agreement_no, account_no, amount_minor, debit.currency)
        case Fact.RECOVERY:
            return ledger.recovery_transfers(operator_no, account_no, amount_minor, debit.currency)
        case Fact.DISPUTE_FEE | Fact.DISPUTE_FEE_BACK:
            back = fact is Fact.DISPUTE_FEE_BACK
            return ledger.fee_transfers(account_no, amount_minor, debit.currency, back=back)
        case Fact.CHARGEBACK | Fact.CHARGEBACK_WON:
            won = fact is Fact.CHARGEBACK_WON
            return ledger.chargeback_transfers(operator_no, account_no, amount_minor, debit.currency, won=won)
        case _:
            return ledger.forgone_transfers(fact, agreement_no, operator_no, amount_minor, debit.currency)


DIARY = frozenset(
    ("queries", "not_found_at", "resent", "unanswered_since", "due_at", "policy_at", "net_again", "record_asks")
) | {"digest"}
"""What of a debit is no part of its life."""
_told_by = attrgetter(*(name for name in Debit.__struct_fields__ if name not in DIARY))
"""What of a debit is its life, and not only the diary of asking: a change of that is no row."""
