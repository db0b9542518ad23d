"""GBFS pricing plans, verbatim: `system_pricing_plans.json` of GBFS v2.1 to v3.1-RC3.

The structs are what is read; fields not named here are kept in the stored document and mean nothing to a fare.
Numbers come as JSON numbers or as strings and become exact decimals; sources of meaning: MobilityData/gbfs, gbfs.md.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import Meta

from service.billing.extent import CAP_MINUTES_MIN, SEGMENTS_MAX
from service.billing.money import MoneyError, exponent, parse_decimal
from service.billing.refusals import brief

MINUTE_US = 60_000_000
KM_MM = 1_000_000

Shape = TypeVar("Shape", bound=msgspec.Struct)

_TEXTS = msgspec.json.Decoder(float_hook=str)


class TariffError(ValueError):
    """A tariff document that can't be used: what is wrong, where (a JSON pointer), and what to do about it; all of it
    brief."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        self.path = brief(path)
        self.problem = brief(problem)
        super().__init__(f"{self.path or '/'}: {self.problem}; {remedy}")
        self.remedy = remedy


class LocalizedText(msgspec.Struct, frozen=True, gc=False):
    """A text in one language (GBFS v3)."""

    text: str
    language: str


Prose = str | tuple[LocalizedText, ...]
"""A string (v2) or one text per language (v3)."""


class Segment(msgspec.Struct, frozen=True, gc=False):
    """One entry of `per_min_pricing` or `per_km_pricing`; minutes or kilometres, `interval` 0 means once."""

    start: Decimal
    rate: Decimal
    interval: Decimal
    end: Decimal | None = None


Segments = Annotated[tuple[Segment, ...], Meta(max_length=SEGMENTS_MAX)]


class FareCapping(msgspec.Struct, frozen=True, gc=False):
    """At most `price` in each `duration` minutes (10 or more) from the ride's start (v3.1)."""

    duration: Decimal
    price: Decimal


class Plan(msgspec.Struct, frozen=True):
    """A pricing plan as published; amounts in major units of `currency`."""

    currency: str
    price: Decimal
    plan_id: str | None = None
    name: Prose | None = None
    description: Prose | None = None
    url: str | None = None
    is_taxable: bool | Literal[0, 1] = False
    per_km_pricing: Segments | None = None
    per_min_pricing: Segments | None = None
    surge_pricing: bool | Literal[0, 1] | None = None
    reservation_price_per_min: Decimal | None = None
    reservation_price_flat_rate: Decimal | None = None
    fare_capping: FareCapping | None = None


def read_plan(raw: bytes, at: str) -> Plan:
    """The plan in `raw`, whose place in its document is the JSON pointer `at`.

    Raises TariffError for a missing or ill-typed field, a number out of range, an unknown currency, an end that is
    not after its start, or both reservation prices at once.
    """
    plan = read_struct(raw, Plan, at)
    try:
        exponent(plan.currency)
    except MoneyError as error:
        raise TariffError(f"{at}/currency", f"unknown currency {plan.currency!r}", "give an ISO 4217 code") from error
    if plan.price < 0:
        raise TariffError(
            f"{at}/price", f"price {plan.price} is negative", "give 0 or more; only rates may be negative"
        )
    for what, one in (("per_km_pricing", KM_MM), ("per_min_pricing", MINUTE_US)):
        for index, segment in enumerate(getattr(plan, what) or ()):
            check_segment(segment, one, f"{at}/{what}/{index}")
    _check_reservation(plan, at)
    _check_capping(plan, at)
    return plan


def read_struct(raw: bytes, shape: type[Shape], at: str) -> Shape:
    """`raw` as a struct whose decimals are exact and in range.

    Raises TariffError with the JSON pointer of the first field that is missing, unknown or ill-typed.
    """
    try:
        value = msgspec.json.decode(raw, type=shape)
        return cast(Shape, _exact(value, _TEXTS.decode(raw), at))
    except msgspec.ValidationError as error:
        raise _named(error, at) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TariffError(at, f"not JSON ({error})", "give a JSON document in UTF-8") from error


