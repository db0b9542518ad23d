"""What follows a debit at the simulator's Alipay face: refunds, authorisations, bills, notifications, keys."""

from __future__ import annotations

import csv
import io
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from alipay_shop import APP_ID, SELLER, ZHIMA, Shop, shop
from sandbox_peer import peer

from service.lab.provider.alipay.bills import COLUMNS
from service.lab.provider.alipay.wire import user_id
from service.lab.provider.server import Plan


async def test_a_request_number_refunds_once_and_never_more_than_was_paid() -> None:
    async with shop() as it:
        number = await it.ordered()
        unpaid = await it.call("alipay.trade.refund", out_trade_no=number, refund_amount="1.00", out_request_no="r")
        assert unpaid["sub_code"] == "ACQ.TRADE_NOT_EXIST"
        await it.pay(number)
        told = [
            await it.call("alipay.trade.refund", out_trade_no=number, refund_amount=amount, out_request_no=request)
            for request, amount in (("r1", "4.00"), ("r1", "4.00"), ("r1", "5.00"), ("r2", "6.01"), ("r3", "6.00"))
        ]
        assert [answer.get("fund_change") or answer["sub_code"] for answer in told] == [
            "Y",
            "N",
            "ACQ.DISCORDANT_REPEAT_REQUEST",
            "ACQ.REASON_TRADE_REFUND_FEE_ERR",
            "Y",
        ]
        assert (told[0]["refund_fee"], told[4]["refund_fee"]) == ("4.00", "10.00")
        assert await it.status(number) == "TRADE_CLOSED"
        query = {"out_trade_no": number, "out_request_no": "r3"}
        told_of = await it.call("alipay.trade.fastpay.refund.query", **query)
        assert (told_of["refund_status"], told_of["refund_amount"]) == ("REFUND_SUCCESS", "6.00")
        told_of = await it.call("alipay.trade.fastpay.refund.query", **(query | {"out_request_no": "r9"}))
        assert told_of == {"code": "10000", "msg": "Success"}


async def test_a_slow_refund_says_nothing_until_it_is_done() -> None:
    async with shop(refund_s=60.0) as it:
        number = await it.ordered()
        await it.pay(number)
        named = {"out_trade_no": number, "out_request_no": "r1"}
        assert (await it.call("alipay.trade.refund", refund_amount="1.00", **named))["fund_change"] == "N"
        assert "refund_status" not in await it.call("alipay.trade.fastpay.refund.query", **named)
        await it.later(timedelta(minutes=1))
        told = await it.call("alipay.trade.fastpay.refund.query", **named)
        assert told["refund_status"] == "REFUND_SUCCESS"


async def test_when_the_refund_window_is_over_a_trade_is_finished() -> None:
    async with shop(refund_window_s=86_400) as it:
        number = await it.ordered()
        await it.pay(number)
        assert await it.status(number) == "TRADE_SUCCESS"
        await it.later(timedelta(days=2))
        assert await it.status(number) == "TRADE_FINISHED"
        told = await it.call("alipay.trade.refund", out_trade_no=number, refund_amount="1.00", out_request_no="r")
        assert told["sub_code"] == "ACQ.TRADE_HAS_FINISHED"


async def test_an_authorisation_pays_once_and_gives_the_rest_back() -> None:
    async with shop() as it:
        query = {"out_order_no": "auth_order_1", "out_request_no": "auth_order_1r"}
        told = await it.call("alipay.fund.auth.operation.detail.query", **query)
        assert told["sub_code"] == "AUTH_ORDER_NOT_EXIST"
        assert (await it.freeze())["resultStatus"] == "9000"
        told = await it.call("alipay.fund.auth.operation.detail.query", **query)
        assert (told["order_status"], told["status"], told["rest_amount"]) == ("AUTHORIZED", "SUCCESS", "200.00")
        assert (told["pre_auth_type"], told["payer_user_id"]) == ("CREDIT_AUTH", user_id("rider"))
        pay = {"out_trade_no": "car_1", "subject": "car", "auth_no": told["auth_no"], "auth_confirm_mode": "COMPLETE"}
        pay |= {"buyer_id": told["payer_user_id"], "seller_id": SELLER}
        over = await it.call("alipay.trade.pay", total_amount="200.01", **pay)
        assert over["sub_code"] == "ACQ.TOTAL_FEE_EXCEED"
        stranger = await it.call("alipay.trade.pay", total_amount="150.00", **(pay | {"buyer_id": "2088x"}))
        assert stranger["sub_code"] == "ACQ.TRADE_BUYER_NOT_MATCH"
        paid = await it.call("alipay.trade.pay", total_amount="150.00", **pay)
        assert (paid["code"], paid["auth_no"]) == ("10000", told["auth_no"])
        told = await it.call("alipay.fund.auth.operation.detail.query", **query)
        assert (told["order_status"], told["total_pay_amount"], told["rest_amount"]) == ("FINISH", "150.00", "0.00")


