"""A world behind doors for each module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from web_world import WebWorld, web_world


@pytest.fixture(scope="module")
async def it(database_url: str) -> AsyncIterator[WebWorld]:
    async with web_world(database_url) as it:
        yield it
