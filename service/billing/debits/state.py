"""What a debit is, and the states of its collection."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from service.billing.agreements.standing import Refusal
from service.billing.capabilities import Capabilities
from service.billing.debits.dunning import Calendar
from service.billing.outcomes import RiderAction


class State(StrEnum):
    """Where the collection of a debit stands; overdue, suspended, refunds and disputes are axes of their own."""

    NEW = "new"
    SUBMITTING = "submitting"
    PENDING = "pending"
    UNKNOWN = "unknown"
    RETRY_WAIT = "retry_wait"
    NEEDS_RIDER = "needs_rider"
    MANUAL = "manual"
    SETTLED = "settled"
    SETTLED_ELSEWHERE = "settled_elsewhere"
    SETTLED_TWICE = "settled_twice"
    WAIVED = "waived"
    WRITTEN_OFF = "written_off"
    CANCELLED = "cancelled"


FINAL = frozenset(
    {
        State.SETTLED,
        State.SETTLED_ELSEWHERE,
        State.SETTLED_TWICE,
        State.WAIVED,
        State.WRITTEN_OFF,
        State.CANCELLED,
    }
)
"""States in which nothing more is asked of the rider."""
UNSURE = frozenset({State.SUBMITTING, State.UNKNOWN, State.MANUAL})
"""States in which money may be moving or may have moved: new obligations of the ride wait."""
CAN_BE_OVERDUE = frozenset({State.PENDING, State.RETRY_WAIT, State.NEEDS_RIDER})

DisputeKind = Literal["complaint", "chargeback"]
DisputeResult = Literal["won", "lost", "resolved"]
Record = Literal["completed", "violated"]
"""How a rider kept the agreement, as a provider is told."""
Stage = Literal["reminded", "overdue_reminded", "noticed"]
"""How far dunning has come, in this order."""
Verify = Literal["present", "next"]
"""What the time that a restored database has lost leaves open: of the "present" number and those after it, or only of
the "next"."""
TO_CONFIRM = "the hold needs the rider"
"""Why a debit needs the rider before it is tried for the first time."""
TO_OPEN = "waits for a hold"
"""Why a debit is not tried while a hold is being asked for."""
HOLD_REFUSED = "the hold was refused"
"""How the reason begins of a debit that could not be tried, since the hold that it asked for was refused."""
GONE_THERE = "cancelled at its provider, not by us"
"""How the reason begins of a debit that nobody can pay any more, since it was ended there."""
SUPPORT = "support"
"""Who gave a reason; what follows it are his own words, which are for those who work here."""
PROVIDER = "provider"
"""Who gave a reason, where the provider has told of it by himself."""


UNWRITTEN = UUID(int=0)
"""The digest of a debit without a life."""


class Item(msgspec.Struct, frozen=True):
    """A line that the provider shows to the rider, in minor units of the debit's currency; a discount is negative."""

    name: str
    amount_minor: int
    description: str = ""


class Receipt(msgspec.Struct, frozen=True):
    """What a provider says it has taken under one key, and how much of that is given back or being given back.

    One for each payment (`provider_ref`) of the key where the provider gives back by payment, else one for the key.
    `taken_at` is when the last of it was told. `refused` counts refunds of it that came to nothing: what can be given
    back of another payment is asked of that one first.
    """

    key: str
    amount_minor: int
    taken_at: datetime
    provider_ref: str | None = None
    returned_minor: int = 0
    refused: int = 0


class Dispute(msgspec.Struct, frozen=True):
    """What a rider or his bank holds against a debit; `number` counts a debit's from 1, `ref` is the provider's, once
    it is known.

    `amount_minor` is what a chargeback is about, `taken_minor` what the bank has for it now: what the provider says
    that he has moved (`moved_minor`), though it be more than the rider had not back yet; where he does not say,
    `amount_minor` as far as neither the rider nor another chargeback has it. `fee_minor` is what the provider keeps for
    it. `at`: as of when the provider has told this (his clock), where he says so.
    """

    number: int
    kind: DisputeKind
    state: Literal["opened"] | DisputeResult
    amount_minor: int = 0
    taken_minor: int = 0
    moved_minor: int | None = None
    fee_minor: int = 0
    ref: str | None = None
    at: datetime | None = None


