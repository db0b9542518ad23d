"""The WeChat Pay face of the simulator, over HTTP with real signatures: a ride from the permission to the refund."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from wechat_shop import APIV3_KEY, APPID, AT, MCHID, NAMES, OTHER_KEY, SECONDS, SERVICE, Shop, authorization, shop

from service.lab.provider.signatures import verified
from service.lab.provider.wechatpay.signing import answer_content, encrypted, request_content

VECTORS = Path(__file__).parents[1] / "vectors" / "signatures.json"
QUERY = f"/v3/payscore/serviceorder?service_id={SERVICE}&appid={APPID}&out_order_no=nobody"


def vector(name: str) -> Any:
    return next(one for one in msgspec.json.decode(VECTORS.read_bytes()) if one["name"] == name)


def test_what_a_merchant_signs_is_what_wechatpay_go_signs() -> None:
    real = vector("wechatpay-authorization-with-body")
    content = request_content("POST", real["path"], real["timestamp"], real["nonce"], real["body"].encode())
    assert content == real["canonical"].encode()
    assert verified(real["public_key_pem"], content, real["signature"])
    assert not verified(real["public_key_pem"], content + b"x", real["signature"])


def test_a_real_notification_is_signed_over_what_ours_are() -> None:
    real = vector("wechatpay-notify-PAYSCORE.USER_OPEN_SERVICE")
    headers, body = real["headers"], real["body"].encode()
    content = answer_content(headers["Wechatpay-Timestamp"], headers["Wechatpay-Nonce"], body)
    assert content == real["canonical"].encode()
    certificate = load_pem_x509_certificate(real["certificate_pem"].encode())
    assert f"{certificate.serial_number:X}" == headers["Wechatpay-Serial"]
    key = certificate.public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert verified(pem, content, headers["Wechatpay-Signature"])


def test_what_is_encrypted_is_what_wechatpay_go_decrypts() -> None:
    real = vector("wechatpay-go-aes-gcm")
    names = ("api_v3_key", "nonce", "associated_data", "plaintext")
    key, nonce, associated, plain = (real[name] for name in names)
    assert encrypted(key, nonce, associated, plain.encode()) == real["ciphertext"]


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": OTHER_KEY}, "签名错误"),
        ({"signed_target": "/v3/other"}, "签名错误"),
        ({"mchid": "1900000002"}, "商户号不存在"),
        ({"serial": "0" * 40}, "商户证书序列号有误"),
        ({"off_s": 400}, "5分钟"),
        ({"off_s": -400}, "5分钟"),
        ({"scheme": "WECHATPAY2-SM2-WITH-SM3"}, "认证类型不正确"),
    ],
)
async def test_a_request_that_its_merchant_did_not_sign_is_refused(change: dict[str, Any], message: str) -> None:
    async with shop() as it:
        told, number = await unsigned(it, authorization("GET", QUERY, b"", **change))
        assert (told["code"], number) == ("SIGN_ERROR", "270924332")
        assert message in told["message"]


@pytest.mark.parametrize("header", ["", "WECHATPAY2-SHA256-RSA2048 mchid=1", 'WECHATPAY2-SHA256-RSA2048 mchid="1"'])
async def test_a_header_that_is_none_is_refused(header: str) -> None:
    async with shop() as it:
        told, _ = await unsigned(it, header)
        assert told["code"] == "SIGN_ERROR"


async def test_a_signature_that_does_not_match_says_what_was_signed_and_a_small_clock_error_is_forgiven() -> None:
    async with shop() as it:
        told, _ = await unsigned(it, authorization("GET", QUERY, b"", key=OTHER_KEY))
        assert told["detail"]["sign_information"]["url"] == QUERY
        for off_s in (-280, 280):
            assert (await it.ask("GET", QUERY, off_s=off_s)).number == "271317510"


async def test_a_request_without_accept_or_user_agent_is_refused() -> None:
    async with shop() as it:
        headers = {"Authorization": authorization("GET", QUERY, b""), "Accept": "", "User-Agent": "tests"}
        async with it.peer.session.get(it.peer.url + QUERY, headers=headers) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, "PARAM_ERROR")


async def test_certificates_are_read_with_the_apiv3_key_and_two_are_valid_while_keys_change() -> None:
    async with shop() as it:
        first = (await certificates(it))[0]
        await it.peer.call("POST", "/keys?account=shop")
        with pytest.raises(AssertionError, match="nobody knows"):
            await it.get("/v3/certificates")
        await it.learn_keys()
        assert (await certificates(it))[1] == first
        await it.peer.call("POST", "/keys?account=shop")
        await it.learn_keys()
        assert len(await certificates(it)) == 2
        assert first not in await certificates(it)


async def test_in_public_key_mode_answers_have_the_keys_id_and_there_is_no_certificate() -> None:
    async with shop(public_key_mode=True) as it:
        told = await it.get("/v3/certificates")
        assert (told.status, told.code) == (404, "RESOURCE_NOT_EXISTS")
        assert told.headers["Wechatpay-Serial"].startswith(f"PUB_KEY_ID_01{MCHID}")


async def test_a_permission_is_nobodys_until_a_rider_gives_it() -> None:
    async with shop() as it:
        by_code = f"/v3/payscore/permissions/authorization-code/perm_1?service_id={SERVICE}"
        by_openid = f"/v3/payscore/permissions/openid/{{}}?service_id={SERVICE}&appid={APPID}"
        assert (await it.get(by_code)).number == "271317510"
        asked = {**NAMES, "authorization_code": "perm_1", "notify_url": it.url}
        tokens = {(await it.post("/v3/payscore/permissions", **asked)).body["apply_permissions_token"] for _ in "12"}
        (token,) = tokens
        changed = await it.post("/v3/payscore/permissions", **(asked | {"notify_url": it.url + "x"}))
        assert changed.number == "271316598"
        assert (await it.ride("refuse", token, rider="rider"))["errMsg"] == "openBusinessView:cancel"
        assert (await it.get(by_code)).body["authorization_state"] == "UNBINDUSER"
        await it.peer.script("refuse", on="rider", op="agreement.begin", code="268560785")
        refused = await it.ride("confirm", {"extraData": {"apply_permissions_token": token}}, rider="rider")
        assert (refused["errMsg"], refused["code"]) == ("openBusinessView:fail", "RULE_LIMIT")
        given = await it.ride("confirm", token, rider="rider")
        assert given["authorization_code"] == "perm_1"
        assert (await it.ride("confirm", token, rider="another"))["errMsg"] == "openBusinessView:fail"
        told = await it.get(by_openid.format(given["openid"]))
        assert (told.body["authorization_state"], told.body["authorization_code"]) == ("AVAILABLE", "perm_1")
        assert (await it.get(by_openid.format("nobody"))).body["authorization_state"] == "UNAVAILABLE"
        notice = (await it.notice())["resource"]
        assert (notice["openid"], notice["user_service_status"]) == (given["openid"], "USER_OPEN_SERVICE")


@pytest.mark.parametrize("way", ["authorization-code", "openid", "rider"])
async def test_a_permission_is_ended_by_either_side(way: str) -> None:
    async with shop() as it:
        whose = await it.permission()
        if way == "rider":
            await it.ride("terminate", rider="rider")
        else:
            named = {"authorization-code": "perm_1", "openid": whose}[way]
            asked = {"service_id": SERVICE, "reason": "the end"} | ({"appid": APPID} if way == "openid" else {})
            for _ in range(2):
                told = await it.post(f"/v3/payscore/permissions/{way}/{named}/terminate", **asked)
                assert (told.status, told.body) == (204, None)
        told = await it.get(f"/v3/payscore/permissions/authorization-code/perm_1?service_id={SERVICE}")
        assert told.body["authorization_state"] == "UNAVAILABLE"
        assert (await it.order(whose)).code == "NO_AUTH"
        assert (await it.permission("perm_2")) == whose
        assert (await it.order(whose)).status == 200
        kinds = [(await it.notice())["resource"]["user_service_status"] for _ in range(2)]
        assert kinds == ["USER_OPEN_SERVICE", "USER_CLOSE_SERVICE"]


async def test_who_ends_his_permission_in_mid_ride_is_still_debited_and_the_merchant_may_not_end_it() -> None:
    async with shop() as it:
        whose = await it.permission()
        await it.order(whose)
        asked = {"service_id": SERVICE, "reason": "the end"}
        told = await it.post("/v3/payscore/permissions/authorization-code/perm_1/terminate", **asked)
        assert (told.status, told.code) == (400, "INVALID_REQUEST")
        await it.ride("terminate", rider="rider")
        assert (await it.complete()).status == 200
        assert await it.states() == ("DONE", None, "USER_PAID")
        assert (await it.order(whose, "order_2")).code == "NO_AUTH"


async def test_a_payment_that_the_rider_approves_himself() -> None:
    async with shop() as it:
        asked: dict[str, Any] = {"appid": APPID, "mchid": MCHID, "description": "the rest", "out_trade_no": "rest_1"}
        asked |= {"notify_url": it.url, "amount": {"total": 500}, "payer": {"openid": "o" + "A" * 27}}
        told = await it.post("/v3/pay/transactions/jsapi", **asked)
        prepay = told.body["prepay_id"]
        assert (await it.post("/v3/pay/transactions/jsapi", **asked)).body["prepay_id"] == prepay
        other = await it.post("/v3/pay/transactions/jsapi", **(asked | {"amount": {"total": 501}}))
        assert (other.status, other.code) == (403, "OUT_TRADE_NO_USED")
        by_key = f"/v3/pay/transactions/out-trade-no/rest_1?mchid={MCHID}"
        assert (await it.get(by_key)).body["trade_state"] == "NOTPAY"
        paid = await it.ride("confirm", f"prepay_id={prepay}", rider="whoever")
        assert paid["trade_state"] == "SUCCESS"
        found = (await it.get(by_key)).body
        assert (found["trade_type"], found["amount"]["payer_total"]) == ("JSAPI", 500)
        by_id = await it.get(f"/v3/pay/transactions/id/{found['transaction_id']}?mchid={MCHID}")
        assert by_id.body["out_trade_no"] == "rest_1"
        assert (await it.post("/v3/pay/transactions/jsapi", **asked)).code == "ORDERPAID"
        notice = await it.notice()
        assert (notice["event_type"], notice["resource"]["trade_state"]) == ("TRANSACTION.SUCCESS", "SUCCESS")
        back: dict[str, Any] = {"out_refund_no": "refund_1", "out_trade_no": "rest_1"}
        back |= {"amount": {"refund": 500, "total": 500, "currency": "CNY"}}
        assert (await it.post("/v3/refund/domestic/refunds", **back)).body["status"] == "SUCCESS"
        assert (await it.get(by_key)).body["trade_state"] == "REFUND"
        await it.post("/v3/pay/transactions/jsapi", **(asked | {"out_trade_no": "rest_2"}))
        for _ in range(2):
            closed = await it.post("/v3/pay/transactions/out-trade-no/rest_2/close", mchid=MCHID)
            assert closed.status == 204
        assert (await it.get(by_key.replace("rest_1", "rest_2"))).body["trade_state"] == "CLOSED"
        assert (
            await it.post("/v3/pay/transactions/jsapi", **(asked | {"out_trade_no": "rest_2"}))
        ).code == "ORDER_CLOSED"
        assert (await it.get(by_key.replace("rest_1", "rest_3"))).code == "ORDER_NOT_EXIST"


@pytest.mark.parametrize(("expires", "days"), [(None, 7), ("2026-11-22T18:30:00+08:00", 1)])
async def test_a_prepay_id_begins_a_payment_for_two_hours_and_what_nobody_pays_is_closed_for_good(
    expires: str | None, days: int
) -> None:
    async with shop() as it:
        asked: dict[str, Any] = {"appid": APPID, "mchid": MCHID, "description": "the rest", "out_trade_no": "rest_1"}
        asked |= {"notify_url": it.url, "amount": {"total": 500}, "payer": {"openid": "o" + "A" * 27}}
        asked |= {} if expires is None else {"time_expire": expires}
        by_key = f"/v3/pay/transactions/out-trade-no/rest_1?mchid={MCHID}"
        first = (await it.post("/v3/pay/transactions/jsapi", **asked)).body["prepay_id"]
        if expires is None:
            await it.later(timedelta(hours=2))
            assert (await it.ride("confirm", first))["errMsg"] == "openBusinessView:fail"
            again = (await it.post("/v3/pay/transactions/jsapi", **asked)).body["prepay_id"]
            assert again != first
        await it.later(timedelta(days=days))
        assert (await it.get(by_key)).body["trade_state"] == "CLOSED"
        assert (await it.post("/v3/pay/transactions/jsapi", **asked)).code == "ORDER_CLOSED"
        assert (await it.ride("confirm", first))["errMsg"] == "openBusinessView:fail"


async def test_complaints_are_told_listed_answered_and_completed() -> None:
    async with shop() as it:
        whose = await it.permission()
        await it.order(whose)
        await it.complete()
        number = await it.transaction()
        urls = "/v3/merchant-service/complaint-notifications"
        assert (await it.get(urls)).status == 404
        assert (await it.post(urls, url=it.url)).body["url"] == it.url
        dispute = {"account_id": "shop", "debit": "order_1", "kind": "complaint"}
        made = await it.peer.call("POST", "/disputes", dispute)
        ordered = (await it.get(QUERY.replace("nobody", "order_1"))).body["order_id"]
        for name in (number, ordered):  # One debit, by the payment's number and the order's.
            assert await it.peer.call("POST", "/disputes", dispute | {"debit": name}) == made
        paid = await it.ride("pay", order=ordered)
        assert "its debit is paid" in paid["error"]["message"]
        at = "/v3/merchant-service/complaints-v2"
        page = (await it.get(f"{at}?begin_date=2026-11-22&end_date=2026-11-22&limit=5&offset=0")).body
        (one,) = page["data"]
        assert (page["total_count"], one["complaint_state"]) == (1, "PENDING")
        assert one["complaint_order_info"][0]["transaction_id"] == number
        assert one["service_order_info"][0]["out_order_no"] == "order_1"
        about = f"{at}/{one['complaint_id']}"
        assert (await it.post(f"{about}/complete", complainted_mchid=MCHID)).status == 400
        assert (await it.post(f"{about}/response", complainted_mchid=MCHID, response_content="sorry")).status == 204
        assert (await it.get(about)).body["complaint_state"] == "PROCESSING"
        assert (await it.post(f"{about}/complete", complainted_mchid=MCHID)).status == 204
        assert (await it.get(about)).body["complaint_state"] == "PROCESSED"
        assert (await it.get(f"{at}/{'2' * 28}")).status == 404
        kinds = [(await it.notice())["event_type"] for _ in range(4)]
        assert kinds[2:] == ["COMPLAINT.CREATE", "COMPLAINT.STATE_CHANGE"]


async def test_an_address_that_is_none_and_a_body_that_is_none_are_refused() -> None:
    async with shop() as it:
        assert (await it.get("/v3/payscore/nothing")).status == 404
        told = await it.post("/v3/payscore/permissions", appid=APPID)
        assert (told.code, told.number) == ("PARAM_ERROR", "268435464")
        other = {"service_id": SERVICE, "appid": "wx-other", "authorization_code": "perm_1"}
        assert (await it.post("/v3/payscore/permissions", **other)).number == "271302149"
        assert (await it.post("/v3/payscore/permissions", **(other | NAMES | {"service_id": "1"}))).code == "NO_AUTH"


async def test_a_notification_comes_again_until_it_is_taken_as_often_as_wechat_pay_says() -> None:
    async with shop() as it:
        it.inbox.answer = 500
        await it.permission()
        waits = [15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10_800, 10_800, 10_800, 21_600, 21_600]
        ids = {(await it.notice())["id"]}
        for wait in waits:
            await asyncio.wait_for(attempted(it), SECONDS)
            await it.later(timedelta(seconds=wait))
            ids.add((await it.notice())["id"])
        assert len(ids) == 1
        assert sum(waits) == timedelta(hours=24, minutes=4).total_seconds()
        await asyncio.wait_for(given_up(it), SECONDS)


async def attempted(it: Shop) -> None:
    """Until the books know how the last attempt ended: then the next is planned after now."""
    while True:
        (line,) = await it.peer.call("GET", "/books/notices")
        now = (await it.peer.call("GET", "/clock"))["now"]
        if line["next_at"] > now:
            return


async def given_up(it: Shop) -> None:
    while await it.peer.call("GET", "/books/notices"):
        pass


async def unsigned(it: Shop, header: str) -> tuple[Any, str]:
    """What a request gets that is not believed: 401 without a signature."""
    headers = {"Accept": "application/json", "User-Agent": "tests", "Authorization": header}
    async with it.peer.session.get(it.peer.url + QUERY, headers=headers) as answer:
        assert (answer.status, "Wechatpay-Signature" in answer.headers) == (401, False)
        return await answer.json(), answer.headers["Request-Id"].rpartition("-")[2]


async def certificates(it: Shop) -> list[str]:
    """The platform's certificates, decrypted: each is of a key that signs."""
    found = []
    for one in (await it.get("/v3/certificates")).body["data"]:
        sealed = one["encrypt_certificate"]
        parts = (sealed["nonce"].encode(), b64decode(sealed["ciphertext"]), sealed["associated_data"].encode())
        certificate = load_pem_x509_certificate(AESGCM(APIV3_KEY.encode()).decrypt(*parts))
        public = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        assert f"{certificate.serial_number:X}" == one["serial_no"]
        assert it.keys[one["serial_no"]] == public
        found.append(str(one["serial_no"]))
    return found