async def test_an_authorised_trade_is_tried_again_under_its_number_and_closed_after_fifteen_days() -> None:
    async with shop() as it:
        auth = (await it.freeze())["result"]
        pay = {"out_trade_no": "car_1", "subject": "car", "auth_no": auth["auth_no"], "total_amount": "150.00"}
        pay |= {"buyer_id": auth["payer_user_id"]}
        await it.balance(0)
        for _ in range(2):
            told = await it.call("alipay.trade.pay", **pay)
            assert told["sub_code"] == "ACQ.BUYER_BALANCE_NOT_ENOUGH"
            assert await it.status("car_1") == "WAIT_BUYER_PAY"
        changed = await it.call("alipay.trade.pay", **(pay | {"subject": "truck"}))
        assert changed["sub_code"] == "ACQ.CONTEXT_INCONSISTENT"
        trade_no = (await it.call("alipay.trade.query", out_trade_no="car_1"))["trade_no"]
        sync = {"trade_no": trade_no, "biz_type": "CREDIT_AUTH", "out_request_no": "s1"}
        for status in ("VIOLATED", "COMPLETE"):  # The second is under a number that was used: nothing changes.
            told = await it.call("alipay.trade.orderinfo.sync", order_biz_info=f'{{"status":"{status}"}}', **sync)
            assert told["code"] == "10000"
        reports = await it.peer.call("GET", "/books/reports")
        assert [(report["debit"], report["kind"]) for report in reports] == [("car_1", "violated")]
        await it.later(timedelta(days=15))
        assert await it.status("car_1") == "TRADE_CLOSED"
        assert (await it.call("alipay.trade.pay", **pay))["sub_code"] == "ACQ.TRADE_HAS_CLOSE"


async def test_what_is_left_of_an_authorisation_is_given_back_in_parts() -> None:
    async with shop() as it:
        auth = (await it.freeze())["result"]
        thaw = {"auth_no": auth["auth_no"], "remark": "rest"}
        told = [
            await it.call("alipay.fund.auth.order.unfreeze", amount=amount, out_request_no=request, **thaw)
            for request, amount in (("u1", "50.00"), ("u1", "50.00"), ("u2", "150.01"), ("u3", "150.00"))
        ]
        assert [answer.get("status") or answer["sub_code"] for answer in told] == [
            "SUCCESS",
            "SUCCESS",
            "REQUEST_AMOUNT_EXCEED",
            "SUCCESS",
        ]
        query = {"auth_no": auth["auth_no"], "out_request_no": "u1", "operation_type": "UNFREEZE"}
        told_of = await it.call("alipay.fund.auth.operation.detail.query", **query)
        assert (told_of["order_status"], told_of["amount"]) == ("CLOSED", "50.00")


async def test_a_refused_authorisation_is_closed() -> None:
    async with shop() as it:
        assert (await it.freeze(answer="refuse"))["resultStatus"] == "6001"
        told = await it.call("alipay.fund.auth.operation.detail.query", out_order_no="auth_order_1")
        assert (told["order_status"], told["status"]) == ("CLOSED", "CLOSED")


