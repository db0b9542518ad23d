"""Publishing tariffs: a checked draft becomes the next version, known to every process before it holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from service.adapters.postgres import Database
from service.adapters.postgres.operators import KnownOperator
from service.adapters.postgres.tariffs import NewestVersion, TariffStore
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
    valid_from: datetime | None = None,
    time_zone: str | None = None,
) -> PublishedTariff:
    """Makes the draft the tariff's next version, or finds that its newest version says the same already.

    What the draft leaves out is taken from `valid_from` and `time_zone`, then from the newest version (the start, for
    finding that it is the same) and the operator (the zone). A first version may begin in the past, a later one only
    after now + `lead`: every process knows it by then. Raises TariffError with the path in the draft's document.
    """
    async with database.transaction(TariffStore) as store:
        await store.order_changes()
        return await _publish(store, operator, draft, now, lead, valid_from, time_zone)


async def publish_tariffs(
    database: Database,
    operator: KnownOperator,
    drafts: Sequence[TariffDraft],
    *,
    now: datetime,
    lead: timedelta,
    valid_from: datetime | None = None,
    time_zone: str | None = None,
) -> list[PublishedTariff]:
    """`publish_tariff` for every draft of a document: all of them, or none when one is refused."""
    async with database.transaction(TariffStore) as store:
        await store.order_changes()
        return [await _publish(store, operator, draft, now, lead, valid_from, time_zone) for draft in drafts]


async def _publish(
    store: TariffStore,
    operator: KnownOperator,
    draft: TariffDraft,
    now: datetime,
    lead: timedelta,
    valid_from: datetime | None,
    time_zone: str | None,
) -> PublishedTariff:
    await store.ensure(operator.operator_no, draft.tariff_id)
    tariff_no, newest = await store.newest(operator.operator_no, draft.tariff_id)
    assert tariff_no is not None
    start = draft.valid_from or valid_from
    zone = time_zone or operator.time_zone
    if newest is not None:
        again = build(draft, version=newest.version, valid_from=start or newest.valid_from, time_zone=zone)
        if fingerprint(again.document) == newest.digest:
            return PublishedTariff(tariff_no, again, newest.digest, created=False)
    return await _append(store, tariff_no, newest, draft, start, zone, now, lead)


async def _append(
    store: TariffStore,
    tariff_no: int,
    newest: NewestVersion | None,
    draft: TariffDraft,
    start: datetime | None,
    zone: str,
    now: datetime,
    lead: timedelta,
) -> PublishedTariff:
    version = newest.version + 1 if newest is not None else 1
    tariff = build(draft, version=version, valid_from=start, time_zone=zone)
    problem = valid_from_problem(tariff.valid_from, now, lead, first=newest is None)
    if problem is not None:
        raise TariffError(
            "/valid_from", problem, "a ride's tariff is frozen at its start, so no version begins in the past"
        )
    digest = fingerprint(tariff.document)
    await store.append(tariff_no, version, tariff.valid_from, tariff.document, digest, now)
    return PublishedTariff(tariff_no, tariff, digest, created=True)
