"""What is shown of a ride and its debits, made from what is stored."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from decimal import Decimal
from operator import attrgetter
from typing import Any, TypeVar

from msgspec.structs import replace

from service.adapters.postgres.reading import DebitRow, RideRows
from service.billing.catalog import AgreementRef, Operator
from service.billing.debits.state import debit_id, for_all, refund_id
from service.billing.events import RideEvent, decode_events
from service.billing.rating import Charge, Line
from service.billing.rides import Ride, read_charge, restore
from service.billing.sessions import Course, Place, Usage, course, gone_by
from service.billing.verdicts import lead_event
from service.web.shapes import (
    AdjustmentView,
    BalanceView,
    ChargeView,
    DebitStory,
    DebitView,
    DisputeView,
    EventView,
    LineView,
    PauseView,
    RefundAnswer,
    RefundView,
    RevisionView,
    RideMoney,
    SessionSummary,
    SessionView,
    StopView,
    TransitionView,
    UsageView,
)

Told = TypeVar("Told", bound=DebitView)


def ride_of(rows: RideRows, operator: Operator) -> Ride:
    """The ride that the rows tell."""
    known = rows.agreement
    agreement = None if known is None else AgreementRef(known.agreement_no, known.rider_no, known.currency)
    return restore(b"", operator, agreement, rows.revisions or [])


def rider_of(rows: RideRows) -> str | None:
    """Whose ride it is, as far as anybody knows."""
    return None if rows.agreement is None else rows.agreement.rider_ref


def summary_of(rows: RideRows, operator: Operator) -> SessionSummary:
    """A ride for a list."""
    ride = ride_of(rows, operator)
    return SessionSummary(**_summary(rows, ride, course(ride.session)))


def session_view(rows: RideRows, operator: Operator) -> SessionView:
    """A ride with everything."""
    ride = ride_of(rows, operator)
    told = course(ride.session)
    obligations = rows.obligations or []
    owing = {obligation.revision: obligation.amount_minor for obligation in obligations}
    money, counting = money_of(rows), gone_by(ride.session)
    return SessionView(
        **_summary(rows, ride, told),
        billable=told.billable,
        purpose=told.purpose,
        usage=usage_view(ride.charge.usage) if ride.charge else None,
        charge=charge_view(ride.charge.charge) if ride.charge else None,
        owed_minor=money.owed_minor,
        paid_minor=money.paid_minor,
        refunded_minor=money.refunded_minor,
        to_refund_minor=money.to_refund_minor,
        given_back_minor=money.given_back_minor,
        outside_minor=money.outside_minor,
        given_up_minor=money.given_up_minor,
        open_minor=money.open_minor,
        charged_back_minor=money.charged_back_minor,
        revisions=_revisions(rows, owing, counting, stands=ride.charge is not None),
        adjustments=_adjustments(ride),
        obligations=obligations,
        debits=[debit_story(debit, rows) for debit in rows.debits or []],
        hold=rows.hold,
        events=event_views(ride.session.counted, counting),
        conflicts=event_views(ride.session.conflicts, counting),
    )


def taken_by_banks(rows: RideRows) -> dict[int, int]:
    """What a bank has of each debit, in minor units by its ordinal."""
    return {held.ordinal: sum(item.taken_minor for item in held.disputes) for held in rows.disputes or []}


def money_of(rows: RideRows) -> RideMoney:
    """The money of a ride. To be given back is what was paid, here or elsewhere, and is not owed, as far as a bank has
    not taken it back, nor the operator given it back outside; what the rider paid elsewhere counts first for what he
    owes. Of what is owed and was not paid, so much was given up, and the rest is open: they add up to it, also while a
    debit does not know yet that less is owed."""
    debits = rows.debits or []
    owed_minor = sum(obligation.amount_minor for obligation in rows.obligations or [])
    paid_minor = sum(debit.paid_minor for debit in debits)
    refunded_minor = sum(debit.refunded_minor for debit in debits)
    forgone_minor = sum(debit.forgone_minor for debit in debits)
    outside_minor = sum(debit.outside_minor for debit in debits)
    given_back_minor = sum(debit.given_back_minor for debit in debits)
    taken = taken_by_banks(rows)
    gone = {debit.ordinal: debit.refunded_minor + debit.given_back_minor for debit in debits}
    at_hand = (debit.paid_minor - gone[debit.ordinal] - taken.get(debit.ordinal, 0) for debit in debits)
    kept_minor = paid_minor - sum(gone.values())
    excess_minor = kept_minor - max(0, owed_minor - outside_minor)
    to_refund_minor = max(0, min(excess_minor, sum(max(0, minor) for minor in at_hand)))
    unpaid_minor = max(0, owed_minor - (kept_minor - to_refund_minor))
    paid_outside_minor = min(outside_minor, unpaid_minor)
    given_up_minor = min(forgone_minor - outside_minor, unpaid_minor - paid_outside_minor)
    return RideMoney(
        owed_minor=owed_minor,
        paid_minor=paid_minor,
        refunded_minor=refunded_minor,
        to_refund_minor=to_refund_minor + outside_minor - paid_outside_minor,
        given_back_minor=given_back_minor,
        outside_minor=outside_minor,
        given_up_minor=given_up_minor,
        open_minor=unpaid_minor - paid_outside_minor - given_up_minor,
        charged_back_minor=sum(taken.values()),
    )


def _revisions(
    rows: RideRows, owing: Mapping[int, int], counting: Container[Place], *, stands: bool
) -> list[RevisionView]:
    """The decisions; the tariff's version is stored with the one that froze it, and stands from then on. The charge
    that stands is told by itself."""
    told: list[RevisionView] = []
    version: int | None = None
    charged = {one.revision: one.charge for one in rows.revisions or [] if one.charge is not None}
    if stands:
        charged.pop(max(charged))
    for stored in rows.revisions or []:
        text = charged.get(stored.revision)
        version = version if stored.tariff_version is None else stored.tariff_version
        told.append(
            RevisionView(
                stored.revision,
                stored.state,
                stored.reason,
                stored.decided_at,
                version,
                stored.amount_minor,
                stored.currency,
                owing.get(stored.revision, 0),
                event_views(decode_events(stored.events.encode()), counting),
                None if text is None else charge_view(read_charge(text).charge),
            )
        )
    return told


def for_rider(view: SessionView) -> SessionView:
    """The same without support's own words."""
    told = [replace(one, reason=None, by=None) for one in view.adjustments]
    return replace(
        view,
        adjustments=told,
        debits=[debit_for_rider(debit) for debit in view.debits],
        revisions=[replace(one, events=_events_for_rider(one.events)) for one in view.revisions],
        events=_events_for_rider(view.events),
        conflicts=_events_for_rider(view.conflicts),
    )


