"""What an agreement allows: whether its rider may begin a ride on this tariff, and if not, why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec


class Debt(msgspec.Struct, frozen=True):
    """What a rider owes in one currency over all his agreements, minor units; `overdue` counts debits past due."""

    currency: str
    overdue: int
    overdue_minor: int
    open_minor: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Everything eligibility looks at; the provider alone knows about names, identity and credit.

    `exposure_max_minor` is the operator's limit in the agreement's currency, None: no limit. `tariff_least_minor` is
    the least a ride on the tariff costs, None where no tariff was named; so is `tariff_currency`.
    """

    state: str
    currency: str
    cap_minor: int | None
    valid_until: datetime | None
    exposure_max_minor: int | None
    debts: Sequence[Debt]
    tariff_currency: str | None = None
    tariff_least_minor: int | None = None


def refusal(standing: Standing, now: datetime) -> str | None:
    """Why no new ride may begin on the agreement, None when one may. A ride under way is collected in any case."""
    if standing.state != "active":
        return f"agreement_{standing.state}"
    if standing.valid_until is not None and standing.valid_until <= now:
        return "agreement_expired"
    owing = debts_refuse(standing.debts, standing.currency, standing.exposure_max_minor)
    if owing is not None:
        return owing
    if standing.tariff_currency not in (None, standing.currency):
        return "tariff_in_another_currency"
    least, cap = standing.tariff_least_minor, standing.cap_minor
    if least is not None and cap is not None and least > cap:
        return "cap_below_tariff_minimum"
    return None


def debts_refuse(debts: Sequence[Debt], currency: str, exposure_max_minor: int | None) -> str | None:
    """Why a rider who owes this may begin no ride on any of his agreements, None when he may."""
    if any(debt.overdue for debt in debts):
        return "overdue_debts"
    open_minor = sum(debt.open_minor for debt in debts if debt.currency == currency)
    if exposure_max_minor is not None and open_minor > exposure_max_minor:
        return "exposure_limit"
    return None


def exposure_minor(standing: Standing) -> int:
    """What the rider has ridden and not paid, in the agreement's currency."""
    return sum(debt.open_minor for debt in standing.debts if debt.currency == standing.currency)
