"""What a ride costs: the running fare, and quotes; by the same pure functions as the charge."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, RawBody
from msgspec import Meta

from service.billing.balances import Balance, BalanceUse, windows_of
from service.billing.catalog import Operator
from service.billing.events.ride_data import ParkingCategory
from service.billing.extent import LENGTH_HOURS_MAX, METERS_MAX
from service.billing.instants import utc
from service.billing.rating import Charge, rate, rate_once
from service.billing.running import running_tariff, running_usage
from service.billing.sessions import Usage
from service.billing.tariffs import Tariff, TariffDraft, build, import_document, too_early
from service.billing.tariffs.gbfs import TariffError
from service.web.access import Access, access_of, needs
from service.web.answers import Asked, Name, answer, read
from service.web.doors import Doors, doors_of
from service.web.problems import invalid, not_found, refused_tariff
from service.web.shapes import ChargeView, UsageView
from service.web.views import charge_view, ride_of, usage_view

SECONDS_MAX = LENGTH_HOURS_MAX * 3600
SECONDS_AT_ONCE_MAX = 86_400
Assumed = Literal["charge", "rider", "nothing_used"]


class FareView(msgspec.Struct, frozen=True):
    """What a ride costs by `as_of` (business time). `final`: it is the charge. Without a `fare`, `reason` says why.

    `balance_assumed`: "charge" is what the charge rests on, "rider" what the rider's closed rides used by now.
    """

    session_id: str
    state: str
    as_of: datetime
    final: bool
    reason: str | None
    tariff_id: str | None
    tariff_version: int | None
    balance_assumed: Assumed
    usage: UsageView | None
    fare: ChargeView | None


class QuoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a ride would be: on a published tariff, or on a plan (GBFS, or a tariff document) given here.

    `agreement_id` or `rider_ref` says whose earlier rides count towards caps; without one, nothing is used.
    """

    seconds: Annotated[int, Meta(ge=0, le=SECONDS_MAX)]
    meters: Annotated[int, Meta(ge=0, le=METERS_MAX)] = 0
    at: Annotated[datetime, Meta(tz=True)] | None = None
    tariff_id: Name | None = None
    tariff_version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    plan: msgspec.Raw = msgspec.Raw(b"")
    time_zone: Name | None = None
    agreement_id: Name | None = None
    rider_ref: Name | None = None
    vehicle_type: Name | None = None
    parking_category: ParkingCategory | None = None
    zone_fees: Annotated[list[Name], Meta(max_length=32)] = []
    reserved_seconds: Annotated[int, Meta(ge=0, le=SECONDS_MAX)] | None = None


class QuoteView(msgspec.Struct, frozen=True):
    """What the ride would cost. `balance_assumed`: "rider" or "nothing_used"."""

    tariff_id: str
    tariff_version: int | None
    balance_assumed: Assumed
    usage: UsageView
    fare: ChargeView


@get("/v1/sessions/{session_id:str}/fare", opt=needs("status:read", riders=True), tags=["sessions"])
async def get_fare(request: Asked, session_id: FromPath[str]) -> Response[FareView]:
    """What the ride costs so far; for a closed ride its charge."""
    doors, access = doors_of(request), access_of(request)
    rows = await doors.ride(access, session_id)
    operator, now = await doors.operator(access.operator_no), doors.now()
    ride = ride_of(rows, operator)
    version = ride.tariff[1] if ride.tariff else None
    named, tariff = running_tariff(ride.session, operator, doors.knowledge.catalog, version)
    about = (session_id, ride.state.value, now)
    if ride.charge is not None:
        stands = (usage_view(ride.charge.usage), charge_view(ride.charge.charge))
        return answer(request, FareView(*about, True, ride.reason, named, version, "charge", *stands))
    if tariff is None:
        reason = ride.reason or "unknown_tariff"
        return answer(request, FareView(*about, False, reason, named or None, None, "nothing_used", None, None))
    used = running_usage(ride.session, ride.state, tariff.tariff, operator, now)
    if isinstance(used, str):
        reason = ride.reason or used
        return answer(request, FareView(*about, False, reason, named, tariff.version, "nothing_used", None, None))
    rider_no = rows.agreement.rider_no if rows.agreement else None
    balance = await _balance(doors, access, rider_no, used, tariff.tariff)
    fare = charge_view(await _rated(used, tariff.tariff, balance))
    assumed: Assumed = "nothing_used" if rider_no is None else "rider"
    return answer(request, FareView(*about, False, None, named, tariff.version, assumed, usage_view(used), fare))


