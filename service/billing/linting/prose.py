"""What a plan's prose says in numbers, to be held against the numbers it is charged by.

Operators write German, Norwegian, English, French and Chinese; what is recognised is amounts of the plan's currency,
lengths of time, distances, and words for a time of day. It is a heuristic: it feeds warnings, never a fare.
"""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec

from service.billing.tariffs.gbfs import Plan, texts_of

SYMBOLS: dict[str, tuple[str, ...]] = {
    "AUD": ("$",),
    "CAD": ("$",),
    "CHF": ("Fr.",),
    "CNY": ("¥", "元", "RMB"),
    "DKK": ("kr",),
    "EUR": ("€", "Euro"),
    "GBP": ("£",),
    "JPY": ("¥", "円", "yen"),
    "NOK": ("kr",),
    "PLN": ("zł",),
    "SEK": ("kr",),
    "USD": ("$",),
}

LETTERS_MAX = 10_000
"""So much of a text is read."""
_NUMBER = r"(?<!\d)(\d{1,12}+(?:[.,]\d{1,12}+)?)(?!\d)"
"""Possessive, and never begun within digits: a text of digits alone is read once, and not once from each of them."""
_UNITS = (
    (r"min(?:ut[a-zé]*)?\b|分钟|分鐘", Decimal(1)),
    (r"(?:std|stunden?|h|hrs?|hours?|heures?|timer?|timme|tim)\b|小时|小時", Decimal(60)),
    (r"(?:tage?|days?|jours?|dager?|døgn)\b|天", Decimal(1440)),
    (r"(?:wochen?|weeks?|semaines?|uker?)\b|周", Decimal(10080)),
)
_PER = r"(?:pro|je|per|par|every|each|for hver|/|每)\s*(?:angefangene[nr]?\s*|started\s*)?"
_WORDS = (
    (r"\bminutentarif", Decimal(1)),
    (r"\bstundentarif|\bhourly\b|\bzeitstunde", Decimal(60)),
    (r"\btagestarif\b|\bdaily rate\b", Decimal(1440)),
    (r"\bhalvtimen?\b|\bhalf[- ]hours?\b|\bhalbe\s+stunde|半小时|半小時", Decimal(30)),
)
_KM = r"(?:km\b|kilomet[a-z]*|公里)"
_TIME_OF_DAY = re.compile(
    r"night|nacht\b|nachts|nuit|noche|夜|daytime|tag pro stunde|weekend|wochenende|周末|uhrzeit|off-?peak|高峰",
    re.IGNORECASE,
)


class Prose(msgspec.Struct, frozen=True):
    """The numbers a plan's name and description speak of: amounts, minutes, kilometres.

    `time_of_day` is the field of the plan that names one, and the word.
    """

    amounts: frozenset[Decimal]
    minutes: frozenset[Decimal]
    kilometres: frozenset[Decimal]
    per_time: bool
    time_of_day: tuple[str, str] | None


def read_prose(plan: Plan) -> Prose:
    """What the plan's name and description say, in whatever language."""
    text = "\n".join((*texts_of(plan.name), *texts_of(plan.description)))[:LETTERS_MAX]
    rates = [size for unit, size in _UNITS if re.search(_PER + f"(?:{unit})", text, re.IGNORECASE)]
    return Prose(
        amounts=frozenset(_amounts(text, plan.currency)),
        minutes=frozenset([*_lengths(text), *rates]),
        kilometres=frozenset(_kilometres(text)),
        per_time=bool(rates),
        time_of_day=_time_of_day(plan),
    )


def _time_of_day(plan: Plan) -> tuple[str, str] | None:
    fields = (
        ("name", texts_of(plan.name)),
        ("description", texts_of(plan.description)),
        ("plan_id", (plan.plan_id or "",)),
    )
    for field, texts in fields:
        found = _TIME_OF_DAY.search("\n".join(texts)[:LETTERS_MAX])
        if found is not None:
            return field, found.group(0)
    return None


def _amounts(text: str, currency: str) -> list[Decimal]:
    names = "|".join(re.escape(name) for name in (currency, *SYMBOLS.get(currency, ())))
    pattern = rf"(?:{names})\s*{_NUMBER}|{_NUMBER}\s*(?:{names})"
    amounts = [_number(before or after) for before, after in re.findall(pattern, text, re.IGNORECASE)]
    cents = re.findall(rf"{_NUMBER}\s*(?:cents?\b|ct\b|¢)", text, re.IGNORECASE)
    return amounts + [_number(cent) / 100 for cent in cents]


def _lengths(text: str) -> list[Decimal]:
    lengths = [
        _number(number) * size
        for unit, size in _UNITS
        for number in re.findall(rf"{_NUMBER}[\s-]*(?:{unit})", text, re.IGNORECASE)
    ]
    return lengths + [size for word, size in _WORDS if re.search(word, text, re.IGNORECASE)]


def _kilometres(text: str) -> list[Decimal]:
    distances = [_number(number) for number in re.findall(rf"{_NUMBER}\s*{_KM}", text, re.IGNORECASE)]
    return distances + ([Decimal(1)] if re.search(_PER + _KM, text, re.IGNORECASE) else [])


def _number(text: str) -> Decimal:
    """A number as people write it: 1.475 and 3,50 have decimals, 1,800 has thousands."""
    if re.fullmatch(r"\d{1,3},\d{3}", text):
        return Decimal(text.replace(",", ""))
    return Decimal(text.replace(",", "."))
