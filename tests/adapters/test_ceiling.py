"""An account's calls per second: counted on a clock that moves by hand, honoured by every call of its adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from service.adapters.providers.ceiling import BURST_S, WAIT_MAX_S, Ceiling, HeldBackError
from service.adapters.providers.exchange import Reply, exchange, open_session
from service.adapters.providers.port import MerchantAccount
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.outcomes import Throttled


class HandClock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@given(st.sampled_from([0.5, 1.0, 7.0, 10.0, 60.0, 250.0]), st.lists(st.floats(0, 3), max_size=60))
def test_no_second_has_more_calls_than_allowed_and_a_small_burst(per_second: float, pauses: list[float]) -> None:
    clock = HandClock()
    ceiling, went = Ceiling(per_second, clock), []
    for pause in pauses:
        clock.seconds += pause / per_second
        try:
            went.append(clock.seconds + ceiling.take())
        except HeldBackError as held:
            assert held.wait_s > WAIT_MAX_S
    burst = max(int(per_second * BURST_S), 1)
    assert went == sorted(went)
    for first, began in enumerate(went):
        within = sum(1 for at in went[first:] if at < began + 1 - 1e-6)
        assert within <= per_second + burst + 1


def test_calls_at_once_are_spread_and_one_too_far_off_takes_no_place() -> None:
    clock = HandClock()
    ceiling = Ceiling(20, clock)
    waits = [ceiling.take() for _ in range(4)]
    assert waits == pytest.approx([0, 0, 0.05, 0.1])
    while waits[-1] <= WAIT_MAX_S - 0.05:
        waits.append(ceiling.take())
    for _ in range(3):
        with pytest.raises(HeldBackError) as held:
            ceiling.take()
        assert held.value.wait_s == pytest.approx(waits[-1] + 0.05)
    clock.seconds += 1
    assert ceiling.take() == pytest.approx(waits[-1] + 0.05 - 1)


def test_after_a_pause_only_the_burst_goes_at_once() -> None:
    clock = HandClock()
    ceiling = Ceiling(30, clock)
    ceiling.take()
    clock.seconds += 3600
    assert [ceiling.take() for _ in range(4)] == pytest.approx([0, 0, 0, 1 / 30])


@asynccontextmanager
async def counting_server() -> AsyncIterator[tuple[list[str], str]]:
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(text="{}")

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield asked, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def account(**settings: Any) -> MerchantAccount:
    return MerchantAccount(1, "main", "sandbox", "http://127.0.0.1", settings)


async def test_a_call_above_the_ceiling_is_not_made_and_says_when() -> None:
    async with counting_server() as (asked, url), open_session(account(calls_per_second=0.001)) as session:
        assert isinstance(await exchange(session, "POST", f"{url}/1", {}, b"{}"), Reply)
        held = await exchange(session, "POST", f"{url}/2", {}, b"{}")
        assert isinstance(held, Throttled)
        assert timedelta(seconds=900) < held.retry_after <= timedelta(seconds=1000)
        assert asked == ["/1"]


async def test_an_account_without_a_ceiling_calls_as_it_likes() -> None:
    async with counting_server() as (asked, url), open_session(account()) as session:
        replies = [await exchange(session, "GET", f"{url}/{number}", {}, None) for number in range(5)]
        assert all(isinstance(reply, Reply) for reply in replies)
        assert len(asked) == 5


@pytest.mark.parametrize("wrong", [0, -1, "many"])
def test_a_ceiling_that_is_no_positive_number_is_refused(wrong: Any) -> None:
    with pytest.raises(AccountSettingsError, match="calls_per_second"):
        open_session(account(calls_per_second=wrong))