def _events_for_rider(views: Iterable[EventView]) -> list[EventView]:
    return [replace(view, reason=None, by=None) for view in views]


def debit_for_rider(view: DebitStory) -> DebitStory:
    """The same without support's own words."""
    refunds = [replace(one, because=None, code=_for_rider(one.code)) for one in view.refunds]
    transitions = [replace(one, why=for_all(one.why)) for one in view.transitions]
    return replace(listed_for_rider(view), refunds=refunds, transitions=transitions, stops=[])


def listed_for_rider(view: Told) -> Told:
    """A debit of a list without support's own words."""
    return replace(view, reason=_for_rider(view.reason))


def _for_rider(reason: str | None) -> str | None:
    return None if reason is None else for_all(reason)


def charge_view(charge: Charge) -> ChargeView:
    """A charge with its lines."""
    return ChargeView(
        charge.currency,
        charge.total_minor,
        charge.tax_minor,
        [_line(line) for line in charge.lines],
        [BalanceView(use.window, plain(use.used)) for use in charge.balance.uses],
        [BalanceView(use.window, plain(use.used)) for use in charge.used],
    )


def usage_view(usage: Usage) -> UsageView:
    """What a ride used."""
    return UsageView(
        usage.started_at,
        usage.ended_at,
        usage.duration_us,
        usage.meters,
        [PauseView(*pause) for pause in usage.pauses],
        usage.vehicle_type,
        usage.parking_category,
        usage.zone_fees,
        usage.reserved_us,
        usage.rode,
        usage.lost_end,
    )


def event_views(events: Iterable[RideEvent], counting: Container[Place]) -> list[EventView]:
    """Events with their places in Kafka, and whether the ride goes by them."""
    return [_event_view(event, (event.source, event.id, event.position) in counting) for event in events]


def _event_view(event: RideEvent, counts: bool) -> EventView:
    place = _PLACE(event.position)
    return EventView(event.kind, event.source, event.id, event.time, *place, counts, event.reason, event.by)


