"""A process that has not opened a merchant account decides about its rides by what its settings say, as others do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from builders import Ride
from collecting_bench import Bench, assert_books_agree, open_bench

from service.adapters.providers import declared_capabilities
from service.adapters.providers.port import MerchantAccount, Provider
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.debits.events import Suspended
from service.flows.collection import Collection
from service.flows.collection.keeping import ACCOUNT_AGAIN

STRIPE = {"currency": "CNY", "mode": "test", "secret_key_env": "NOT_ON_THIS_MACHINE", "debit_min_minor": 50}
WORDS = {"notify_url": "https://farebox.example/n", "app_id": "app", "seller_id": "2088"}
KEYS = {"app_private_key_env": "ELSEWHERE", "alipay_public_key_env": "ELSEWHERE"}
ZHIMA = {"product": "zhima", "zm_service_id": "service", "category_id": "bike", **WORDS, **KEYS}
PREAUTH = {"product": "preauth", **WORDS, **KEYS}
WECHAT = {
    "mchid": "1900000109",
    "appid": "wx1",
    "service_id": "500001",
    "service_introduction": "Bike",
    "notify_url": "https://farebox.example/n",
    "merchant_serial_no": "1",
    "merchant_private_key_env": "ELSEWHERE",
    "api_v3_key_env": "ELSEWHERE",
    "api_v2_key_env": "ELSEWHERE",
    "public_key_id": "PUB_KEY_ID_1",
    "wechatpay_public_key_env": "ELSEWHERE",
}
SETTINGS = "UPDATE merchant_account SET provider = $2, settings = $3 WHERE account_no = $1"


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with open_bench(database_url) as it:
        await at(it, "stripe", STRIPE)
        yield it


async def at(bench: Bench, provider: str, settings: Mapping[str, Any]) -> None:
    """The account is one at `provider`; who has opened it can do what that one's settings say."""
    bench.provider.capabilities = declared_capabilities(MerchantAccount(1, "a", provider, "", dict(settings)))
    await bench.connection.execute(SETTINGS, bench.account_no, provider, json.dumps(settings))


def elsewhere(bench: Bench) -> Collection:
    """A process that has not opened the account: it was added a moment ago, or its secrets are not here."""
    nobody: dict[int, Provider] = {}
    return Collection(bench.database, nobody, lambda: bench.now, lambda: bench.machine)


async def asides(bench: Bench, ride: Ride) -> list[tuple[str, int, str]]:
    rows = await bench.connection.fetch("SELECT * FROM set_aside WHERE ride_no = $1", ride.ride_no)
    return [(row["what"], row["times"], row["reason"]) for row in rows]


async def test_a_further_debit_is_opened_where_the_provider_allows_one(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 500)
    await bench.settle_down(3)
    await bench.owe_unplanned(ride, 2, 300)
    await elsewhere(bench).plan_round()
    assert await bench.states(ride) == [("settled", 500, 500), ("new", 300, 0)]
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 500, 500), ("settled", 300, 300)]
    await assert_books_agree(bench)


@pytest.mark.parametrize(("provider", "settings"), [("alipay", ZHIMA), ("alipay", PREAUTH), ("wechatpay", WECHAT)])
async def test_it_is_not_where_the_provider_allows_none(bench: Bench, provider: str, settings: dict[str, Any]) -> None:
    ride = await bench.ride(await bench.party(), 500)
    await bench.settle_down(3)
    await at(bench, provider, settings)
    await bench.owe_unplanned(ride, 2, 300)
    await elsewhere(bench).plan_round()
    assert await bench.states(ride) == [("settled", 500, 500), ("needs_rider", 300, 0)]


async def test_what_is_below_the_providers_minimum_is_waived(bench: Bench) -> None:
    rides = [await bench.unplanned(await bench.party(), amount_minor) for amount_minor in (49, 50)]
    await elsewhere(bench).plan_round()
    assert [await bench.states(ride) for ride in rides] == [[("waived", 49, 0)], [("new", 50, 0)]]


async def test_above_the_cap_what_is_below_the_minimum_is_waived_and_no_debit_is_below_it(bench: Bench) -> None:
    ride = await bench.unplanned(await bench.party(cap_minor=480), 500)
    none = await bench.unplanned(await bench.party(cap_minor=40), 500)
    await elsewhere(bench).plan_round()
    assert await bench.states(ride) == [("new", 480, 0), ("waived", 20, 0)]
    assert await bench.states(none) == [("needs_rider", 500, 0)]
    await bench.settle_down(3)
    assert await bench.states(ride) == [("settled", 480, 480), ("waived", 20, 0)]
    await assert_books_agree(bench)


async def test_settings_that_cannot_be_used_decide_nothing_and_hold_up_no_other(
    bench: Bench, database_url: str
) -> None:
    async with open_bench(database_url) as other:
        broken, whole = await bench.unplanned(await bench.party(), 40), await other.unplanned(await other.party(), 500)
        await at(other, "stripe", STRIPE)
        await bench.connection.execute(SETTINGS, bench.account_no, "stripe", json.dumps(STRIPE | {"currency": "cny"}))
        collector = elsewhere(bench)
        assert await collector.plan_round()
        assert (await bench.states(broken), await bench.states(whole)) == ([], [("new", 500, 0)])
        [(what, times, reason)] = await asides(bench, broken)
        assert (what, times) == ("owing", 1)
        assert "currency" in reason
        assert reason.startswith("merchant account account-")
        bench.pass_time(ACCOUNT_AGAIN)
        assert await collector.aside_round() == 0
        assert [times for _, times, _ in await asides(bench, broken)] == [2]
        await at(bench, "stripe", STRIPE)
        assert await collector.aside_round() == 0, "its time has not come"
        bench.pass_time(ACCOUNT_AGAIN)
        assert await collector.aside_round() == 1
        assert await bench.states(broken) == [("waived", 40, 0)]
        assert await asides(bench, broken) == []


async def test_once_the_account_is_opened_everything_is_collected(bench: Bench) -> None:
    collector = elsewhere(bench)
    rides = [await bench.unplanned(await bench.party(), 500) for _ in range(3)]
    await collector.plan_round()
    await bench.owe_unplanned(rides[0], 2, 300)
    await bench.owe_unplanned(rides[1], 2, -100)
    await bench.owe_unplanned(rides[2], 2, -500)
    await collector.plan_round()
    assert [await bench.states(ride) for ride in rides[:2]] == [[("new", 800, 0)], [("new", 400, 0)]]
    await bench.settle_down(3)
    assert [await bench.states(ride) for ride in rides] == [
        [("settled", 800, 800)],
        [("settled", 400, 400)],
        [("cancelled", 500, 0)],
    ]
    await assert_books_agree(bench)


async def test_a_wish_about_an_account_nobody_can_read_is_refused_and_changes_nothing(bench: Bench) -> None:
    ride = await bench.ride(await bench.party(), 500)
    key, collector = (ride.ride_no, 1), elsewhere(bench)
    await bench.connection.execute(SETTINGS, bench.account_no, "nobody", "{}")
    with pytest.raises(AccountSettingsError, match="'nobody' is not known"):
        await collector.happen([(key, Suspended("lock failed"))])
    assert await bench.states(ride) == [("new", 500, 0)]
    await at(bench, "stripe", STRIPE)
    assert (await collector.happen([(key, Suspended("lock failed"))]))[key].suspended