class Debit(msgspec.Struct, frozen=True, kw_only=True):
    """One debit of a ride. Amounts are minor units of `currency`; instants are business time.

    `paid_minor` is the sum of the receipts; `forgone_minor` is what is no longer asked of the rider by us (waived,
    written off, cancelled by an operator, paid elsewhere), `outside_minor` what of that was paid elsewhere and is not
    given back there; `given_back_minor` is what of `paid_minor` was given back outside, past the provider. `due_at` is
    when the provider is next to be called, `policy_at` when the calendar next looks at it; None: nothing to do.
    `net_again` says that obligations of the ride wait for this debit; `lowering_to`, that the provider is being asked
    to lower it, or to close it when no more than what was paid is left; `excess_minor` is what is owed no
    longer of a debit that can't be lowered: it is given back when it settles, and nobody is dunned for it. `capped`: it
    was cut to a cap.
    `doubted_minor` is the most that a notification says was taken and that is not believed: the provider is asked.
    `verify` (after a restore): of which number it is asked what became of it, before it or one after it is used.
    `given`: the rider was given the present number to pay it himself (once the debit has ended: it may still be paid);
    until `payable_until` nothing else is tried. `items`, `subject` and the instants of the
    ride are what the debit is sent with; `dunned` (since `dunned_at`), `reminded` (the attempt that was announced),
    `nudged_at`, `record` (what is reported; told `record_asks` times, last at `record_asked_at`; known to the provider
    since `record_at`) are the calendar's diary.
    `attempts` and `begun_at` count over all keys, `submitted_at`, `not_found_at`, `resent` (how often it was sent again
    since nobody found it) and `asked_minor` (what is asked for) are of the present one; `unanswered_since`: nothing was
    said of it there since then that anybody has listed. `dispute` is the kind of the dispute that is open (a chargeback
    first), else the end of the last of `disputes`, which stand in the order of their
    last changes; `disputed_minor` is what banks have taken back and not returned. `digest` is that of its last
    transition (service.billing.debits.lives).
    """

    ride_no: int
    ordinal: int
    slot: int
    operator_no: int
    agreement_no: int
    account_no: int
    session_key: UUID
    session_id: str
    currency: str
    amount_minor: int
    created_at: datetime
    provider_key: str
    state: State = State.NEW
    receipts: tuple[Receipt, ...] = ()
    paid_minor: int = 0
    refunding_minor: int = 0
    refunded_minor: int = 0
    forgone_minor: int = 0
    outside_minor: int = 0
    given_back_minor: int = 0
    refunds: int = 0
    overdue: bool = False
    suspended: bool = False
    lowering_to: int | None = None
    excess_minor: int = 0
    net_again: bool = False
    capped: bool = False
    dispute: DisputeKind | DisputeResult | None = None
    disputes: tuple[Dispute, ...] = ()
    disputed_minor: int = 0
    asked_minor: int = 0
    provider_ref: str | None = None
    action: RiderAction | None = None
    reason: str | None = None
    attempts: int = 0
    queries: int = 0
    not_found_at: datetime | None = None
    resent: int = 0
    unanswered_since: datetime | None = None
    begun_at: datetime | None = None
    submitted_at: datetime | None = None
    settled_at: datetime | None = None
    due_at: datetime | None = None
    pay_by: datetime | None = None
    policy_at: datetime | None = None
    transitions: int = 0
    tariff_no: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    items: tuple[Item, ...] = ()
    subject: str = ""
    verify: Verify | None = None
    doubted_minor: int | None = None
    given: bool = False
    payable_until: datetime | None = None
    dunned: Stage | None = None
    dunned_at: datetime | None = None
    reminded: int = 0
    nudged_at: datetime | None = None
    record: Record | None = None
    record_at: datetime | None = None
    record_asks: int = 0
    record_asked_at: datetime | None = None
    digest: UUID = UNWRITTEN


class HoldSeen(msgspec.Struct, frozen=True):
    """The hold of a debit's ride, as it stands; `ordinal` counts those that the ride had before. `cap_minor` is the
    most that may be debited on it, once it is open; `refusal` says whose matter it is that it was refused;
    `requested_at`, since when it is asked for."""

    state: str
    ordinal: int = 0
    action: RiderAction | None = None
    reason: str | None = None
    cap_minor: int | None = None
    refusal: Refusal | None = None
    requested_at: datetime | None = None


