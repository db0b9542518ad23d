"""WeChat Pay clients that nobody here wrote drive the simulator's face as merchants: a journey for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import web
from peer_tools import Workbench, node_clients, run, workbench
from wechatpayv3.async_ import AsyncWeChatPay
from wechatpayv3.async_.type import WeChatPayType

from service.lab.provider.signatures import new_key, public_half

MCHID, APPID, SERVICE = "1900000001", "wx0000000000000001", "2002000000000558128851361561536"
SERIAL, APIV3_KEY = "55D97D542DBAA9CB9B7D0ACDB810CC99C208D328", "k" * 32
SECONDS = 20


class Merchant:
    """A merchant with `wechatpayv3`, and the address for his notifications."""

    def __init__(self, bench: Workbench, key: str, url: str, **platform: str) -> None:
        self.client = AsyncWeChatPay(
            WeChatPayType.MINIPROG, MCHID, key, SERIAL, APPID, APIV3_KEY, notify_url=url, **platform
        )
        self.client._core._gate_way = bench.url

    async def ask(self, name: str, *arguments: Any, **named: Any) -> tuple[int, Any]:
        """What one of the client's calls gave: its status and its JSON."""
        status, text = await getattr(self.client, name)(*arguments, **named)
        return status, msgspec.json.decode(text)


