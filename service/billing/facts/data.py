"""The `data` of each fact on `rental.billing`: what became of a ride's money, in words an app can act on.

Amounts are integers of the currency's minor unit beside their currency; instants are RFC 3339 in UTC. A fact never
carries a rider's name or number, only the opaque `rider_ref`. These structs are what `schemas/facts/` is made from.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from service.billing.events.ride_data import AdjustmentKind
from service.billing.facts.parts import Contact, Currency, Lines, Minor, Sources
from service.billing.outcomes import RiderAction


class Fact(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What every fact says: whose it is."""

    operator_id: str


class RideFact(Fact, frozen=True, kw_only=True):
    """A fact about a ride; its key is the session id."""

    session_id: str
    agreement_id: str | None = None
    rider_ref: str | None = None


class _Charge(RideFact, frozen=True, kw_only=True):
    revision: Annotated[int, Meta(description="The ride's revision that decided this; grows with each decision.")]
    tariff_id: str
    tariff_version: int
    currency: Currency
    amount_minor: Annotated[int, Meta(description="The total, in minor units.")]
    tax_minor: Annotated[int, Meta(description="The part of the total that is tax.")] = 0
    lines: Lines
    sources: Annotated[Sources, Meta(description="The events the charge rests on; of more than 200 not the pauses.")]
    started_at: datetime | None = None
    ended_at: datetime | None = None
    meters: int = 0
    assumed_end: Annotated[
        bool, Meta(description="No end was reported: the tariff's lost-end rule closed the ride.")
    ] = False
    owed: Annotated[bool, Meta(description="false in shadow mode and for rides before `bill_from`.")] = True


class ChargeRated(_Charge, frozen=True, kw_only=True):
    """The ride was charged."""


class ChargeAdjusted(msgspec.Struct, frozen=True, gc=False):
    """What support added to the charge, or took off it; its line has the path `adjustment:<adjustment_id>`."""

    adjustment_id: str
    kind: AdjustmentKind
    code: Annotated[str, Meta(description="What for: damage, fine, toll, late_help …, as the operator names it.")]
    amount_minor: Annotated[int, Meta(description="Above 0, whichever the kind.")]


class ChargeRevised(_Charge, frozen=True, kw_only=True):
    """The charge changed, by a correction, a void, a late end or an adjustment; this one replaces those before it."""

    difference_minor: Annotated[int, Meta(description="What is owed more than before; negative: given back.")]
    reason: str | None = None
    adjustment: Annotated[ChargeAdjusted | None, Meta(description="Where an adjustment changed it.")] = None


class _Hold(RideFact, frozen=True, kw_only=True):
    hold_id: str


class HoldOpened(_Hold, frozen=True, kw_only=True):
    """The provider opened an order for the ride: the vehicle may be unlocked."""

    cap_minor: Annotated[int, Meta(description="The most that can be debited on it.")]
    currency: Currency
    expires_at: datetime | None = None


class HoldRefused(_Hold, frozen=True, kw_only=True):
    """No order for this ride: do not unlock."""

    reason: str


class HoldReleased(_Hold, frozen=True, kw_only=True):
    """The order was given up without a debit."""

    reason: str | None = None


class _Debit(RideFact, frozen=True, kw_only=True):
    debit_id: str
    amount_minor: Minor
    currency: Currency
    attempt: Annotated[int, Meta(description="1 for the first.")] = 1
    provider: str | None = None
    provider_reference: str | None = None


class DebitSubmitted(_Debit, frozen=True, kw_only=True):
    """The provider has the debit and has not decided."""


class DebitSettled(_Debit, frozen=True, kw_only=True):
    """The money is there."""

    paid_minor: Minor
    settled_at: datetime
    elsewhere: Annotated[bool, Meta(description="The rider paid outside the provider.")] = False


class DebitDeclined(_Debit, frozen=True, kw_only=True):
    """An attempt failed; `retry_at` says when the next is, if there will be one."""

    reason: str
    retry_at: datetime | None = None


class DebitNeedsRider(_Debit, frozen=True, kw_only=True):
    """Nothing moves before the rider does something."""

    reason: str
    action: RiderAction | None = None


class DebitOverdue(_Debit, frozen=True, kw_only=True):
    """The debit is past its due date."""

    due_at: datetime
    unpaid_minor: Minor


class DebitWrittenOff(_Debit, frozen=True, kw_only=True):
    """The debt was given up; it may still be paid."""

    written_off_minor: Minor


