"""An agreement at WeChat Pay, whose reply with what the rider has to open is told once to each who asks for it."""

from __future__ import annotations

from pathlib import Path

from rider_world import world
from wechatpay_peer import merchant_at

from service.billing.outcomes import MiniProgram
from service.flows.accounts import add_account
from service.flows.agreement_replies import NewAgreement


async def test_a_reply_with_the_token_that_was_lost_is_asked_for_again_and_the_rider_signs(
    database_url: str, tmp_path: Path
) -> None:
    async with world(database_url) as it, merchant_at(it.sandbox, "wechat", tmp_path) as shop:
        known = shop.provider.account
        await add_account(
            it.database,
            it.operator_no,
            account_id="wechat",
            provider="wechatpay",
            base_url=it.sandbox.url,
            settings=dict(known.settings),
            now=it.now(),
        )
        await it.sandbox.call("POST", "/script", [{"kind": "lost", "op": "agreement.begin", "account": "wechat"}])
        begun = await it.agreements.create(
            it.operator_no, NewAgreement(agreement_id="ag", rider_ref="rider", account_id="wechat")
        )
        assert (begun.state, begun.action) == ("pending", None)
        again = await it.agreements.get(it.operator_no, "ag")
        assert again.state == "pending" and isinstance(again.action, MiniProgram)
        assert await shop.opens(again.action, "rider") == "openBusinessView:ok"
        assert (await it.agreements.get(it.operator_no, "ag")).state == "active"
