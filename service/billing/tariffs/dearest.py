"""The most that a ride can cost by a tariff, so that no charge is ever larger than what can be kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import ROUND_CEILING, Decimal, localcontext

from service.billing.extent import LENGTH_HOURS_MAX, METERS_MAX, ZONES_MAX
from service.billing.money import exponent
from service.billing.tariffs.gbfs import Plan, Segment, TariffError
from service.billing.tariffs.rules import Rules, amount_of, pause_segments

KEPT_MAX_MINOR = 10**15
"""No ride costs as much, in minor units: sums of many stay within 64 bits."""

_MINUTES = Decimal(60 * LENGTH_HOURS_MAX)
_NIGHTS = Decimal(2 * (LENGTH_HOURS_MAX // 24 + 1))
_KM = Decimal(METERS_MAX) / 1000


def check_dearest(plan: Plan, rules: Rules) -> None:
    """Refuses a tariff by which the longest and farthest ride may cost more than can be kept, without its caps and
    with as much tax again; names what adds most. Raises TariffError."""
    with localcontext() as exact:
        exact.prec = 60
        parts = {path: most for path, most in _parts(plan, rules) if most > 0}
        together = 2 * sum(parts.values(), Decimal(0)) * 10 ** exponent(plan.currency)
        if together < KEPT_MAX_MINOR:
            return
    path = max(parts, key=parts.__getitem__)
    longest = f"a ride of {LENGTH_HOURS_MAX} hours and {METERS_MAX // 1000} km"
    problem = f"{longest} may cost {parts[path]:.1e} {plan.currency} by it"
    raise TariffError(path, problem, "lower it: no charge is as large")


def _parts(plan: Plan, rules: Rules) -> Iterator[tuple[str, Decimal]]:
    """What each part of a tariff adds at most, in major units."""
    yield "/plan/price", plan.price
    yield from _metered("/plan/per_min_pricing", plan.per_min_pricing or (), _MINUTES)
    yield from _metered("/plan/per_km_pricing", plan.per_km_pricing or (), _KM)
    yield from _metered("/rules/pause_rate", pause_segments(rules), _MINUTES)
    yield "/plan/reservation_price_per_min", (plan.reservation_price_per_min or Decimal(0)) * _MINUTES
    yield "/plan/reservation_price_flat_rate", plan.reservation_price_flat_rate or Decimal(0)
    yield "/rules/zone_fees", max(rules.zone_fees.values(), default=Decimal(0)) * ZONES_MAX
    yield "/rules/parking_fees", max(rules.parking_fees.values(), default=Decimal(0))
    yield "/rules/fare_min", amount_of(rules.fare_min) or Decimal(0)
    if rules.per_night is not None:
        yield "/rules/per_night/rate", rules.per_night.rate * _NIGHTS


def _metered(path: str, segments: Sequence[Segment], longest: Decimal) -> Iterator[tuple[str, Decimal]]:
    for index, segment in enumerate(segments):
        span = max(Decimal(0), longest - segment.start)
        times = (span / segment.interval).to_integral_value(ROUND_CEILING) if segment.interval else Decimal(1)
        yield f"{path}/{index}", segment.rate * (times + 1)
