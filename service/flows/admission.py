"""Whether a rider may begin a ride: the facts, loaded, for the rules of `billing.agreements`."""

from __future__ import annotations

from datetime import datetime, timedelta

from service.adapters.postgres.holds import HoldStore, Setting
from service.billing.agreements import Standing
from service.billing.rating import rate
from service.billing.sessions import Usage, microseconds
from service.billing.tariffs import Tariff, load

TARIFFS_MAX = 1000
SHORTEST = timedelta(seconds=1)


class Admission:
    """Loads what eligibility looks at; keeps the tariffs it has read, which never change."""

    def __init__(self) -> None:
        self._tariffs: dict[tuple[int, int], Tariff] = {}

    async def standing(self, store: HoldStore, setting: Setting, now: datetime) -> Standing:
        """The rider's standing on the setting's agreement, for its tariff where one was named."""
        agreement = setting.agreement
        assert agreement is not None
        tariff = await self._tariff(store, setting)
        return Standing(
            state=agreement.state,
            currency=agreement.currency,
            cap_minor=agreement.cap_minor,
            valid_until=agreement.valid_until,
            exposure_max_minor=setting.exposure_max_minor,
            debts=setting.debts,
            tariff_currency=None if tariff is None else tariff.currency,
            tariff_least_minor=None if tariff is None else least_minor(tariff, now),
        )

    async def _tariff(self, store: HoldStore, setting: Setting) -> Tariff | None:
        if setting.tariff is None:
            return None
        known = self._tariffs.get(setting.tariff)
        if known is None:
            known = load(await store.tariff_document(*setting.tariff), setting.tariff[1])
            if len(self._tariffs) >= TARIFFS_MAX:
                self._tariffs.clear()
            self._tariffs[setting.tariff] = known
        return known


def least_minor(tariff: Tariff, at: datetime) -> int:
    """What the shortest ride costs that begins at `at`, minor units."""
    ended_at = at + SHORTEST
    return rate(Usage(started_at=at, ended_at=ended_at, duration_us=microseconds(at, ended_at)), tariff).total_minor
