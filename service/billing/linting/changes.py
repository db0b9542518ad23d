"""What changes from one tariff to another: field by field, and in what example rides cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec

from service.billing.money import MoneyError, parse_decimal
from service.billing.rating import rate
from service.billing.sessions import Usage
from service.billing.tariffs import Tariff
from service.billing.tariffs.gbfs import pointer

MINUTES = (1, 5, 15, 20, 30, 45, 60, 90, 120, 240, 480, 720, 1440, 2880)
KILOMETRES = (0, 5, 20, 100)


class Change(msgspec.Struct, frozen=True, gc=False):
    """One field that differs; JSON text of the value before and after, None where there is none."""

    path: str
    before: str | None
    after: str | None


class FareChange(msgspec.Struct, frozen=True, gc=False):
    """What an example ride cost, and what it will; minor units of each tariff's currency."""

    minutes: int
    kilometres: int
    before_minor: int
    after_minor: int


def changes(before: Tariff, after: Tariff) -> list[Change]:
    """The fields that differ, by JSON pointer: what is priced with by its meaning (1.50 and "1.5" are the same, a
    default and nothing too), and what a plan says besides, which is kept with it, by its value. The order of members,
    spaces and escapes are no difference. One without a change is the same tariff, whatever its bytes."""
    return list(_differences(_meaning(before), _meaning(after), ""))


def fare_changes(before: Tariff, after: Tariff) -> list[FareChange]:
    """The example rides, from the later of the two starts of validity on, that cost something else than before."""
    start = max(before.valid_from, after.valid_from)
    distances = KILOMETRES if before.plan.per_km_pricing or after.plan.per_km_pricing else (0,)
    compared = []
    for minutes in MINUTES:
        for kilometres in distances:
            length = timedelta(minutes=minutes)
            usage = Usage(
                started_at=start,
                ended_at=start + length,
                duration_us=minutes * 60_000_000,
                meters=kilometres * 1000,
            )
            was, will = rate(usage, before).total_minor, rate(usage, after).total_minor
            if was != will or before.currency != after.currency:
                compared.append(FareChange(minutes, kilometres, was, will))
    return compared


def _meaning(tariff: Tariff) -> dict[str, Any]:
    """The tariff as plain values, decimals normalized, what is not set left out."""
    return {
        "valid_from": tariff.valid_from.isoformat(),
        "time_zone": tariff.time_zone,
        "plan": _whole(tariff.plan, _VALUES.decode(tariff.document)["plan"]),
        "rules": _plain(tariff.rules),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, msgspec.Struct):
        pairs = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        return {
            name: _plain(getattr(value, field)) for name, field in pairs if getattr(value, field) not in (None, (), {})
        }
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _whole(value: Any, raw: Any) -> Any:
    """What was read of a plan as plain values, and beside it each member that nothing reads, as it stands in `raw`."""
    if isinstance(value, msgspec.Struct):
        known = {name: _whole(getattr(value, name), raw[name]) for name in value.__struct_fields__ if name in raw}
        unread = raw.keys() - value.__struct_fields__
        kept = {name: msgspec.Raw(msgspec.json.encode(raw[name], order="sorted")) for name in sorted(unread)}
        return _plain(value) | {name: item for name, item in known.items() if item not in (None, [], {})} | kept
    if isinstance(value, tuple):
        return [_whole(item, raw[index]) for index, item in enumerate(value)]
    return _plain(value)


def _number(text: str) -> int | str:
    """A number that nothing reads, the same however it is written; one out of all range stays as it is written."""
    try:
        number = parse_decimal(text)
    except MoneyError:
        return text
    return int(number) if number == int(number) else f"{number.normalize():f}"


_VALUES = msgspec.json.Decoder(float_hook=_number)


def _differences(before: Any, after: Any, at: str) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _differences(before.get(name), after.get(name), pointer(at, name))
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            pair = [values[index] if index < len(values) else None for values in (before, after)]
            yield from _differences(pair[0], pair[1], pointer(at, index))
    elif before != after:
        yield Change(at, _json(before), _json(after))


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
