"""Publishing tariffs: a checked draft becomes the next version, known to every process before it holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from service.adapters.postgres import Database
from service.adapters.postgres.operators import KnownOperator
from service.adapters.postgres.tariffs import TariffStore
from service.billing.proofs import fingerprint
from service.billing.tariffs import Tariff, TariffDraft, TariffError, build, valid_from_problem


class PublishedTariff(msgspec.Struct, frozen=True):
    """The version that holds a document; `created` is False when it was the newest already."""

    tariff_no: int
    tariff: Tariff
    digest: bytes
    created: bool


async def publish_tariff(
    database: Database,
    operator: KnownOperator,
    draft: TariffDraft,
    *,
    now: datetime,
    lead: timedelta,
    first_valid_from: datetime | None = None,
    time_zone: str | None = None,
) -> PublishedTariff:
    """Makes the draft the tariff's next version, or finds that its newest version says the same already.

    A draft without a zone is in `time_zone`, or the operator's. One without a start is compared with the newest version
    as if it began with that; a first version begins at `first_valid_from` then, which may be in the past. A later one
    must say when it begins, after now + `lead`: every process knows it by then. Raises TariffError with the path in the
    draft's document.
    """
    async with database.transaction(TariffStore) as store:
        await store.order_changes()
        return await _publish(store, operator, draft, now, lead, first_valid_from, time_zone)


async def publish_tariffs(
    database: Database,
    operator: KnownOperator,
    drafts: Sequence[TariffDraft],
    *,
    now: datetime,
    lead: timedelta,
    first_valid_from: datetime | None = None,
    time_zone: str | None = None,
) -> list[PublishedTariff]:
    """`publish_tariff` for every draft of a document: all of them, or none when one is refused."""
    async with database.transaction(TariffStore) as store:
        await store.order_changes()
        return [await _publish(store, operator, draft, now, lead, first_valid_from, time_zone) for draft in drafts]


async def _publish(
    store: TariffStore,
    operator: KnownOperator,
    draft: TariffDraft,
    now: datetime,
    lead: timedelta,
    first_valid_from: datetime | None,
    time_zone: str | None,
) -> PublishedTariff:
    await store.ensure(operator.operator_no, draft.tariff_id)
    tariff_no, newest = await store.newest(operator.operator_no, draft.tariff_id)
    assert tariff_no is not None
    zone = time_zone or operator.time_zone
    if newest is None:
        tariff = build(draft, valid_from=first_valid_from, time_zone=zone)
    else:
        again = build(draft, version=newest.version, valid_from=newest.valid_from, time_zone=zone)
        if fingerprint(again.document) == newest.digest:
            return PublishedTariff(tariff_no, again, newest.digest, created=False)
        tariff = build(draft, version=newest.version + 1, time_zone=zone)
    problem = valid_from_problem(tariff.valid_from, now, lead, first=newest is None)
    if problem is not None:
        remedy = "a ride's tariff is frozen at its start, so that only a first version may begin in the past"
        raise TariffError("/valid_from", problem, remedy)
    digest = fingerprint(tariff.document)
    await store.append(tariff_no, tariff.version, tariff.valid_from, tariff.document, digest, now)
    return PublishedTariff(tariff_no, tariff, digest, created=True)
