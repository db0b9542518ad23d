"""What a ride under way has used by now: the same usage as at its end, with now for the end."""

from __future__ import annotations

from datetime import datetime

from service.billing.catalog import Catalog, Operator, TariffVersion
from service.billing.sessions import (
    Session,
    SessionState,
    Usage,
    course,
    reservation_usage,
    review_reason,
    usage,
)
from service.billing.tariffs import Tariff, longest_reservation
from service.billing.verdicts import lead_event


def running_tariff(
    session: Session, operator: Operator, catalog: Catalog, version: int | None
) -> tuple[str, TariffVersion | None]:
    """The id of the tariff that the ride names, and the version it is under: the one it was decided under, or else the
    one in force at its start."""
    lead = lead_event(session)
    tariff_id = lead.tariff_id or ""
    if version is not None:
        return tariff_id, catalog.tariff_version(operator.operator_no, tariff_id, version)
    told = course(session)
    at = told.started_at or lead.time
    if lead.tariff_version is not None:
        return tariff_id, catalog.tariff_version(operator.operator_no, tariff_id, lead.tariff_version)
    return tariff_id, catalog.tariff_at(operator.operator_no, tariff_id, at)


def running_usage(
    session: Session, state: SessionState, tariff: Tariff, operator: Operator, now: datetime
) -> Usage | str:
    """What the ride has used by `now`, or why there is no fare to be told."""
    told = course(session)
    if state is SessionState.RESERVED and told.reservation is not None:
        runs_out_at = told.reservation.time + longest_reservation(tariff)
        return reservation_usage(told.reservation, min(max(now, told.reservation.time), runs_out_at))
    if state is not SessionState.OPEN or told.started_at is None:
        return f"session_{state}"
    ended_at = max(now, told.started_at)
    reason = review_reason(told.started_at, ended_at, told.meters, operator.ride_hours_max)
    return reason or usage(session, told, ended_at)
