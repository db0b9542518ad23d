"""Lint: what in a tariff is wrong (`error`, the tariff is refused) or looks wrong (`warning`), and where.

The oddities are those found in real feeds: gaps, caps faked by free segments, intervals that do not fit, prose that
says something else than the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import msgspec

from service.billing.extent import CAP_MINUTES_MIN, METERS_MAX
from service.billing.linting.prose import read_prose
from service.billing.money import format_amount, to_minor
from service.billing.rating import rate
from service.billing.rating.meters import Meter, meters_of
from service.billing.sessions import RIDE_HOURS_MAX, Usage
from service.billing.tariffs import Tariff, TariffDraft, build, import_document
from service.billing.tariffs.gbfs import MINUTE_US, Plan, Segment, TariffError
from service.billing.tariffs.rules import FreeMinutes, amount_of

ASSUMED_START = datetime(2026, 1, 1, tzinfo=UTC)
ASSUMED_ZONE = "UTC"
BEYOND_DEBIT_MAX = frozenset({"no_maximum", "maximum_above_debit"})
"""The codes of what is said only where it is known how much may be debited for a ride."""
OTHER_CURRENCY = "other_currency"
"""The code of what is said where an operator's tariff is not in his currency."""
FALLS_SOUGHT_MAX = 200
"""How many charges of a negative rate are looked at for a fare that falls."""
FALLS_WORK_MAX = 25_000
"""How much is done to find one, in parts of rides that are rated; between all negative rates."""


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One thing lint has to say; `path` is a JSON pointer into the document that was read."""

    severity: Literal["error", "warning"]
    code: str
    path: str
    message: str
    tariff_id: str = ""


def lint_document(data: bytes, debit_max: Decimal | None = None) -> list[Finding]:
    """Everything to be said about a document of one tariff or many; an unusable one is an error, never an exception.

    `debit_max` is the most that may be debited for a ride, in major units of each tariff's own currency.
    """
    try:
        drafts = import_document(data)
    except TariffError as error:
        return [_refused(error, "")]
    findings = []
    for draft in drafts:
        try:
            tariff = build(draft, valid_from=ASSUMED_START, time_zone=ASSUMED_ZONE)
        except TariffError as error:
            findings.append(_refused(error, draft.tariff_id))
        else:
            highest = None if debit_max is None else to_minor(debit_max, tariff.currency)
            findings += [_placed(finding, draft) for finding in lint(tariff, highest)]
    return findings


def lint(tariff: Tariff, debit_max_minor: int | None = None) -> list[Finding]:
    """What looks wrong in a tariff that can be rated with; paths start at its own document (`/plan`, `/rules`).

    `debit_max_minor` is the most that the provider's service or the agreement lets us debit, in minor units.
    """
    return [
        *_segments(tariff),
        *_prose(tariff),
        *_falls(tariff),
        *_maximum(tariff, debit_max_minor),
        *_reservation(tariff),
    ]


def lint_at(tariff: Tariff, currency: str, debit_max_minor: int | None) -> list[Finding]:
    """`lint`, and what is odd about the tariff at an operator of this currency, which is that of `debit_max_minor`."""
    if tariff.currency == currency:
        return lint(tariff, debit_max_minor)
    problem = (
        f"the operator's currency is {currency}; rides on agreements that are not in {tariff.currency} go to review"
    )
    return [*lint(tariff), Finding("warning", OTHER_CURRENCY, "/plan/currency", problem, tariff.tariff_id)]


def _segments(tariff: Tariff) -> Iterator[Finding]:
    windowed = {window.segment for window in tariff.rules.windows}
    for name, unit in (("per_min_pricing", "minute"), ("per_km_pricing", "km")):
        at = f"/plan/{name}"
        listed = enumerate(getattr(tariff.plan, name) or ())
        segments = [(f"{at}/{index}", segment) for index, segment in listed if f"{at}/{index}" not in windowed]
        for path, segment in segments:
            yield from _end_off_interval(path, segment)
        yield from _gaps(segments, unit)
        yield from _overlaps(segments, unit)
        yield from _ends(segments, unit)


def _end_off_interval(path: str, segment: Segment) -> Iterator[Finding]:
    if segment.end is None or not segment.interval or not (segment.end - segment.start) % segment.interval:
        return
    problem = f"end {segment.end} is not start {segment.start} + n x interval {segment.interval}"
    yield _warn("end_off_interval", f"{path}/end", f"{problem}: the last interval is charged in full and cut short")


def _gaps(segments: list[tuple[str, Segment]], unit: str) -> Iterator[Finding]:
    reached: Decimal | None = None
    ordered = sorted(segments, key=lambda item: item[1].start)
    for position, (path, segment) in enumerate(ordered):
        if position and reached is not None and segment.start > reached:
            yield _warn("gap", f"{path}/start", f"nothing is charged from {unit} {reached} to {unit} {segment.start}")
        if position == 0 or reached is not None:
            reached = None if segment.end is None else max(segment.end, reached or segment.end)


def _overlaps(segments: list[tuple[str, Segment]], unit: str) -> Iterator[Finding]:
    charged = sorted((item for item in segments if item[1].rate and item[1].interval), key=lambda item: item[1].start)
    for index, (path, earlier) in enumerate(charged):
        for other, later in charged[index + 1 :]:
            if earlier.end is None or later.start < earlier.end:
                both = f"{path.rsplit('/', 1)[1]} and {other.rsplit('/', 1)[1]}"
                yield _warn(
                    "overlap", f"{other}/start", f"segments {both} are both charged from {unit} {later.start} on"
                )


def _ends(segments: list[tuple[str, Segment]], unit: str) -> Iterator[Finding]:
    """Segments that end and leave the rest of the ride free, and free ones used as a cap."""
    for path, segment in segments:
        end = segment.end
        if end is None or not segment.interval:
            continue
        followed = any(other.end is None or other.end > end for _, other in segments)
        charged_before = any(other.start < segment.start and other.rate for _, other in segments)
        if not followed and not segment.rate:
            problem = f"a free segment that ends: after {unit} {end} the ride costs nothing more, however long"
            yield _warn("free_after_end", f"{path}/end", f"{problem}; for a cap use fare_capping or day_cap")
        elif not followed:
            problem = f"nothing follows: after {unit} {end} the ride costs nothing more, however long"
            yield _warn("nothing_after_end", f"{path}/end", f"{problem}; leave the end out, or add what follows")
        elif charged_before and not segment.rate:
            problem = f"a cap made of a free segment holds once, from {unit} {segment.start} to {unit} {end}"
            yield _warn("cap_by_free_segment", path, f"{problem}; fare_capping says what is meant")


def _prose(tariff: Tariff) -> Iterator[Finding]:
    plan, prose = tariff.plan, read_prose(tariff.plan)
    amounts, minutes, kilometres = _numbers(tariff)
    unknown = prose.amounts - amounts - {Decimal(0)}
    if unknown:
        said = ", ".join(f"{amount.normalize():f} {plan.currency}" for amount in sorted(unknown))
        yield _warn(
            "prose_amount", "/plan/description", f"the text speaks of {said}, which nothing in the plan charges"
        )
    lengths = prose.minutes - minutes - {Decimal(0)}
    if lengths:
        said = ", ".join(f"{length.normalize():f} min" for length in sorted(lengths))
        yield _warn("prose_duration", "/plan/description", f"the text speaks of {said}, which no segment knows")
    distances = prose.kilometres - kilometres - {Decimal(0)}
    if distances and plan.per_km_pricing:
        said = ", ".join(f"{distance.normalize():f} km" for distance in sorted(distances))
        yield _warn("prose_distance", "/plan/description", f"the text speaks of {said}, which no segment knows")
    for index, segment in enumerate(plan.per_min_pricing or ()):
        if prose.per_time and not segment.interval:
            message = "interval 0 charges once, and the text speaks of a rate per time"
            yield _warn("interval_zero", f"/plan/per_min_pricing/{index}/interval", message)
    if prose.time_of_day is not None and not tariff.rules.windows:
        field, word = prose.time_of_day
        problem = f"{word!r} is a time of day, and the numbers only know how long a ride is"
        yield _warn("time_of_day", f"/plan/{field}", f"{problem}; say the hours in rules.windows")


def _numbers(tariff: Tariff) -> tuple[set[Decimal], set[Decimal], set[Decimal]]:
    """The amounts, minutes and kilometres that the tariff is charged by."""
    plan, rules = tariff.plan, tariff.rules
    amounts = {plan.price, *rules.zone_fees.values(), *rules.parking_fees.values()}
    amounts |= {
        amount_of(getattr(rules, name)) or Decimal(0) for name in ("fare_min", "ride_max", "day_cap", "month_cap")
    }
    amounts |= {plan.reservation_price_per_min or Decimal(0), plan.reservation_price_flat_rate or Decimal(0)}
    free = rules.free_minutes.minutes if isinstance(rules.free_minutes, FreeMinutes) else rules.free_minutes
    minutes = {free or Decimal(0), rules.default_reserve_time or Decimal(0)}
    if plan.fare_capping is not None:
        amounts.add(plan.fare_capping.price)
        minutes.add(plan.fare_capping.duration)
    if rules.per_night is not None:
        amounts.add(rules.per_night.rate)
        minutes.add(Decimal(1440))
    if rules.day_cap is not None:
        minutes.add(Decimal(1440))
    kilometres: set[Decimal] = set()
    for segments, known in ((plan.per_min_pricing, minutes), (plan.per_km_pricing, kilometres)):
        for segment in segments or ():
            end = segment.start + segment.interval if segment.end is None else segment.end
            known |= {segment.start, segment.interval, end, end - segment.start}
            amounts.add(segment.rate)
    return amounts, minutes, kilometres


def _falls(tariff: Tariff) -> Iterator[Finding]:
    """The first place, if any, where a ride that goes on costs less: of each negative rate the first charges are tried,
    as many as all of them together leave the work for."""
    meters = meters_of(tariff.plan, tariff.rules)
    negative = [meter for meter in meters if meter.rate < 0 and meter.clock != "pause"]
    for meter in negative:
        longest = RIDE_HOURS_MAX * 60 * MINUTE_US if meter.clock == "ride" else METERS_MAX * 1000
        work = FALLS_WORK_MAX // len(negative)
        for number in range(FALLS_SOUGHT_MAX if meter.interval else 1):
            at = meter.start + number * meter.interval
            if at > longest or (meter.end is not None and at >= meter.end):
                break
            parts = 1 + (at // (CAP_MINUTES_MIN * MINUTE_US) if meter.clock == "ride" else 0)
            work -= 2 * parts * len(meters)
            if work < 0:
                break
            before, after = _total(tariff, meter, at), _total(tariff, meter, at + 1)
            if after < before:
                reached = f"{Decimal(at) / (MINUTE_US if meter.clock == 'ride' else 1_000_000):f}"
                unit = "minute" if meter.clock == "ride" else "km"
                fell = f"{format_amount(before, tariff.currency)} to {format_amount(after, tariff.currency)}"
                yield _warn("fare_falls", f"{meter.path}/rate", f"past {unit} {reached} the fare falls from {fell}")
                break


def _total(tariff: Tariff, meter: Meter, used: int) -> int:
    """The fare of a ride that used so much on the meter's clock, and nothing on the other."""
    duration = used if meter.clock == "ride" else 0
    metres = 0 if meter.clock == "ride" else -(-used // 1000)
    start = tariff.valid_from
    ended = start + timedelta(microseconds=duration)
    return rate(Usage(started_at=start, ended_at=ended, duration_us=duration, meters=metres), tariff).total_minor


def _maximum(tariff: Tariff, debit_max_minor: int | None) -> Iterator[Finding]:
    """Whether a ride can cost more than may be debited for one (collection.md: such a tariff is refused by lint), fees
    of zones, parking and reservation aside."""
    if debit_max_minor is None:
        return
    limit = f"{format_amount(debit_max_minor, tariff.currency)} {tariff.currency}"
    ridden, rules = _longest(tariff), tariff.rules
    bound = amount_of(rules.ride_max)
    stated = to_minor(tariff.plan.price if bound is None else bound, tariff.currency)
    if bound is None and (rules.per_night is not None or meters_of(tariff.plan, rules)):
        problem = f"nothing says what a ride costs at most, and only {limit} may be debited for one"
        yield Finding("error", "no_maximum", "/rules", f"{problem}; add ride_max, no more than that", tariff.tariff_id)
    elif max(stated, ridden) > debit_max_minor:
        path = "/plan/price" if bound is None else "/rules/ride_max"
        dearest = format_amount(max(stated, ridden), tariff.currency)
        taxed = ", with tax," if ridden > stated else ""
        problem = f"a ride can cost {dearest}{taxed} and only {limit} may be debited for one"
        yield Finding("error", "maximum_above_debit", path, f"{problem}; lower it", tariff.tariff_id)


def _longest(tariff: Tariff) -> int:
    """What a ride of `RIDE_HOURS_MAX` costs, with tax on top where there is any."""
    lasts = timedelta(hours=RIDE_HOURS_MAX)
    start, length = tariff.valid_from, lasts // timedelta(microseconds=1)
    used = Usage(started_at=start, ended_at=start + lasts, duration_us=length, meters=0)
    return rate(used, tariff).total_minor


def _reservation(tariff: Tariff) -> Iterator[Finding]:
    plan: Plan = tariff.plan
    if plan.reservation_price_per_min is not None and tariff.rules.default_reserve_time is None:
        problem = "a price per reserved minute, and nothing says how long a reservation lasts: 24 h are assumed"
        yield _warn("reserve_time_missing", "/plan/reservation_price_per_min", f"{problem}; add default_reserve_time")
    if plan.surge_pricing:
        yield _warn(
            "surge_pricing", "/plan/surge_pricing", "only a flag in GBFS: it changes no fare; publish a new version"
        )


def _warn(code: str, path: str, message: str) -> Finding:
    return Finding("warning", code, path, message)


def _refused(error: TariffError, tariff_id: str) -> Finding:
    return Finding("error", "refused", error.path, f"{error.problem}; {error.remedy}", tariff_id)


def _placed(finding: Finding, draft: TariffDraft) -> Finding:
    """The finding with its path in the document the draft came from."""
    path = finding.path
    if path.startswith("/plan"):
        path = draft.plan_at + path.removeprefix("/plan")
    return msgspec.structs.replace(finding, path=path, tariff_id=draft.tariff_id)