class _Reminder(RideFact, frozen=True, kw_only=True):
    debit_id: str
    amount_minor: Annotated[int, Meta(description="What is to be paid now, in minor units.")]
    currency: Currency
    due_at: datetime
    how_to_pay: Annotated[RiderAction | None, Meta(description="Absent: the debit will be tried again by itself.")] = (
        None
    )
    contact: Contact
    language: Annotated[str | None, Meta(description="The rider's, as on the agreement.")] = None


class ReminderDue(_Reminder, frozen=True, kw_only=True):
    """Tell the rider that a debit is coming. Sending it is the app's business."""

    attempt_at: Annotated[datetime | None, Meta(description="When the next attempt is made.")] = None


class ReminderOverdue(_Reminder, frozen=True, kw_only=True):
    """Tell the rider that the debt is overdue."""


class ReminderReportNotice(_Reminder, frozen=True, kw_only=True):
    """Tell the rider that the debt will be reported unless it is paid by `report_at`."""

    report_at: datetime


class PerformanceReported(RideFact, frozen=True, kw_only=True):
    """The provider was told how the rider kept the agreement."""

    debit_id: str
    record: Literal["completed", "violated"]


class _Refund(RideFact, frozen=True, kw_only=True):
    refund_id: str
    debit_id: str
    amount_minor: Minor
    currency: Currency
    reason: str | None = None


class RefundSettled(_Refund, frozen=True, kw_only=True):
    """The rider has the money back."""

    provider_reference: str | None = None


class RefundFailed(_Refund, frozen=True, kw_only=True):
    """The provider could not give the money back, or it came back after it was settled; an operator decides."""


class _Dispute(RideFact, frozen=True, kw_only=True):
    dispute_id: str
    debit_id: str
    amount_minor: Minor
    currency: Currency
    nature: Literal["complaint", "chargeback"]


class DisputeOpened(_Dispute, frozen=True, kw_only=True):
    """The rider objects: dunning and reports stop where the provider lets them."""

    reason: str | None = None


class DisputeClosed(_Dispute, frozen=True, kw_only=True):
    """The dispute is over; told again where the provider reverses who won it."""

    outcome: Literal["won", "lost", "resolved"]


class _Agreement(Fact, frozen=True, kw_only=True):
    agreement_id: str
    rider_ref: str
    provider: str


class AgreementActive(_Agreement, frozen=True, kw_only=True):
    """Rides can be charged to it; told again when the provider changes its cap or its last day. `cap_minor` is the most
    that one debit may be, None where the contract says nothing."""

    currency: str
    cap_minor: int | None = None
    valid_until: datetime | None = None


class AgreementRefused(_Agreement, frozen=True, kw_only=True):
    """The provider or the rider refused to sign; `reason` is what the provider says."""

    reason: str


class AgreementRevoked(_Agreement, frozen=True, kw_only=True):
    """New rides are refused; the one under way is still collected."""

    reason: str | None = None


class AgreementExpired(_Agreement, frozen=True, kw_only=True):
    """Its time is over, or it was never signed."""

    reason: str | None = None


class _Session(RideFact, frozen=True, kw_only=True):
    revision: int
    reason: str
    sources: Sources


class SessionReview(_Session, frozen=True, kw_only=True):
    """The ride is not charged by itself: an operator must look at it."""


class SessionParked(_Session, frozen=True, kw_only=True):
    """The ride waits for something unknown, and is taken up when that arrives."""


class SessionConflict(_Session, frozen=True, kw_only=True):
    """Events of the ride contradict each other; the first (or least) stands."""

    contradicting: Annotated[Sources, Meta(description="The events that do not count.")]


FACT_TYPES: dict[str, type[Fact]] = {
    "charge.rated": ChargeRated,
    "charge.revised": ChargeRevised,
    "hold.opened": HoldOpened,
    "hold.refused": HoldRefused,
    "hold.released": HoldReleased,
    "debit.submitted": DebitSubmitted,
    "debit.settled": DebitSettled,
    "debit.declined": DebitDeclined,
    "debit.needs_rider": DebitNeedsRider,
    "debit.overdue": DebitOverdue,
    "debit.written_off": DebitWrittenOff,
    "reminder.due": ReminderDue,
    "reminder.overdue": ReminderOverdue,
    "reminder.report_notice": ReminderReportNotice,
    "performance.reported": PerformanceReported,
    "refund.settled": RefundSettled,
    "refund.failed": RefundFailed,
    "dispute.opened": DisputeOpened,
    "dispute.closed": DisputeClosed,
    "agreement.active": AgreementActive,
    "agreement.refused": AgreementRefused,
    "agreement.revoked": AgreementRevoked,
    "agreement.expired": AgreementExpired,
    "session.review": SessionReview,
    "session.parked": SessionParked,
    "session.conflict": SessionConflict,
}
"""Every fact by its name, the middle of its CloudEvents type."""