class Terms(msgspec.Struct, frozen=True):
    """What the rules look at beside the debit: the provider's abilities, the operator's calendar, the rider's zone.

    `hold` is None where the ride has none; while `reporting` is False no report is made, while `debiting` is False
    no nudge, and no attempt is announced.
    """

    capabilities: Capabilities
    calendar: Calendar
    zone: ZoneInfo
    hold: HoldSeen | None = None
    reporting: bool = True
    debiting: bool = True


class Standing(Protocol):
    """What of a debit, as it is decided about or as it is stored, says how much of its ride it stands for."""

    @property
    def state(self) -> str: ...
    @property
    def amount_minor(self) -> int: ...
    @property
    def paid_minor(self) -> int: ...
    @property
    def forgone_minor(self) -> int: ...
    @property
    def refunded_minor(self) -> int: ...
    @property
    def refunding_minor(self) -> int: ...
    @property
    def given_back_minor(self) -> int: ...


def returned_minor(debit: Standing) -> int:
    """What the rider has again of what a debit has brought, however it came to him, or is on its way to get."""
    return debit.refunded_minor + debit.refunding_minor + debit.given_back_minor


def by_support(words: str) -> str:
    """The reason of what a person decided by hand: "support: paid at the desk"."""
    return f"{SUPPORT}: {words}"


def by_provider(words: str) -> str:
    """The reason of what was not decided here: "provider: marked as paid there"."""
    return f"{PROVIDER}: {words}"


def for_all(reason: str) -> str:
    """A reason without support's own words, as riders and programs outside are told it."""
    before, support, _ = reason.partition(by_support(""))
    return f"{before}{SUPPORT}" if support else reason


def waits_for_hold(debit: Debit) -> bool:
    """Whether the rider must confirm a hold before the debit can be tried for the first time.

    Not what he must approve: that is never tried by us.
    """
    return debit.state is State.NEEDS_RIDER and debit.attempts == 0 and debit.reason == TO_CONFIRM


def refused_a_hold(debit: Debit) -> bool:
    """Whether the debit can't be tried since the hold that it asked for was refused, whoever can change that."""
    return (debit.reason or "").startswith(HOLD_REFUSED)


def refused_for_us(debit: Debit) -> bool:
    """Whether a person is to put right what keeps the debit's hold from being opened."""
    return debit.state is State.MANUAL and refused_a_hold(debit)


def gone_there(debit: Debit) -> bool:
    """Whether the debit was cancelled at its provider, so that a person is to say what becomes of it."""
    return debit.state is State.MANUAL and (debit.reason or "").startswith(GONE_THERE)


def certain(debit: Debit) -> bool:
    """Whether nothing is unclear about a debit that waits for a person: as what is owed changes, so does the debit."""
    return refused_for_us(debit) or gone_there(debit)


def left_to_hold(debit: Debit) -> bool:
    """Whether nothing but a hold that opens all the same would have the debit tried: it was refused for good."""
    return debit.state is State.NEEDS_RIDER and refused_a_hold(debit)


def kept_from_hold(debit: Debit) -> bool:
    """Whether only a hold would have the debit tried: another one, or the refused one that opens after all."""
    return left_to_hold(debit) or refused_for_us(debit)


def to_be_tried(debit: Debit) -> bool:
    """Whether the debit goes to its provider by itself one day: in its turn, or once it has its hold."""
    return debit.state in (State.NEW, State.RETRY_WAIT) or waits_for_hold(debit) or kept_from_hold(debit)


def debit_id(ride_no: int, ordinal: int) -> str:
    """How a debit is called outside."""
    return f"{ride_no}-{ordinal}"


def dispute_id(ride_no: int, ordinal: int, number: int) -> str:
    """How a dispute is called outside."""
    return f"{ride_no}-{ordinal}-d{number}"


def payable(debit: Debit, now: datetime) -> bool:
    """Whether the number is the rider's now."""
    return debit.payable_until is not None and now < debit.payable_until


def refund_id(ride_no: int, ordinal: int, refund_ordinal: int) -> str:
    """How a refund is called outside: it begins like its debit."""
    return f"{ride_no}-{ordinal}-{refund_ordinal}"