@post("/v1/quotes", status_code=200, opt=needs("status:read", riders=True) | {"body": QuoteRequest}, tags=["tariffs"])
async def quote(request: Asked, body: RawBody) -> Response[QuoteView]:
    """What a ride would cost, line by line, and which earlier rides that assumes."""
    doors, access = doors_of(request), access_of(request)
    asked = read(_QUOTE, body)
    operator = await doors.operator(access.operator_no)
    at = utc(asked.at or doors.now())
    if asked.seconds > operator.ride_hours_max * 3600:
        raise invalid("/seconds", f"a ride lasts at most {operator.ride_hours_max} hours")
    if access.rider_ref is not None and bytes(asked.plan):
        raise invalid("/plan", "a rider's token can ask about published tariffs alone")
    tariff, version = await _tariff(doors, operator, asked, at)
    used = Usage(
        started_at=at,
        ended_at=at + timedelta(seconds=asked.seconds),
        duration_us=asked.seconds * 1_000_000,
        meters=asked.meters,
        vehicle_type=asked.vehicle_type,
        parking_category=asked.parking_category,
        zone_fees=tuple(asked.zone_fees),
        reserved_us=None if asked.reserved_seconds is None else asked.reserved_seconds * 1_000_000,
    )
    rider_no = await _rider_no(doors, access, asked)
    balance = await _balance(doors, access, rider_no, used, tariff)
    assumed: Assumed = "nothing_used" if rider_no is None else "rider"
    fare = charge_view(await _rated(used, tariff, balance, published=version is not None))
    return answer(request, QuoteView(tariff.tariff_id, version, assumed, usage_view(used), fare))


async def _rated(used: Usage, tariff: Tariff, balance: Balance, *, published: bool = True) -> Charge:
    """The charge. A long ride may be laborious, and so may a plan from outside: others are served meanwhile."""
    if not published:
        return await asyncio.to_thread(rate_once, used, tariff, balance)
    if used.duration_us > SECONDS_AT_ONCE_MAX * 1_000_000:
        return await asyncio.to_thread(rate, used, tariff, balance)
    return rate(used, tariff, balance)


async def _tariff(doors: Doors, operator: Operator, asked: QuoteRequest, at: datetime) -> tuple[Tariff, int | None]:
    """The tariff that a quote is about, and its version where it is a published one."""
    inline = bytes(asked.plan)
    if bool(inline) == (asked.tariff_id is not None):
        raise invalid("/tariff_id", "give either `tariff_id` or `plan`")
    if inline:
        try:
            given = build(_draft(inline), valid_from=at, time_zone=asked.time_zone or operator.time_zone)
        except TariffError as error:
            raise refused_tariff(error, "" if error.path == "/time_zone" else "/plan") from None
        early = too_early(given, at)
        if early is not None:
            raise invalid("/at", f"{early}; give an instant from then on")
        return given, None
    assert asked.tariff_id is not None
    if asked.time_zone is not None:
        raise invalid("/time_zone", "a published tariff has its own; it is for a `plan` that names none")
    catalog = doors.knowledge.catalog
    if not catalog.knows_tariff(operator.operator_no, asked.tariff_id):
        await doors.look_again()
    if asked.tariff_version is None:
        version = catalog.tariff_at(operator.operator_no, asked.tariff_id, at)
    else:
        version = catalog.tariff_version(operator.operator_no, asked.tariff_id, asked.tariff_version)
    if version is None:
        field = "/tariff_id" if asked.tariff_version is None else "/tariff_version"
        raise invalid(field, f"no such tariff in force at {at.isoformat()}")
    return version.tariff, version.version


def _draft(inline: bytes) -> TariffDraft:
    drafts = import_document(inline)
    if len(drafts) != 1:
        raise invalid("/plan", f"{len(drafts)} plans; give one")
    return drafts[0]


async def _rider_no(doors: Doors, access: Access, asked: QuoteRequest) -> int | None:
    """Whose earlier rides count; a rider's token is about that rider."""
    rider_ref = asked.rider_ref or access.rider_ref
    access.must_see(rider_ref, "rider")
    async with doors.asking() as store:
        if asked.agreement_id is not None:
            agreement = await store.agreement(access.operator_no, asked.agreement_id)
            if agreement is None or not access.sees(agreement.rider_ref):
                raise not_found("agreement")
            if rider_ref not in (None, agreement.rider_ref):
                raise invalid("/rider_ref", "the agreement is another rider's")
            return agreement.rider_no
        if rider_ref is None:
            return None
        rider_no = await store.rider_no(access.operator_no, rider_ref)
        if rider_no is None:
            raise not_found("rider")
        return rider_no


async def _balance(doors: Doors, access: Access, rider_no: int | None, used: Usage, tariff: Tariff) -> Balance:
    """What the rider's closed rides used of the windows that this one touches."""
    windows = windows_of(used, tariff)
    if rider_no is None or not windows:
        return Balance()
    async with doors.asking() as store:
        held = await store.balances(access.operator_no, rider_no, windows)
    return Balance(tuple(BalanceUse(window, held[window]) for window in windows if window in held))


_QUOTE = msgspec.json.Decoder(QuoteRequest)
