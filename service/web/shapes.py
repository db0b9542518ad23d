"""The shapes of what is answered about rides and their money.

Amounts are minor units beside their currency; exact decimals are strings; instants are RFC 3339 in UTC.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from service.adapters.postgres.reading import HoldRow, ObligationRow
from service.billing.outcomes import RiderAction
from service.billing.words import Label


class LineView(msgspec.Struct, frozen=True):
    """One line of a charge; `path` is the JSON pointer of the rule in the tariff."""

    code: str
    quantity: str
    unit: str
    unit_price: str
    amount: str
    path: str
    window: str | None
    refundable: bool
    tax_rate: str | None


class BalanceView(msgspec.Struct, frozen=True):
    """What earlier rides had used of a cap or pass in one window."""

    window: str
    used: str


class ChargeView(msgspec.Struct, frozen=True):
    """A charge, explained: the lines sum exactly to `amount_minor`. `balance` is what it assumed."""

    currency: str
    amount_minor: int
    tax_minor: int
    lines: list[LineView]
    balance: list[BalanceView]
    used: list[BalanceView]


class PauseView(msgspec.Struct, frozen=True):
    """A pause inside the ride."""

    started_at: datetime
    ended_at: datetime


class UsageView(msgspec.Struct, frozen=True):
    """What the ride used; `duration_us` and `reserved_us` are exact microseconds."""

    started_at: datetime
    ended_at: datetime
    duration_us: int
    meters: int
    pauses: list[PauseView]
    vehicle_type: str | None
    parking_category: str | None
    zone_fees: tuple[str, ...]
    reserved_us: int | None
    rode: bool
    lost_end: str | None


class EventView(msgspec.Struct, frozen=True):
    """An event of the ride, and where in Kafka it is (an operator's own: no topic). `counts`: the ride goes by it; one
    that contradicts an earlier one may count instead of that. `reason` is what was said of it, as of a correction, and
    `by` whom; neither is told to riders."""

    kind: str
    source: str
    id: str
    time: datetime
    topic: str
    partition: int
    offset: int
    counts: bool
    reason: str | None
    by: str | None


class RevisionView(msgspec.Struct, frozen=True):
    """One decision about the ride; `owing_minor` is what it owes more, or less, since, `tariff_version` the version
    that was frozen by then. `charge` is what it cost by this decision, where that stands no longer."""

    revision: int
    state: str
    reason: str | None
    decided_at: datetime
    tariff_version: int | None
    amount_minor: int | None
    currency: str | None
    owing_minor: int
    events: list[EventView]
    charge: ChargeView | None


class AdjustmentView(msgspec.Struct, frozen=True):
    """What support added to the ride or took off it; `reason` and `by` are not told to riders.

    `amount_minor` > 0 is what was decided; `counted_minor` is what came of it, signed, with `tax_minor` of tax in it: a
    reduction counts up to what there is to reduce, and a void leaves what is owed `regardless`. `label` is what riders
    read in place of the code.
    """

    adjustment_id: str
    kind: str
    code: str
    amount_minor: int
    currency: str
    counted_minor: int
    tax_minor: int
    tax_rate: str | None
    regardless: bool
    reason: str | None
    by: str | None
    decided_at: datetime
    label: Label | None


class TransitionView(msgspec.Struct, frozen=True):
    """One change of a debit."""

    transition: int
    from_state: str | None
    to_state: str
    why: str
    amount_minor: int
    provider_key: str
    provider_reference: str | None
    at: datetime


class RefundView(msgspec.Struct, frozen=True):
    """Money given back of a debit: `reason` is a word for programs, `because` what support has said of it (not told to
    riders); the provider has it under `provider_key`."""

    refund_id: str
    provider_key: str
    state: str
    amount_minor: int
    currency: str
    reason: str
    because: str | None
    code: str | None
    provider_reference: str | None
    created_at: datetime
    updated_at: datetime


class DisputeView(msgspec.Struct, frozen=True):
    """What a rider or his bank holds against a debit, `number` counted from 1; `state` is `opened` or how it ended.

    `amount_minor` is what a chargeback is about, `taken_minor` what the bank has for it now, `fee_minor` what the
    provider keeps for it; `provider_reference` is his number of it, once it is known.
    """

    number: int
    kind: str
    state: str
    amount_minor: int
    taken_minor: int
    fee_minor: int
    provider_reference: str | None


class DebitView(msgspec.Struct, frozen=True):
    """A debit as it stands; `due_at` is when something is tried next, `pay_by` when it is overdue. `forgone_minor` is
    what is no longer asked for, `outside_minor` what of that was paid elsewhere; `given_back_minor` is what of
    `paid_minor` the operator has given back outside, past its provider.

    Until `payable_until` the rider may pay it himself by `action`. `dunned` (since `dunned_at`) is how far reminders
    have come, `nudged_at` when its provider was last asked to try it, `record` what is reported of it: known to the
    provider since `record_at`.
    """

    debit_id: str
    session_id: str
    agreement_id: str
    state: str
    currency: str
    amount_minor: int
    paid_minor: int
    refunding_minor: int
    refunded_minor: int
    forgone_minor: int
    outside_minor: int
    given_back_minor: int
    overdue: bool
    suspended: bool
    dispute: str | None
    reason: str | None
    action: RiderAction | None
    attempts: int
    provider_key: str
    provider_reference: str | None
    submitted_at: datetime | None
    settled_at: datetime | None
    due_at: datetime | None
    pay_by: datetime | None
    payable_until: datetime | None
    dunned: str | None
    dunned_at: datetime | None
    nudged_at: datetime | None
    record: str | None
    record_at: datetime | None
    created_at: datetime
    updated_at: datetime


class StopView(msgspec.Struct, frozen=True):
    """A stop that keeps a debit (`what`: debits) or a refund of it (refunds) from being sent, by its number of `farebox
    stops`; 0 is its operator's mode."""

    what: str
    stop_no: int
    reason: str


class DebitStory(DebitView, frozen=True):
    """A debit with its whole life, its refunds and its disputes. `owed_minor` is what its ride owes of it now: less
    than its amount while it can't be lowered, or once it is paid. It, or a refund of it, waits to be sent for as long
    as one of `stops` stands, whatever `due_at` says; riders are told of none."""

    owed_minor: int
    transitions: list[TransitionView]
    refunds: list[RefundView]
    disputes: list[DisputeView]
    stops: list[StopView]


class RideMoney(msgspec.Struct, frozen=True):
    """The money of a ride over all its debits. `owed_minor` is the sum of the obligations, paid or not;
    `refunded_minor` is what was given back, `to_refund_minor` what is still to be (asked for, on its way, or put off;
    also what was paid elsewhere and is to go back there), `given_back_minor` what the operator gave back outside of
    what was paid here. `outside_minor` was paid elsewhere, and did not go back there; `given_up_minor` is not asked for
    any more (waived, cancelled by hand, written off), and `open_minor` is still asked of the rider. Paid - refunded -
    to be refunded - given back + outside + given up + open = owed. Of what was paid a bank has taken back
    `charged_back_minor` (while a chargeback is open, or when it was lost): that is not asked for again, and what of it
    is not owed needs no refund."""

    owed_minor: int
    paid_minor: int
    refunded_minor: int
    to_refund_minor: int
    given_back_minor: int
    outside_minor: int
    given_up_minor: int
    open_minor: int
    charged_back_minor: int


class RefundAnswer(DebitStory, frozen=True):
    """The debit as it is, and in `ride` what is given back of its ride, and still to be given back. Of a ride with
    several debits the newest gives back first, whichever was named: the refunds stand at those that give back."""

    ride: RideMoney


class SessionSummary(msgspec.Struct, frozen=True):
    """A ride in a list. `owed`: whether its charge is billed here, as `ride.charged` says it (false in shadow mode and
    for rides before `bill_from`); null without a charge."""

    session_id: str
    state: str
    reason: str | None
    revision: int
    agreement_id: str | None
    rider_ref: str | None
    tariff_id: str | None
    tariff_version: int | None
    vehicle_id: str | None
    started_at: datetime | None
    ended_at: datetime | None
    amount_minor: int | None
    currency: str | None
    owed: bool | None
    updated_at: datetime


class SessionView(SessionSummary, frozen=True):
    """Everything about a ride, from one snapshot. `owed_minor` is the sum of the obligations, paid or not;
    `to_refund_minor` is what is still to be given back, here or outside, `given_back_minor` was given back outside of
    what was paid here. `outside_minor` was paid elsewhere, `given_up_minor` is not asked for any more (waived,
    cancelled by hand, written off), and `open_minor` is still asked of the rider; of what was paid, a bank has taken
    back `charged_back_minor`."""

    billable: bool
    purpose: str | None
    usage: UsageView | None
    charge: ChargeView | None
    owed_minor: int
    paid_minor: int
    refunded_minor: int
    to_refund_minor: int
    given_back_minor: int
    outside_minor: int
    given_up_minor: int
    open_minor: int
    charged_back_minor: int
    revisions: list[RevisionView]
    adjustments: list[AdjustmentView]
    obligations: list[ObligationRow]
    debits: list[DebitStory]
    hold: HoldRow | None
    events: list[EventView]
    conflicts: list[EventView]
