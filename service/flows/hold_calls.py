"""The calls about one hold: what is asked of the provider, and what counts as the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

from service.adapters.postgres.holds import HoldRow
from service.adapters.providers.port import AgreementRef, HoldRef, HoldRequest, Provider
from service.billing.agreements.holds import Hold, HoldState, Step
from service.billing.agreements.standing import HoldAnswer, HoldStatus
from service.billing.outcomes import NotFound, Unknown

LEASE = timedelta(seconds=30)
"""Machine time after which another process may ask about a hold that this one was working on."""
CALL_WITHIN = timedelta(seconds=10)
AT_ONCE = 16
LOCAL: dict[Step, HoldStatus] = {
    "ask": HoldStatus("open"),
    "release": HoldStatus("released"),
    "finish": HoldStatus("completed"),
}
"""The answers where the provider has no holds and is not called."""


async def call(provider: Provider, row: HoldRow, step: Step, within: timedelta) -> HoldAnswer:
    """Takes the step at the provider; Unknown when it takes longer than `within` (machine time).

    A hold that may have been asked for before is looked for first, and opened under the same key when it is not there.
    """
    if not provider.capabilities.hold_needed:
        return LOCAL[step]
    ref = HoldRef(row.hold.provider_key, row.hold.provider_ref, row.hold.vehicle_id, row.hold.title)
    match step:
        case "release":
            return await bounded(provider.release_hold(ref), within)
        case "finish":
            return await bounded(provider.finish_hold(ref), within)
        case "ask" if row.hold.state is HoldState.REQUESTED:
            return await bounded(_look_or_open(provider, row, ref), within)
    return await bounded(provider.get_hold(ref), within)


async def open_first(provider: Provider, row: HoldRow, within: timedelta) -> HoldAnswer:
    """Opens a hold that nobody has asked for before."""
    if not provider.capabilities.hold_needed:
        return LOCAL["ask"]
    return await bounded(provider.open_hold(_request(row)), within)


async def _look_or_open(provider: Provider, row: HoldRow, ref: HoldRef) -> HoldAnswer:
    answer = await provider.get_hold(ref)
    return await provider.open_hold(_request(row)) if isinstance(answer, NotFound) else answer


async def bounded(answer: Awaitable[HoldAnswer], within: timedelta) -> HoldAnswer:
    """The answer; Unknown when it takes longer than `within` (machine time)."""
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await answer
    except TimeoutError:
        return Unknown("timeout")


def _request(row: HoldRow) -> HoldRequest:
    hold: Hold = row.hold
    agreement = AgreementRef(row.agreement_key, row.agreement_ref)
    named = (hold.subject, hold.requested_at, hold.vehicle_id, hold.title)
    return HoldRequest(hold.provider_key, agreement, hold.cap_minor, hold.currency, *named)
