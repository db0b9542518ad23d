"""Payments that the rider makes himself, once WeChat Pay has closed one of them: the next number, and never two."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from test_wechatpay_money import BY_KEY, EXTRA, JSAPI, OWN, PAYMENT, bill, row
from wechatpay_double import Canned, Double

from service.adapters.providers.further import FURTHER, key_of
from service.adapters.providers.port import Provider, Statement
from service.adapters.providers.wechatpay import statements
from service.billing.keys import provider_key, session_key_bytes
from service.billing.outcomes import (
    AlreadyDone,
    Closed,
    Conflict,
    NeedsRider,
    NotFound,
    Outcome,
    Postponed,
    Succeeded,
    Unknown,
)

pytest_plugins = ["wechatpay_fixtures"]

DAY = date(2026, 11, 22)
NOT_THERE = Canned({"code": "ORDER_NOT_EXIST", "message": "no"}, 404)


def stands(wechat: Double, *states: str | Canned | dict[str, Any]) -> None:
    """How the first number stands, the second, and so on; the one after them was never begun."""
    for further, said in zip(("", *FURTHER), (*states, NOT_THERE), strict=False):
        view = {**PAYMENT, "out_trade_no": f"K3Y{further}", "transaction_id": f"4200{further}"}
        told = said if isinstance(said, Canned) else view | ({"trade_state": said} if isinstance(said, str) else said)
        wechat.says(BY_KEY + further, told)


def prepared(wechat: Double) -> list[str]:
    """The numbers under which payments were prepared."""
    return [content["out_trade_no"] for _, path, content in wechat.asked if path == JSAPI]


@pytest.mark.parametrize(
    ("states", "number"),
    [
        ((), "K3Y"),
        (("NOTPAY",), "K3Y"),
        (("CLOSED",), "K3Y_B"),
        (("REVOKED", "NOTPAY"), "K3Y_B"),
        (("CLOSED", "CLOSED", "CLOSED"), "K3Y_D"),
    ],
)
async def test_what_was_closed_unpaid_is_begun_anew_under_the_next_number(
    wechat: Double, score: Provider, states: tuple[str, ...], number: str
) -> None:
    stands(wechat, *states)
    wechat.says(JSAPI, {"prepay_id": "wx2014"})
    assert isinstance(await score.request_payment(EXTRA), NeedsRider)
    assert prepared(wechat) == [number]


@pytest.mark.parametrize(
    "unclear", [Canned({}, how="html"), {"trade_state": "QUANTUM"}, {"trade_state": "CLOSED", "out_trade_no": "B"}]
)
async def test_no_further_number_is_begun_while_one_before_it_is_not_surely_closed_and_unpaid(
    wechat: Double, score: Provider, unclear: Canned | dict[str, Any]
) -> None:
    wechat.refuses(JSAPI, "ORDER_CLOSED")
    for states in ((unclear,), ("CLOSED", unclear)):
        wechat.asked.clear()
        stands(wechat, *states)
        answer = await score.request_payment(EXTRA)
        assert isinstance(answer, Postponed | Closed), answer
        assert isinstance(await score.get_debit(OWN), Unknown)
        assert set(prepared(wechat)) <= {"K3Y" + ("", *FURTHER)[len(states) - 1]}


@pytest.mark.parametrize(
    ("states", "meaning"),
    [
        (("CLOSED",), Closed("CLOSED")),
        (("CLOSED", "CLOSED"), Closed("CLOSED")),
        (("CLOSED", "NOTPAY"), NeedsRider("NOTPAY")),
        (("CLOSED", {"trade_state": "NOTPAY", "amount": {"total": 1000}}), Conflict("total 1000")),
        (("CLOSED", "SUCCESS"), Succeeded(1234, "4200_B")),
        (("CLOSED", "CLOSED", "REFUND"), Succeeded(1234, "4200_C")),
        (("SUCCESS",), Succeeded(1234, "4200")),
        (("REFUND", "CLOSED"), Succeeded(1234, "4200")),
        (("CLOSED", {"trade_state": "SUCCESS", "amount": {"total": 1000}}), Succeeded(1000, "4200_B")),
    ],
)
async def test_what_is_told_is_the_number_that_is_open_or_paid(
    wechat: Double, score: Provider, states: tuple[str | dict[str, Any], ...], meaning: Outcome
) -> None:
    stands(wechat, *states)
    assert await score.get_debit(OWN) == meaning


@pytest.mark.parametrize(
    ("states", "closed", "meaning"),
    [
        (("NOTPAY",), "", Closed()),
        (("CLOSED", "NOTPAY"), "_B", Closed()),
        (("CLOSED",), "_B", Closed()),  # The query may be older than the beginning of the next number.
        (("CLOSED", "CLOSED"), "_C", Closed()),
    ],
)
async def test_what_is_open_is_closed(
    wechat: Double, score: Provider, states: tuple[str, ...], closed: str, meaning: Outcome
) -> None:
    stands(wechat, *states)
    wechat.says(f"{BY_KEY}{closed}/close", Canned(None, 204))
    assert await score.close_debit(OWN) == meaning
    wechat.refuses(f"{BY_KEY}{closed}/close", "ORDERPAID")
    assert await score.close_debit(OWN) == AlreadyDone()
    wechat.refuses(f"{BY_KEY}{closed}/close", "ORDER_NOT_EXIST", 404)
    assert await score.close_debit(OWN) == (Closed() if states[-1] == "CLOSED" else NotFound())
    stands(wechat, Canned({}, how="html"))
    assert isinstance(await score.close_debit(OWN), Unknown)


async def test_after_the_last_number_nothing_is_begun(wechat: Double, score: Provider) -> None:
    stands(wechat, *["CLOSED"] * 26)
    wechat.refuses(JSAPI, "ORDER_CLOSED")
    assert await score.request_payment(EXTRA) == Closed("ORDER_CLOSED")
    assert prepared(wechat) == ["K3Y_Z"]


def test_a_further_number_of_our_keys_is_as_long_as_wechat_pay_takes_and_names_its_key() -> None:
    key = provider_key(session_key_bytes("op", "ride"), "debit", 1)
    assert {len(key + further) for further in FURTHER} == {32}
    assert {key_of(key + further) for further in ("", *FURTHER)} == {key}


def test_a_bill_names_the_debit_whose_further_number_was_paid() -> None:
    read = statements.unpacked(DAY, bill(row(交易类型="JSAPI", 商户订单号="K3Y_B")))
    assert isinstance(read, Statement) and [one.key for one in read.rows] == ["K3Y"]
