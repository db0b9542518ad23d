"""What an operator says over HTTP that a ride truly was, zone by zone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from ride_builders import event, tariff
from web_world import WebWorld, web_world


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        await it.clock(60)
        zones = {"LAKE": "2.50", "TOWN": 1} | {f"Z{number:02}": 1 for number in range(30)}
        for name, fees in (("zoned", zones), ("plain", {})):
            await it.publish(1, tariff({"zone_fees": fees}, name=name))
        yield it


async def ride(it: WebWorld, session: str, tariff_id: str, *zones: str) -> str:
    """Where its corrections go."""
    start = event("started", 0, session=session, tariff_id=tariff_id)
    await it.take(start, event("ended", 20, session=session, tariff_id=tariff_id, zone_fees=zones))
    return f"/v1/sessions/{session}/corrections"


async def test_a_zones_fee_is_corrected_away(it: WebWorld) -> None:
    """An empty list was passed over without a word, as if nothing had been said."""
    path = await ride(it, "zone", "zoned", "LAKE")
    asked = {"kind": "corrected", "reason": "he was inside", "zone_fees": []}
    before = await it.get("/v1/sessions/zone")
    after = (await it.ask("POST", path, asked)).body
    assert (before["usage"]["zone_fees"], after["usage"]["zone_fees"]) == (["LAKE"], [])
    assert (before["amount_minor"], after["amount_minor"]) == (500, 250)


async def test_a_zone_that_the_tariff_does_not_know_is_no_correction_and_holds_up_no_event(it: WebWorld) -> None:
    """It was taken with 200, and cost nothing."""
    asked = {"kind": "corrected", "reason": "he was outside"}
    for name, known in (("zoned", "LAKE, TOWN, Z00, "), ("plain", "none")):
        path = await ride(it, f"slip-{name}", name, "LAEK")
        refused = await it.ask("POST", path, asked | {"zone_fees": ["LAEK"]})
        assert (refused.status, refused.fields) == (422, ["/zone_fees"])
        told = "/zone_fees: the ride's tariff has no fee of the zone 'LAEK'; it has: "
        assert refused.body["detail"].startswith(told + known)
        stands = await it.get(f"/v1/sessions/slip-{name}")
        assert (stands["revision"], stands["amount_minor"]) == (1, 250)
    assert refused.body["detail"] == f"{told}none"
    path = await ride(it, "right", "zoned")
    many = (await it.ask("POST", path, asked | {"zone_fees": ["TOWN", "nowhere"]})).body["detail"]
    assert many.endswith(
        "'nowhere'; it has: " + ", ".join(["LAKE", "TOWN", *(f"Z{n:02}" for n in range(18))]) + " and 12 more"
    )
    right = await it.ask("POST", path, asked | {"zone_fees": ["TOWN"]})
    assert (right.status, right.body["amount_minor"]) == (200, 350)
