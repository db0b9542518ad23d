"""Fixtures of the tests of WeChat Pay's adapter: an opposite side that says what it is told, and an account there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from wechatpay_double import Double, double, provider_at, settings_of

from service.adapters.providers.port import Provider


@pytest.fixture
async def wechat() -> AsyncIterator[Double]:
    """The double, which knows nothing yet."""
    async with double() as it:
        yield it


@pytest.fixture
async def score(wechat: Double, tmp_path: Path) -> AsyncIterator[Provider]:
    """An account at the double, its platform certificates downloaded."""
    async with provider_at(wechat.url, settings_of(tmp_path)) as it:
        yield it