async def test_a_string_is_opened_whenever_the_rider_likes_and_must_be_confirmed_soon_after() -> None:
    cancel = ("alipay.fund.auth.operation.cancel", {"out_order_no": "auth_order_1", "out_request_no": "c"})
    query = ("alipay.fund.auth.operation.detail.query", {"out_order_no": "auth_order_1"})
    async with shop() as it:
        assert (await it.call(cancel[0], **cancel[1]))["sub_code"] == "AUTH_ORDER_NOT_EXIST"
        await it.later(timedelta(days=30))
        assert (await it.freeze(answer="look", timeout_express="2h"))["resultStatus"] == "6001"
        await it.later(timedelta(minutes=119))
        assert (await it.call(query[0], **query[1]))["order_status"] == "INIT"
        await it.later(timedelta(minutes=1))
        told = await it.call(query[0], **query[1])
        assert (told["order_status"], told["status"]) == ("CLOSED", "CLOSED")
        assert (await it.freeze(timeout_express="2h"))["resultStatus"] == "4000"
        assert (await it.freeze("auth_order_2"))["resultStatus"] == "9000"
        await it.later(timedelta(days=1))
        told = await it.call(query[0], out_order_no="auth_order_2")
        assert told["order_status"] == "AUTHORIZED", "what was confirmed stands"


async def test_a_freeze_is_taken_back_while_it_waits_and_after() -> None:
    async with shop() as it:
        for key, action in (("auth_order_1", "unfreeze"), ("auth_order_2", "close")):
            await it.freeze(key, answer="confirm" if action == "unfreeze" else "look")
            told = await it.call("alipay.fund.auth.operation.cancel", out_order_no=key, out_request_no="c")
            assert told["action"] == action
            told = await it.call("alipay.fund.auth.operation.detail.query", out_order_no=key)
            assert told["order_status"] == "CLOSED"
            assert (await it.freeze(key))["resultStatus"] == "4000"


async def test_a_bill_is_a_zip_of_gbk_tables_on_the_day_after() -> None:
    async with shop(fee_per_mille=6) as it:
        number = await it.ordered()
        await it.pay(number, "10.00")
        assert await it.status(number) == "TRADE_SUCCESS"
        await it.call("alipay.trade.refund", out_trade_no=number, refund_amount="2.50", out_request_no="r1")
        asked = {"bill_type": "trade", "bill_date": "2026-11-22"}
        method = "alipay.data.dataservice.bill.downloadurl.query"
        assert (await it.call(method, **asked))["sub_code"] == "BILL_NOT_EXIST"
        await it.later(timedelta(days=1))
        url = (await it.call(method, **asked))["bill_download_url"]
        detail, summary = await tables(it, url)
        async with it.peer.session.get(url[:-1] + ("0" if url[-1] != "0" else "1")) as answer:
            assert answer.status == 403
        head, *rows = csv.reader(line for line in detail.splitlines() if not line.startswith("#"))
        assert tuple(head) == COLUMNS and len(COLUMNS) == 25
        assert all(cell.endswith("\t") for row in rows for cell in row)
        shown = [{name: cell.strip() for name, cell in zip(head, row, strict=True)} for row in rows]
        assert [(row["业务类型"], row["订单金额（元）"]) for row in shown] == [("交易", "10.00"), ("退款", "-2.50")]
        assert {row["商户订单号"] for row in shown} == {number}
        assert (shown[0]["服务费（元）"], shown[1]["退款批次号/请求号"]) == ("-0.06", "r1")
        assert "合计" in summary


@pytest.mark.parametrize(
    ("kind", "amounts"),
    [
        ("statement_missing", []),
        ("statement_off", ["10.01"]),
        ("statement_twice", ["10.00"] * 2),
        ("statement_extra", ["10.00"] * 2),
    ],
)
async def test_a_bill_is_wrong_where_the_script_has_it(kind: str, amounts: list[str]) -> None:
    async with shop() as it:
        number = await it.ordered()
        await it.pay(number, "10.00")
        assert await it.status(number) == "TRADE_SUCCESS"
        await it.later(timedelta(days=1))
        await it.peer.script(kind, on=number)
        asked = {"bill_type": "trade", "bill_date": "2026-11-22"}
        told = await it.call("alipay.data.dataservice.bill.downloadurl.query", **asked)
        detail, _ = await tables(it, told["bill_download_url"])
        _, *rows = csv.reader(line for line in detail.splitlines() if not line.startswith("#"))
        assert [row[COLUMNS.index("订单金额（元）")].strip() for row in rows] == amounts


