"""The minimum and the caps of a ride, applied to its amounts in the order of time.

`amounts` are what falls due in each bucket of the ride; each function appends its lines and returns what is left.
A cap takes away what falls due after it is reached, so that the days and months after it are charged less.
A month's ride has thousands of windows of ten minutes: its first `CAP_LINES_MAX` that are cut have a line each, what is
cut in all after them is one, so that a charge stays small whatever the ride and the tariff.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from datetime import date
from decimal import Decimal
from typing import TypeVar

from service.billing.balances import Balance, BalanceUse, day_window, month_window
from service.billing.rating.charges import ONE, ZERO, Line
from service.billing.rating.compiled import Fare
from service.billing.tariffs.rules import amount_of

Key = TypeVar("Key", bound=Hashable)

CAP_LINES_MAX = 100
"""So many windows of `fare_capping` have a line of their own."""


def raise_to_minimum(fare: Fare, amounts: list[Decimal], lines: list[Line]) -> None:
    """Adds what the ride's start must cost more for the ride to reach `fare_min`."""
    least = amount_of(fare.tariff.rules.fare_min)
    total = sum(amounts, ZERO)
    if least is not None and total < least:
        lines.append(fare.line("fare_min", ONE, "ride", least - total, "/rules/fare_min"))
        amounts[0] += least - total


def cap_windows(fare: Fare, starts: Sequence[int], amounts: list[Decimal], lines: list[Line]) -> list[Decimal]:
    """`fare_capping`: at most its price in each window of its duration from the ride's start (GBFS v3.1).

    A line for each window that is cut, `cap:<number>`; beyond `CAP_LINES_MAX` of them one for the rest, which names the
    first and the last of it, `cap:100-4319`, and is exactly their sum.
    """
    capping, cap_us = fare.tariff.plan.fare_capping, fare.cap_us
    if capping is None or cap_us is None:
        return amounts
    price = capping.price
    left, over = clip(amounts, [start // cap_us for start in starts], lambda _: price)
    for number, cut in over[:CAP_LINES_MAX]:
        lines.append(fare.line("fare_capping", ONE, "window", cut, "/plan/fare_capping", f"cap:{number}"))
    if rest := over[CAP_LINES_MAX:]:
        first, last = rest[0][0], rest[-1][0]
        name = f"cap:{first}" if first == last else f"cap:{first}-{last}"
        cut = sum((cut for _, cut in rest), ZERO)
        lines.append(fare.line("fare_capping", ONE, "window", cut, "/plan/fare_capping", name))
    return left


def cap_days(
    fare: Fare, days: Sequence[date], amounts: list[Decimal], lines: list[Line], balance: Balance
) -> list[Decimal]:
    """The day cap, then the month cap: civil, over all rides of the rider; `balance` knows the earlier ones."""
    if not days:
        return amounts
    tariff, rules = fare.tariff, fare.tariff.rules
    for code, cap, window_of in (
        ("day_cap", amount_of(rules.day_cap), day_window),
        ("month_cap", amount_of(rules.month_cap), month_window),
    ):
        if cap is not None:
            names = [window_of(tariff, day) for day in days]
            used = {use.window: use.used for use in balance.uses}
            free = {name: max(ZERO, cap - used.get(name, ZERO)) for name in set(names)}
            amounts, over = clip(amounts, names, free.__getitem__)
            for name, cut in over:
                lines.append(fare.line(code, ONE, "window", cut, f"/rules/{code}", name))
    return amounts


def cap_ride(fare: Fare, amounts: list[Decimal], lines: list[Line]) -> list[Decimal]:
    """The ride maximum."""
    most = amount_of(fare.tariff.rules.ride_max)
    if most is None:
        return amounts
    left, over = clip(amounts, [0] * len(amounts), lambda _: most)
    for _, cut in over:
        lines.append(fare.line("ride_max", ONE, "ride", cut, "/rules/ride_max"))
    return left


def used_by(fare: Fare, days: Sequence[date], amounts: Sequence[Decimal]) -> tuple[BalanceUse, ...]:
    """What the ride adds to the rider's caps: what it is charged in each civil day and month, after all caps."""
    if not days:
        return ()
    rules, used = fare.tariff.rules, dict[str, Decimal]()
    for day, amount in zip(days, amounts, strict=False):
        for cap, window_of in ((rules.day_cap, day_window), (rules.month_cap, month_window)):
            if cap is not None:
                name = window_of(fare.tariff, day)
                used[name] = used.get(name, ZERO) + amount
    return tuple(BalanceUse(name, amount) for name, amount in sorted(used.items()) if amount > 0)


def clip(
    amounts: Sequence[Decimal], keys: Sequence[Key], limit: Callable[[Key], Decimal]
) -> tuple[list[Decimal], list[tuple[Key, Decimal]]]:
    """The amounts with each key's running sum held at its limit, and what that takes off each key, negative."""
    asked: dict[Key, Decimal] = {}
    given: dict[Key, Decimal] = {}
    left = []
    for amount, key in zip(amounts, keys, strict=True):
        asked[key] = asked.get(key, ZERO) + amount
        before = given.get(key, ZERO)
        given[key] = min(asked[key], limit(key))
        left.append(given[key] - before)
    return left, [(key, given[key] - asked[key]) for key in asked if given[key] != asked[key]]
