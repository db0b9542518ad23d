"""Publishing tariffs: a checked draft becomes the next version, known to every process before it holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from service.adapters.postgres import Database
from service.adapters.postgres.operators import KnownOperator
from service.adapters.postgres.tariffs import KeptVersion, TariffStore
from service.billing.linting.changes import Change, changes
from service.billing.proofs import fingerprint
from service.billing.tariffs import Tariff, TariffDraft, TariffError, build, load, valid_from_problem

CHANGES_TOLD = 5
"""So many differences from the version before are named where a new one is refused."""


class PublishedTariff(msgspec.Struct, frozen=True):
    """The version that holds a document; `created` is False when it was there already."""

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
    """Makes the draft the tariff's next version, or finds that its newest version says the same already: in whatever
    order, with whatever spaces, and a price of 1.5 is one of 1.50. Nothing changes then, so that charges go on showing
    a number as the newest version has it; to show it otherwise takes a version that begins at another time.

    A draft without a zone is in `time_zone`, or the operator's. One without a start is compared with the newest version
    as if it began with that; a first version begins at `first_valid_from` then, which may be in the past. A later one
    must say when it begins, after now + `lead`: every process knows it by then. One that says the same as the version
    that begins when it does is that one: who publishes all of a tariff's files again changes nothing. Raises
    TariffError with the path in the draft's document.
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
    zone, differences = time_zone or operator.time_zone, list[Change]()
    compared = newest
    if newest is None:
        tariff = build(draft, valid_from=first_valid_from, time_zone=zone)
    else:
        tariff, differences = _beside(newest, draft, zone)
        if not differences:
            return PublishedTariff(tariff_no, tariff, newest.digest, created=False)
        kept = await store.beginning(tariff_no, tariff.valid_from)
        if kept is not None:
            compared, there = kept, load(kept.document, kept.version)
            differences = changes(there, tariff)
            if not differences:
                return PublishedTariff(tariff_no, there, kept.digest, created=False)
    problem = valid_from_problem(tariff.valid_from, now, lead, first=newest is None)
    if problem is not None:
        assert compared is not None, "a first version may begin at any time"
        remedy = "a ride's tariff is frozen at its start, so that only a first version may begin in the past"
        raise TariffError("/valid_from", problem, f"{_told(compared.version, draft, differences)}; {remedy}")
    digest = fingerprint(tariff.document)
    await store.append(tariff_no, tariff.version, tariff.valid_from, tariff.document, digest, now)
    return PublishedTariff(tariff_no, tariff, digest, created=True)


def _beside(newest: KeptVersion, draft: TariffDraft, zone: str) -> tuple[Tariff, list[Change]]:
    """The version after the newest, and where it differs from that; the newest itself where it says the same. Raises
    TariffError for a draft that can't be used, one in another currency, and one that differs and does not say when it
    begins."""
    before = load(newest.document, newest.version)
    again = build(draft, version=newest.version + 1, valid_from=newest.valid_from, time_zone=zone)
    if again.currency != before.currency:
        problem = f"version {before.version} is in {before.currency}, and this one in {again.currency}"
        remedy = "riders' caps are counted in a tariff's currency, so that it keeps it: give this one another id"
        raise TariffError(f"{draft.plan_at}/currency", problem, remedy)
    differences = changes(before, again)
    if differences and draft.valid_from is None:
        remedy = f"{_told(newest.version, draft, differences)}; say from when the tariff holds"
        raise TariffError("/valid_from", "no start of validity", remedy)
    return (again if differences else before), differences


def _told(version: int, draft: TariffDraft, differences: Sequence[Change]) -> str:
    """Where the draft differs from the version before, by the paths of its own document."""
    paths = [change.path for change in differences[:CHANGES_TOLD]]
    named = [path.replace("/plan", draft.plan_at, 1) if path.startswith("/plan") else path for path in paths]
    more = len(differences) - len(named)
    return f"it differs from version {version} at {', '.join(named)}{f' and {more} more' if more else ''}"
