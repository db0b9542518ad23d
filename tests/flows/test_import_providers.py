"""Agreements signed elsewhere at the real providers' faces: by which number each is asked for, what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import alipay_peer
import pytest
import wechatpay_peer
from import_world import Files
from msgspec.structs import replace
from rider_world import World, world
from sandbox_peer import Peer

from service.adapters.csv_file import Line
from service.adapters.postgres.agreements import AccountRow, AgreementRow
from service.billing.agreements.asking import ConflictingAskError
from service.billing.agreements.signing import Agreement
from service.billing.agreements.standing import AgreementStatus
from service.flows.accounts import add_account
from service.flows.imports.lines import AGREEMENT_COLUMNS, agreement_line
from service.flows.imports.told import Known, in_force

COLUMNS = "agreement_id,rider_ref,provider_key,provider_ref"
NOW = datetime(2026, 11, 22, tzinfo=UTC)

Shop = Callable[[Peer, str, Path], AbstractAsyncContextManager[Any]]
SHOPS: dict[str, Shop] = {
    "wechatpay": wechatpay_peer.merchant_at,
    "alipay": lambda peer, name, directory: alipay_peer.merchant_at(peer, "zhima", name, directory),
}


async def open_account(it: World, provider: str, shop: Any) -> None:
    """The shop's account, as an operator adds it."""
    added = await add_account(
        it.database,
        it.operator_no,
        account_id=shop.account_id,
        provider=provider,
        base_url=it.sandbox.url,
        settings=dict(shop.provider.account.settings),
        now=it.now(),
    )
    it.account_id, it.account_no = shop.account_id, added.account_no


@pytest.mark.parametrize("provider", SHOPS)
async def test_it_is_asked_for_by_the_merchants_number(database_url: str, tmp_path: Path, provider: str) -> None:
    async with world(database_url) as it, SHOPS[provider](it.sandbox, "shop", tmp_path) as shop:
        await open_account(it, provider, shop)
        signed = [await shop.signed(f"OLD{number}", f"rider{number}") for number in (1, 2)]
        files = Files(it, tmp_path)
        rows = [f"a-1,r-1,OLD1,{signed[0].provider_ref}", "a-2,r-2,OLD2,"]
        assert await files.agreements(COLUMNS, *rows) == (2, 0, 0), files.said
        kept = await it.connection.fetch(
            "SELECT provider_key, provider_ref FROM agreement WHERE account_no = $1 ORDER BY agreement_id",
            it.account_no,
        )
        assert [tuple(row) for row in kept] == [(ref.key, ref.provider_ref) for ref in signed]
        assert await files.agreements(COLUMNS, *rows) == (0, 2, 0), files.said
        assert await files.agreements(COLUMNS, *rows, "a-3,r-3,NOBODY,", f"a-4,r-4,OLD4,{'x' * 16}") == (0, 2, 2)
        assert [(line, column) for line, column, _ in files.said] == [(4, "provider_key"), (5, "provider_key")]


def told_by_stripe(ref: str) -> Any:
    cells = dict.fromkeys(AGREEMENT_COLUMNS.known, "") | {"agreement_id": "a", "rider_ref": "r", "provider_ref": ref}
    return agreement_line(Line(2, cells), None, NOW)


def begun(ref: str | None) -> Agreement:
    return Agreement(
        agreement_no=1,
        operator_no=1,
        agreement_id="a",
        rider_no=1,
        rider_ref="r",
        account_no=1,
        state="pending",
        currency="EUR",
        cap_asked_minor=None,
        cap_minor=None,
        time_zone="UTC",
        language="en",
        provider_key="K",
        created_at=NOW,
        provider_ref=ref,
    )


def test_a_number_that_grows_once_it_is_signed_is_the_same() -> None:
    """Stripe's becomes `customer:setup:method`: what a debit needs."""
    line = told_by_stripe("cus_1:seti_1")
    answer = AgreementStatus("active", "cus_1:seti_1:pm_1")
    kept = in_force(begun("cus_1:seti_1"), line, answer, NOW)
    assert (kept.state, kept.provider_ref) == ("active", "cus_1:seti_1:pm_1")
    row = AgreementRow(kept, "op", AccountRow(1, "acc", "stripe", "http://127.0.0.1:1", {}), None)
    assert Known([row]).find(line) is row
    for other in ("cus_1:seti_2", "cus_1:seti", "cus_1:seti_1:pm_2"):
        with pytest.raises(ConflictingAskError):
            Known([row]).find(told_by_stripe(other))
        with pytest.raises(ConflictingAskError):
            in_force(begun(other), told_by_stripe(other), answer, NOW)
    renamed = replace(row, agreement=replace(kept, agreement_id="another"))
    with pytest.raises(ConflictingAskError):
        Known([renamed]).find(told_by_stripe("cus_1:seti_1:pm_1"))
