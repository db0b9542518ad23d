"""Complaints at WeChat Pay: what they name, whether it was paid or not, and what is asked about it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from wechatpay_double import DETAIL, Canned, Double, paid

from service.adapters.providers.port import DisputeStatus, Listening, Provider
from service.billing.outcomes import NotFound, Unknown

pytest_plugins = ["wechatpay_fixtures"]


async def test_a_complaint_tells_its_payments(wechat: Double, score: Provider) -> None:
    path = "/v3/merchant-service/complaints-v2/2002"
    named = [{"transaction_id": "4200", "out_trade_no": "x", "amount": 1234}]
    for said, meaning in (
        ({"complaint_state": "PENDING"}, (DisputeStatus("4200", "complaint", "opened", 1234, "CNY", "2002"),)),
        ({"complaint_state": "PROCESSING"}, (DisputeStatus("4200", "complaint", "opened", 1234, "CNY", "2002"),)),
        ({"complaint_state": "PROCESSED"}, (DisputeStatus("4200", "complaint", "resolved", 1234, "CNY", "2002"),)),
        ({"complaint_state": "QUANTUM"}, Unknown("complaint_state QUANTUM")),
        ({"complaint_state": "PENDING", "complaint_order_info": []}, NotFound()),
        ({"complaint_state": "PENDING", "complaint_order_info": [], "service_order_info": []}, NotFound()),
        ({"complaint_state": "PENDING", "complaint_id": "1"}, Unknown("the answer is about another number")),
    ):
        wechat.says(path, {"complaint_id": "2002", "complaint_order_info": named, "payer_phone": "secret"} | said)
        assert await score.get_dispute("2002") == meaning
    wechat.refuses(path, "RESOURCE_NOT_EXISTS", 404)
    assert await score.get_dispute("2002") == NotFound()


def order_named(key: str, ref: str = "", amount: int = 0, state: Any = "opened") -> DisputeStatus:
    return DisputeStatus(ref, "complaint", state, amount, "CNY", "2002", key=key, named_by="hold")


def payment_named(ref: str) -> DisputeStatus:
    return DisputeStatus(ref, "complaint", "opened", 500, "CNY", "2002")


UNPAID = {"state": "DOING", "state_description": "MCH_COMPLETE", "total_amount": 1234}
RIDING = {"state": "DOING", "state_description": "USER_CONFIRM"}
TWO = (DETAIL | {"amount": 234}, DETAIL | {"amount": 1000, "transaction_id": "4201"})


@pytest.mark.parametrize(
    ("orders", "payments", "order", "named"),
    [
        (("H0LD",), (), UNPAID, (order_named("H0LD"),)),
        (("H0LD",), (), RIDING, (order_named("H0LD"),)),
        (("H0LD",), (), paid(DETAIL), (order_named("H0LD", "4200", 1234),)),  # He paid after he had complained.
        (("H0LD",), ("4200", "4201"), paid(*TWO), (order_named("H0LD", "4200", 1234),)),
        (("H0LD", "0THER"), (), UNPAID, (order_named("H0LD"), order_named("0THER"))),
        (("H0LD", "", "H0LD"), ("9999", ""), UNPAID, (order_named("H0LD"), payment_named("9999"))),
        (("H0LD",), (), {"out_order_no": "FOREIGN"}, (order_named("H0LD"),)),
        (("H0LD",), ("4200",), {"out_order_no": "FOREIGN"}, (order_named("H0LD"), payment_named("4200"))),
    ],
)
async def test_a_complaint_tells_its_orders_which_need_not_be_paid(
    wechat: Double,
    score: Provider,
    orders: tuple[str, ...],
    payments: tuple[str, ...],
    order: dict[str, Any],
    named: tuple[DisputeStatus, ...],
) -> None:
    path = "/v3/merchant-service/complaints-v2/2002"
    told = {
        "complaint_id": "2002",
        "complaint_state": "PENDING",
        "complaint_order_info": [{"transaction_id": number, "amount": 500} for number in payments],
        "service_order_info": [{"order_id": "1", "out_order_no": key, "state": "WAITPAY"} for key in orders],
    }
    wechat.order(**order)
    wechat.says(path, told)
    assert await score.get_dispute("2002") == named
    wechat.says(path, told | {"complaint_state": "PROCESSED"})
    ended = await score.get_dispute("2002")
    assert ended == tuple(msgspec.structs.replace(one, state="resolved") for one in named)


WHERE = "/v3/merchant-service/complaint-notifications"
OURS, OTHER = "https://example.test/notify", "https://other.example/complaints"


@pytest.mark.parametrize(
    ("known", "replace", "told", "called"),
    [
        (None, False, Listening(OURS, None), ["GET", "POST"]),
        (OURS, False, Listening(OURS, OURS), ["GET"]),
        (OTHER, False, Listening(OTHER, OTHER), ["GET"]),
        (OTHER, True, Listening(OURS, OTHER), ["GET", "PUT"]),
    ],
)
async def test_complaints_are_told_where_the_account_is_unless_another_address_stands_there(
    wechat: Double, score: Provider, known: str | None, *, replace: bool, told: Listening, called: list[str]
) -> None:
    own = score.account.settings["notify_url"]
    answers = [Canned({"code": "RESOURCE_NOT_EXISTS"}, 404)] if known is None else []
    present = {"url": own if known == OURS else known or own}
    wechat.says(WHERE, *answers, present)
    answer = await score.listen(replace=replace)
    named = {OURS: own, OTHER: OTHER, None: None}
    assert answer == Listening(named[told.url], named[told.before])
    asked = [(method, content) for method, path, content in wechat.asked if path == WHERE]
    assert [method for method, _ in asked] == called
    assert all(content == {"url": own} for method, content in asked if method != "GET")


@pytest.mark.parametrize(("code", "status"), [("SIGN_ERROR", 401), ("PARAM_ERROR", 400), ("SYSTEM_ERROR", 500)])
async def test_where_complaints_are_told_may_not_be_known(
    wechat: Double, score: Provider, code: str, status: int
) -> None:
    wechat.refuses(WHERE, code, status)
    answer = await score.listen(replace=True)
    assert not isinstance(answer, Listening | NotFound)
    assert [method for method, path, _ in wechat.asked if path == WHERE] == ["GET"]