def check_segment(segment: Segment, one: int, at: str) -> None:
    """Refuses a segment that can't be charged: a negative start or interval, an end not after its start.

    `one` is how many of the machine's units (microseconds, millimetres) a minute or kilometre has; starts, ends and
    intervals must be whole numbers of them.
    """
    for name, value in (("start", segment.start), ("interval", segment.interval), ("end", segment.end)):
        if value is not None and value < 0:
            raise TariffError(f"{at}/{name}", f"{name} {value} is negative", "give 0 or more")
        if value is not None and value * one % 1 != 0:
            raise TariffError(f"{at}/{name}", f"{name} {value} is too fine", "give at most 6 decimal places")
    if segment.end is not None and segment.end <= segment.start:
        problem = f"end {segment.end} is not after start {segment.start}, so that nothing is ever charged"
        raise TariffError(f"{at}/end", problem, "give an end above the start, or leave it out")


def text_of(prose: Prose | None, language: str = "en") -> str:
    """The text in the language, else in the first there is, else ""."""
    if prose is None or isinstance(prose, str):
        return prose or ""
    chosen = [entry.text for entry in prose if entry.language.split("-")[0] == language]
    return (chosen or [entry.text for entry in prose] or [""])[0]


def texts_of(prose: Prose | None) -> tuple[str, ...]:
    """Every language's text."""
    if prose is None:
        return ()
    return (prose,) if isinstance(prose, str) else tuple(entry.text for entry in prose)


def pointer(at: str, *names: str | int) -> str:
    """The JSON pointer (RFC 6901) of a member below `at`."""
    return at + "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in names)


def _check_reservation(plan: Plan, at: str) -> None:
    per_min, flat = plan.reservation_price_per_min, plan.reservation_price_flat_rate
    if per_min is not None and flat is not None:
        problem = "reservation_price_per_min and reservation_price_flat_rate are both given"
        raise TariffError(f"{at}/reservation_price_flat_rate", problem, "keep one (GBFS: MUST NOT be combined)")
    for name, value in (("reservation_price_per_min", per_min), ("reservation_price_flat_rate", flat)):
        if value is not None and value < 0:
            raise TariffError(f"{at}/{name}", f"{name} {value} is negative", "give 0 or more")


def _check_capping(plan: Plan, at: str) -> None:
    capping = plan.fare_capping
    if capping is None:
        return
    if capping.duration < CAP_MINUTES_MIN or capping.duration * MINUTE_US % 1 != 0:
        problem = f"duration {capping.duration} is shorter than {CAP_MINUTES_MIN} minutes, or finer than a microsecond"
        raise TariffError(f"{at}/fare_capping/duration", problem, f"give whole minutes, {CAP_MINUTES_MIN} or more")
    if capping.price < 0:
        raise TariffError(f"{at}/fare_capping/price", f"price {capping.price} is negative", "give 0 or more")


def _exact(value: Any, raw: Any, at: str) -> Any:
    """The decoded value again, its decimals checked against the text they came from."""
    if isinstance(value, Decimal):
        try:
            return parse_decimal(raw if isinstance(raw, str) else value)
        except MoneyError as error:
            raise TariffError(at, str(error), "give a plain decimal number") from error
    if isinstance(value, msgspec.Struct):
        names = [name for name in value.__struct_fields__ if name in raw]
        exact = {name: _exact(getattr(value, name), raw[name], pointer(at, name)) for name in names}
        return msgspec.structs.replace(value, **exact)
    if isinstance(value, tuple):
        return tuple(_exact(item, raw[index], pointer(at, index)) for index, item in enumerate(value))
    if isinstance(value, dict):
        return {name: _exact(item, raw[name], pointer(at, name)) for name, item in value.items()}
    return value


def _named(error: msgspec.ValidationError, at: str) -> TariffError:
    """msgspec says `$.per_min_pricing[0].rate`; we say /plan/per_min_pricing/0/rate."""
    problem, _, where = str(error).partition(" - at `$")
    place = re.sub(r"\[\.\.\.\].*", "", where.rstrip("`"))
    path = at + re.sub(r"\.|\[", "/", place).replace("]", "")
    return TariffError(path, problem[0].lower() + problem[1:], "compare with schemas/tariff.json")
