"""The WeChat Pay face of the simulator, over HTTP with real signatures: a ride from the permission to the refund."""

from __future__ import annotations

from datetime import timedelta

from wechat_shop import AT, MCHID, SERVICE, shop


async def test_a_ride_from_the_permission_to_the_refund() -> None:
    async with shop() as it:
        whose = await it.permission()
        told = await it.get(f"/v3/payscore/permissions/authorization-code/perm_1?service_id={SERVICE}")
        assert (told.body["authorization_state"], told.body["openid"]) == ("AVAILABLE", whose)
        made = await it.order(whose)
        assert (made.status, made.body["state"], made.body["state_description"]) == (200, "DOING", "USER_CONFIRM")
        assert made.body["mchid"] == MCHID and made.body["order_id"].isdecimal()
        done = await it.complete()
        assert (done.status, done.body["state_description"]) == (200, "MCH_COMPLETE")
        assert done.body["collection"]["state"] == "USER_PAYING"
        assert await it.states() == ("DONE", None, "USER_PAID")
        found = await it.found()
        assert (found["total_amount"], found["collection"]["paid_amount"]) == (1234, 1234)
        assert found["time_range"]["start_time"] == f"{AT + timedelta(hours=8):%Y%m%d%H%M%S}"
        back = await it.refund(await it.transaction(), 234)
        assert (back.status, back.body["status"], back.body["amount"]["refund"]) == (200, "SUCCESS", 234)
        told = await it.get("/v3/refund/domestic/refunds/refund_1")
        assert told.body["status"] == "SUCCESS"
        kinds = [(await it.notice())["event_type"] for _ in range(3)]
        assert kinds == ["PAYSCORE.USER_OPEN_SERVICE", "PAYSCORE.USER_PAID", "REFUND.SUCCESS"]
        books = (await it.peer.books())["accounts"][0]
        assert (books["paid_minor"], books["refunded_minor"]) == (1234, 234)