async def tables(it: Shop, url: str) -> tuple[str, str]:
    """The two tables of a bill's zip."""
    async with it.peer.session.get(url) as answer:
        archive = zipfile.ZipFile(io.BytesIO(await answer.read()))
    detail, summary = (archive.read(name).decode("gbk") for name in archive.namelist())
    return detail, summary


async def test_notifications_are_repeated_under_one_number_until_the_answer_is_success() -> None:
    async with shop(notified=True) as it:
        it.answer = "ok"
        await it.agreement()
        first = await it.notice()
        assert first["msg_method"] == f"{ZHIMA}creditagreement.changed"
        for attempts, wait in enumerate((240, 600, 600, 3600, 7200, 21_600, 54_000), 1):
            while (await it.peer.call("GET", "/books/notices"))[0]["attempts"] != attempts:
                pass
            await it.later(timedelta(seconds=wait - 1))
            await it.later(timedelta(seconds=1))
            again = await it.notice()
            assert (again["notify_id"], it.signed(again)) == (first["notify_id"], True)
        while (await it.peer.call("GET", "/books"))["notices_waiting"]:
            pass
        assert it.notices.empty()


async def test_trades_refunds_and_authorisations_tell_how_they_stand() -> None:
    async with shop(notified=True) as it:
        number = await it.ordered()
        assert {(await it.notice())["msg_method"] for _ in range(2)} == {
            f"{ZHIMA}creditagreement.changed",
            f"{ZHIMA}creditbizorder.changed",
        }
        await it.pay(number)
        told = await it.notice()
        assert (told["trade_status"], told["out_trade_no"], told["total_amount"]) == ("TRADE_SUCCESS", number, "10.00")
        assert (told["app_id"], told["seller_id"], it.signed(told)) == (APP_ID, SELLER, True)
        await it.call("alipay.trade.refund", out_trade_no=number, refund_amount="4.00", out_request_no="r1")
        told = await it.notice()
        assert (told["trade_status"], told["refund_fee"], told["out_biz_no"]) == ("TRADE_SUCCESS", "4.00", "r1")
        await it.call("alipay.trade.refund", out_trade_no=number, refund_amount="6.00", out_request_no="r2")
        told = await it.notice()
        assert (told["trade_status"], told["refund_fee"], told["out_biz_no"]) == ("TRADE_CLOSED", "10.00", "r2")
        await it.freeze()
        told = await it.notice()
        assert (told["notify_type"], told["status"], told["total_freeze_amount"]) == (
            "fund_auth_freeze",
            "SUCCESS",
            "200.00",
        )


async def test_keys_rotate_and_survive_a_change_of_the_account_and_a_restart(tmp_path: Path) -> None:
    async with shop(Plan(directory=tmp_path)) as it:
        older = it.alipay_key
        (newest, second) = (await it.peer.call("POST", "/keys?account=shop"))["public_keys"]
        assert second == older != newest
        it.alipay_key = newest
        assert await it.status("nobody") == "ACQ.TRADE_NOT_EXIST"
    async with peer(Plan(directory=tmp_path)) as again:
        assert (await again.call("GET", "/keys?account=shop"))["public_keys"] == [newest, older]
        account = {"account_id": "shop", "face": "alipay", "alipay": {"app_id": APP_ID, "public_key": newest}}
        told = await again.call("PUT", "/accounts", account)
        assert "keys" not in told
        assert (await again.call("GET", "/keys?account=shop"))["public_keys"] == [newest, older]


async def test_a_complaint_is_about_a_trade_by_whatever_it_is_called() -> None:
    """A merchant's own key of a debit on an order is never sent: he has the order's, or Alipay's numbers."""
    async with shop() as it:
        number = await it.ordered()
        await it.pay(number)
        [line] = await it.peer.call("GET", "/books/debits?account=shop")
        trade = await it.call("alipay.trade.query", out_trade_no=number)
        named = {"account_id": "shop", "kind": "complaint"}
        names = (number, line["hold"], line["ref"], trade["trade_no"])
        told = [await it.peer.call("POST", "/disputes", named | {"debit": name}) for name in names]
        assert len({made["number"] for made in told}) == 1