def debit_view(row: DebitRow) -> DebitView:
    """A debit for a list."""
    return DebitView(**_debit(row))


def debit_story(row: DebitRow, rows: RideRows) -> DebitStory:
    """A debit with those transitions, refunds, disputes and stops of its ride that are its own."""
    return DebitStory(**_debit(row), **_story(row, rows))


def refund_answer(row: DebitRow, rows: RideRows) -> RefundAnswer:
    """The same with the money of its ride."""
    return RefundAnswer(**_debit(row), **_story(row, rows), ride=money_of(rows))


def _story(row: DebitRow, rows: RideRows) -> dict[str, Any]:
    return {
        "owed_minor": rows.owed_of_minor(row),
        "transitions": [
            TransitionView(
                item.transition,
                item.from_state,
                item.to_state,
                item.why,
                item.amount_minor,
                item.provider_key,
                item.provider_ref,
                item.business_at,
            )
            for item in rows.transitions or []
            if item.ordinal == row.ordinal
        ],
        "refunds": [
            RefundView(
                refund_id(row.ride_no, row.ordinal, item.refund_ordinal),
                item.provider_key,
                item.state,
                item.amount_minor,
                item.currency,
                item.reason,
                item.because,
                item.code,
                item.provider_ref,
                item.created_at,
                item.updated_at,
            )
            for item in rows.refunds or []
            if item.ordinal == row.ordinal
        ],
        "disputes": [
            DisputeView(
                item.number, item.kind, item.state, item.amount_minor, item.taken_minor, item.fee_minor, item.ref
            )
            for held in rows.disputes or []
            if held.ordinal == row.ordinal
            for item in sorted(held.disputes, key=lambda dispute: dispute.number)
        ],
        "stops": [
            StopView(item.what, item.stop_no, item.reason) for item in rows.stops or [] if item.ordinal == row.ordinal
        ],
    }


def plain(number: Decimal) -> str:
    """An exact decimal without an exponent."""
    return format(number, "f")


def _summary(rows: RideRows, ride: Ride, told: Course) -> dict[str, Any]:
    lead = lead_event(ride.session)
    agreement = rows.agreement
    charge = ride.charge
    assert rows.revisions is not None
    return {
        "session_id": lead.session_id,
        "state": ride.state.value,
        "reason": ride.reason,
        "revision": ride.revision,
        "agreement_id": agreement.agreement_id if agreement else lead.agreement_id,
        "rider_ref": agreement.rider_ref if agreement else None,
        "tariff_id": lead.tariff_id,
        "tariff_version": ride.tariff[1] if ride.tariff else None,
        "vehicle_id": next((event.vehicle_id for event in ride.session.counted if event.vehicle_id), None),
        "started_at": told.started_at,
        "ended_at": charge.usage.ended_at if charge else told.ended_at,
        "amount_minor": charge.charge.total_minor if charge else None,
        "currency": charge.charge.currency if charge else None,
        "owed": charge.owed if charge else None,
        "updated_at": rows.revisions[-1].decided_at,
    }


def _adjustments(ride: Ride) -> list[AdjustmentView]:
    counted = {one.adjustment_id: one for one in (ride.charge.adjusted if ride.charge else ())}
    return [
        AdjustmentView(
            one.adjustment_id,
            one.kind,
            one.code,
            one.amount_minor,
            one.currency,
            came.amount_minor if came else 0,
            came.tax_minor if came else 0,
            None if one.tax_rate is None else plain(one.tax_rate),
            one.regardless,
            one.reason,
            one.by,
            event.time,
            one.label,
        )
        for event in ride.session.counted
        if (one := event.adjustment) is not None
        for came in (counted.get(one.adjustment_id),)
    ]


def _line(line: Line) -> LineView:
    return LineView(
        line.code,
        plain(line.quantity),
        line.unit,
        plain(line.unit_price),
        plain(line.amount),
        line.path,
        line.window,
        line.refundable,
        None if line.tax_rate is None else plain(line.tax_rate),
    )


def _debit(row: DebitRow) -> dict[str, Any]:
    named = {"debit_id": debit_id(row.ride_no, row.ordinal), "provider_reference": row.provider_ref}
    return named | {name: getattr(row, name) for name in _OF_ROW}


_OF_ROW = tuple(name for name in DebitView.__struct_fields__ if name in DebitRow.__struct_fields__)
"""What is shown of a debit as it is stored."""
_PLACE = attrgetter("topic", "partition", "offset")
