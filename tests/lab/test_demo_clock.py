"""The clocks of a demo that stays up: whoever sets the installation's moves the simulator's as well."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import aiohttp

from service.adapters.postgres import Database
from service.flows.clock_setting import faster, later, set_clock, standing_at
from service.lab.demo.stage import follow_clock
from service.lab.provider.server import Plan, simulator


async def shown(url: str, at: datetime, speed: float) -> None:
    """Returns once the simulator's clock shows an instant and has that speed."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            async with session.get(f"{url}/clock") as answer:
                face = await answer.json()
            if (datetime.fromisoformat(face["now"]), face["speed"]) == (at, speed):
                return


async def test_the_simulator_s_clock_follows_the_installation_s(database_url: str) -> None:
    ahead = datetime.now(UTC) + timedelta(days=30)
    database = await Database.open(database_url, name="test", size_max=2)
    async with simulator(Plan()) as url:
        following = asyncio.create_task(follow_clock(database_url, url))
        try:
            await set_clock(database, faster(0))
            await set_clock(database, standing_at(ahead))
            await shown(url, ahead, 0)
            await set_clock(database, later(timedelta(days=2)))
            await shown(url, ahead + timedelta(days=2), 0)
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            await database.close()