class Inbox:
    """Where notifications go."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def take(self, request: web.BaseRequest) -> web.Response:
        self.arrived.put_nowait((dict(request.headers), await request.read()))
        return web.Response(status=204)

    async def next(self, kind: str) -> tuple[dict[str, str], bytes]:
        async with asyncio.timeout(SECONDS):
            while kind.encode() not in (letter := await self.arrived.get())[1]:
                pass
        return letter


async def test_a_python_client_takes_permission_orders_completes_queries_refunds_and_reads_a_notification() -> None:
    async with workbench() as bench, opened(bench) as (key, inbox, url):
        merchant = Merchant(bench, key, url)
        async with merchant.client:  # It fetches the certificates and decrypts them.
            await debited(bench, merchant)
            headers, body = await inbox.next("PAYSCORE.USER_PAID")
            told = merchant.client.callback(headers, body)
            assert (told["event_type"], told["resource"]["state"]) == ("PAYSCORE.USER_PAID", "DONE")
            assert told["resource"]["collection"]["paid_amount"] == 1234
            assert merchant.client.callback(headers, body.replace(b'"id":"', b'"id":"x')) is None
            status, found = await merchant.ask("payscore_query", SERVICE, out_order_no="order_py_1")
            assert (status, found["state"], found["collection"]["state"]) == (200, "DONE", "USER_PAID")
            number = found["collection"]["details"][0]["transaction_id"]
            amount = {"refund": 234, "total": 1234, "currency": "CNY"}
            status, refund = await merchant.ask("refund", "refund_1", amount, transaction_id=number)
            assert (status, refund["status"]) == (200, "SUCCESS")
            status, refund = await merchant.ask("query_refund", "refund_1")
            assert (status, refund["amount"]["refund"]) == (200, 234)
            told = merchant.client.callback(*await inbox.next("REFUND.SUCCESS"))
            assert told["resource"]["refund_status"] == "SUCCESS"
        books = await bench.call("GET", "/books")
        assert books["problems"] == []
        assert (books["accounts"][0]["paid_minor"], books["accounts"][0]["refunded_minor"]) == (1234, 234)


async def test_a_python_client_does_not_believe_a_wrong_signature_and_is_not_believed_with_one() -> None:
    async with workbench() as bench, opened(bench) as (key, _, url):
        merchant = Merchant(bench, key, url)
        async with merchant.client:
            query = ("payscore_permission_query", SERVICE)
            assert (await merchant.ask(*query, openid="nobody"))[1]["authorization_state"] == "UNAVAILABLE"
            for kind in ("bad_signature", "rotated_key"):
                await bench.call("POST", "/script", [{"kind": kind, "op": "agreement.get"}])
                with pytest.raises(Exception, match="failed to verify the signature"):
                    await merchant.ask(*query, openid="nobody")
            await bench.call("POST", "/keys?account=shop", {})
            status, _ = await merchant.ask(*query, openid="nobody")  # It fetches the new certificate by itself.
            assert status == 200
        thief = Merchant(bench, new_key(), url)
        with pytest.raises(Exception, match="No wechatpay platform certificate"):
            await thief.client.__aenter__()
        await thief.client.__aexit__(None, None, None)


async def test_a_python_client_in_public_key_mode_needs_no_certificate() -> None:
    async with workbench() as bench, opened(bench, public_key_mode=True) as (key, _, url):
        keys = await bench.call("GET", "/keys?account=shop")
        (serial,), (platform,) = keys["serials"], keys["public_keys"]
        assert serial.startswith("PUB_KEY_ID_")
        merchant = Merchant(bench, key, url, public_key=platform, public_key_id=serial)
        async with merchant.client:
            await debited(bench, merchant)
            status, found = await merchant.ask("payscore_query", SERVICE, out_order_no="order_py_1")
            assert (status, found["total_amount"]) == (200, 1234)


async def test_a_node_client_takes_permission_orders_completes_queries_refunds_and_reads_notifications() -> None:
    node, folder = await node_clients()
    async with workbench() as bench:
        key = new_key()
        credentials = {"account": "shop", "mchid": MCHID, "appid": APPID, "serviceId": SERVICE, "serial": SERIAL}
        credentials |= {"apiv3Key": APIV3_KEY, "privateKey": key, "publicKey": public_half(key)}
        code, said = await run(node, "wechatpay.mjs", bench.url, cwd=folder, told=msgspec.json.encode(credentials))
        assert code == 0, said
        told = msgspec.json.decode(said)
        assert told["opened"]["errMsg"] == "openBusinessView:ok"
        assert told["permission"]["authorization_state"] == "AVAILABLE"
        assert (told["order"]["state"], told["completed"]["state_description"]) == ("DOING", "MCH_COMPLETE")
        assert told["order"]["service_introduction"] == "骑行"
        assert (told["paid"]["state"], told["paid"]["collection"]["paid_amount"]) == ("DONE", 1234)
        assert (told["refund"]["status"], told["refunded"]["amount"]["refund"]) == ("SUCCESS", 234)
        assert (told["refused"]["status"], told["refused"]["data"]["code"]) == (404, "RESOURCE_NOT_EXISTS")
        assert told["refused"]["requestId"].endswith("-271317510")
        kinds = {notice["kind"] for notice in told["notices"]}
        assert kinds == {"PAYSCORE.USER_OPEN_SERVICE", "PAYSCORE.USER_PAID", "REFUND.SUCCESS"}
        assert [(notice["believed"], notice["forged"]) for notice in told["notices"]] == [(True, False)] * 3
        assert (await bench.call("GET", "/books"))["problems"] == []


async def test_a_python_client_cancels_an_order_and_lowers_and_collects_another() -> None:
    async with workbench() as bench, opened(bench) as (key, inbox, url):
        merchant = Merchant(bench, key, url)
        async with merchant.client:
            openid = await permitted(bench, merchant)
            await ordered(merchant, openid, "order_py_1")
            status, _ = await merchant.ask("payscore_cancel", "order_py_1", SERVICE, "no bicycle")
            assert status == 200
            status, found = await merchant.ask("payscore_query", SERVICE, out_order_no="order_py_1")
            assert (status, found["state"]) == (200, "REVOKED")
            await owes(bench, merchant, openid, "order_py_2")
            lines = [{"name": "骑行", "amount": 1000}]
            named = ("order_py_2", SERVICE, lines, 1000, "bell was broken")
            status, found = await merchant.ask("payscore_modify", *named)
            assert (status, found["total_amount"]) == (200, 1000), found
            await fill(bench, 100_000)
            status, told = await merchant.ask("payscore_pay", "order_py_2", SERVICE)
            assert (status, told["out_order_no"]) == (200, "order_py_2")
            told = merchant.client.callback(*await inbox.next("PAYSCORE.USER_PAID"))
            assert told["resource"]["collection"]["paid_amount"] == 1000
            status, refused = await merchant.ask("payscore_modify", *named)
            assert (status, refused["code"]) == (400, "INVALID_REQUEST"), refused
        books = await bench.call("GET", "/books")
        assert books["problems"] == []
        assert books["accounts"][0]["paid_minor"] == 1000


async def test_a_python_client_says_that_a_rider_has_paid_elsewhere() -> None:
    async with workbench() as bench, opened(bench) as (key, _, url):
        merchant = Merchant(bench, key, url)
        async with merchant.client:
            openid = await permitted(bench, merchant)
            await owes(bench, merchant, openid, "order_py_1")
            detail = {"paid_time": f"{datetime.now(UTC) + timedelta(hours=8):%Y%m%d%H%M%S}"}
            for _ in range(2):
                status, found = await merchant.ask("payscore_sync", "order_py_1", SERVICE, detail=detail)
                assert (status, found["state"]) == (200, "DONE"), found
            await fill(bench, 100_000)
            status, refused = await merchant.ask("payscore_pay", "order_py_1", SERVICE)
            assert status == 400, refused
        books = await bench.call("GET", "/books")
        assert (books["problems"], books["accounts"][0]["paid_minor"]) == ([], 0)


async def test_a_python_client_hears_of_a_complaint_answers_it_and_ends_it() -> None:
    async with workbench() as bench, opened(bench) as (key, inbox, url):
        merchant = Merchant(bench, key, url)
        async with merchant.client:
            await debited(bench, merchant)
            status, _ = await merchant.ask("complaint_notification_query")
            assert status == 404
            for call, address in (
                ("complaint_notification_create", f"{url}other"),
                ("complaint_notification_update", url),
            ):
                status, told = await merchant.ask(call, address)
                assert (status, told["url"]) == (200, address)
            status, told = await merchant.ask("complaint_notification_query")
            assert (status, told["url"]) == (200, url)
            await bench.call("POST", "/disputes", {"account_id": "shop", "debit": "order_py_1", "kind": "complaint"})
            told = merchant.client.callback(*await inbox.next("COMPLAINT.CREATE"))
            number = told["resource"]["complaint_id"]
            status, found = await merchant.ask("complaint_detail_query", number)
            assert (status, found["complaint_state"]) == (200, "PENDING")
            assert found["service_order_info"][0]["out_order_no"] == "order_py_1"
            day = found["complaint_time"][:10]
            status, listed = await merchant.ask("complaint_list_query", day, day)
            assert (status, [one["complaint_id"] for one in listed["data"]]) == (200, [number])
            for call, *more in (("complaint_response", "we give it back"), ("complaint_complete",)):
                status, _ = await getattr(merchant.client, call)(number, *more)
                assert status == 204
            told = merchant.client.callback(*await inbox.next("COMPLAINT.STATE_CHANGE"))
            assert told["resource"]["complaint_id"] == number
            status, found = await merchant.ask("complaint_detail_query", number)
            assert (status, found["complaint_state"]) == (200, "PROCESSED")
        assert (await bench.call("GET", "/books"))["problems"] == []


async def test_a_python_client_hears_of_a_complaint_about_an_order_that_is_not_paid() -> None:
    async with workbench() as bench, opened(bench) as (key, inbox, url):
        merchant = Merchant(bench, key, url)
        async with merchant.client:
            await merchant.ask("complaint_notification_create", url)
            await owes(bench, merchant, await permitted(bench, merchant), "order_py_2")
            await bench.call("POST", "/disputes", {"account_id": "shop", "debit": "order_py_2", "kind": "complaint"})
            told = merchant.client.callback(*await inbox.next("COMPLAINT.CREATE"))
            status, found = await merchant.ask("complaint_detail_query", told["resource"]["complaint_id"])
            assert (status, found["complaint_order_info"]) == (200, [])
            [order] = found["service_order_info"]
            assert (order["out_order_no"], order["state"]) == ("order_py_2", "WAITPAY")
        assert (await bench.call("GET", "/books"))["problems"] == []


@asynccontextmanager
async def opened(bench: Workbench, *, public_key_mode: bool = False) -> AsyncIterator[tuple[str, Inbox, str]]:
    """An account at the face: the merchant's private key, his inbox, and its address."""
    key, inbox = new_key(), Inbox()
    runner = web.ServerRunner(web.Server(inbox.take, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    account = {
        "account_id": "shop",
        "face": "wechatpay",
        "notify_url": url,
        "wechatpay": {
            "mchid": MCHID,
            "appid": APPID,
            "service_id": SERVICE,
            "serial_no": SERIAL,
            "public_key": public_half(key),
            "apiv3_key": APIV3_KEY,
            "public_key_mode": public_key_mode,
        },
        "terms": {
            "provider_retries": True,
            "nudge": True,
            "hold_needed": True,
            "reduce_pending": True,
            "new_key_after_decline": False,
        },
    }
    await bench.call("PUT", "/accounts", account)
    try:
        yield key, inbox, url
    finally:
        await runner.cleanup()


async def debited(bench: Workbench, merchant: Merchant) -> None:
    """A rider gives his permission, rides, and pays 12.34 yuan."""
    await ordered(merchant, await permitted(bench, merchant), "order_py_1")
    await completed(merchant, "order_py_1")


async def owes(bench: Workbench, merchant: Merchant, openid: str, number: str) -> None:
    """A rider who can't pay has ridden for 12.34 yuan."""
    await fill(bench, 0)
    await ordered(merchant, openid, number)
    await completed(merchant, number)
    status, found = await merchant.ask("payscore_query", SERVICE, out_order_no=number)
    assert (status, found["collection"]["state"]) == (200, "USER_PAYING"), found


async def fill(bench: Workbench, balance_minor: int) -> None:
    """What the rider has."""
    await bench.call("PUT", "/wallets", [{"rider": "rider", "currency": "CNY", "balance_minor": balance_minor}])


async def permitted(bench: Workbench, merchant: Merchant) -> str:
    """A rider gives his permission; his openid."""
    status, told = await merchant.ask("payscore_permission", SERVICE, "perm_py")
    assert status == 200, told
    await bench.call("POST", "/wechatpay/rider?answer=confirm&rider=rider", told["apply_permissions_token"])
    status, told = await merchant.ask("payscore_permission_query", SERVICE, authorization_code="perm_py")
    assert (status, told["authorization_state"]) == (200, "AVAILABLE")
    return str(told["openid"])


async def ordered(merchant: Merchant, openid: str, number: str) -> None:
    """A ride begins."""
    status, order = await merchant.ask(
        "payscore_create",
        number,
        SERVICE,
        "骑行",
        {"start_time": "OnAccept"},
        {"name": "ESTIMATE_ORDER_COST", "amount": 3000},
        openid=openid,
        need_user_confirm=False,
    )
    assert (status, order["state"]) == (200, "DOING"), order


async def completed(merchant: Merchant, number: str) -> None:
    """It ends, for 12.34 yuan."""
    lines = [{"name": "骑行 {20}", "amount": 1234, "description": '1.00/"h"'}]
    end = f"{datetime.now(UTC) + timedelta(hours=8):%Y%m%d%H%M%S}"
    status, done = await merchant.ask(
        "payscore_complete",
        out_order_no=number,
        service_id=SERVICE,
        post_payments=lines,
        total_amount=1234,
        time_range={"end_time": end},
    )
    assert (status, done["state_description"]) == (200, "MCH_COMPLETE"), done
