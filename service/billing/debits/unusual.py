"""What is unusual: debits so far above a tariff's usual that somebody must have made a mistake (a price × 100)."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from service.billing.debits.dunning import Calendar

LOOK_BACK = timedelta(days=30)
"""How far back goes what is usual."""
ENOUGH = 20
"""So many debits say what is usual; of fewer, only an operator's own limit is known."""


class Usual(msgspec.Struct, frozen=True):
    """A tariff's debits of the last time: how many, and their sum in minor units."""

    debits: int = 0
    amount_minor: int = 0


def limit_minor(usual: Usual, rules: Calendar) -> int | None:
    """The amount above which a debit is unusual; None: nothing is known to be."""
    limits = [] if rules.stop_above_minor is None else [rules.stop_above_minor]
    if usual.debits >= ENOUGH:
        limits.append(max(usual.amount_minor * rules.stop_factor // usual.debits, 1))
    return min(limits, default=None)


def hour_of(at: datetime) -> datetime:
    """The hour that a debit is counted in."""
    return at.replace(minute=0, second=0, microsecond=0)
