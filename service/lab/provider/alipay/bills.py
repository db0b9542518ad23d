"""The bill of a day: an address for half a minute, behind it a zip of GBK tables (apifox.cn docs-site 3618910,
doc-3273091)."""

from __future__ import annotations

import hmac
import io
import zipfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from aiohttp import web

from service.lab.provider import desk as core
from service.lab.provider.alipay.trades import logon_id
from service.lab.provider.alipay.visits import Answer, Visit
from service.lab.provider.alipay.wire import SHANGHAI, local, number_of, yuan
from service.lab.provider.desk import Desk, Movement
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account, Debit

URL_LIFE = timedelta(seconds=30)
BILL_TYPES = frozenset({"trade", "signcustomer"})
COLUMNS = (
    "支付宝交易号", "商户订单号", "业务类型", "商品名称", "创建时间", "完成时间", "门店编号", "门店名称", "操作员",
    "终端号", "对方账户", "订单金额（元）", "商家实收（元）", "支付宝红包（元）", "集分宝（元）", "支付宝优惠（元）",
    "商家优惠（元）", "券核销金额（元）", "券名称", "商家红包消费金额（元）", "卡消费金额（元）", "退款批次号/请求号",
    "服务费（元）", "分润（元）", "备注",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "门店编号",
    "门店名称",
    "交易订单总笔数",
    "退款订单总笔数",
    "订单金额（元）",
    "商家实收（元）",
    "服务费（元）",
)


class AskBill(msgspec.Struct, frozen=True):
    """alipay.data.dataservice.bill.downloadurl.query; `bill_date` is a day, `yyyy-MM-dd`."""

    bill_type: str
    bill_date: str


def download_url(visit: Visit, asked: AskBill) -> Answer:
    """The address of a day's bill, which is there on the day after."""
    if asked.bill_type not in BILL_TYPES:
        raise RefusedError(400, "INVALID_REQUEST", "bill_type is neither trade nor signcustomer")
    try:
        day = date.fromisoformat(asked.bill_date)
    except ValueError:
        raise RefusedError(400, "INVALID_REQUEST", "bill_date is not yyyy-MM-dd") from None
    if day >= visit.now.astimezone(SHANGHAI).date():
        raise RefusedError(404, "NOT_FOUND", "the bill is made on the day after")
    until = str(int((datetime.now(UTC) + URL_LIFE).timestamp()))
    account = visit.account
    query = f"account={account.account_id}&day={day}&until={until}&token={_token(account, str(day), until)}"
    return {"bill_download_url": f"{visit.desk.public_url}/alipay/bill?{query}"}


async def download(desk: Desk, request: web.BaseRequest) -> web.Response:
    """The zip behind the address."""
    query = request.query
    account = desk.books.accounts.get(query.get("account", ""))
    day, until = query.get("day", ""), query.get("until", "0")
    if account is None or not hmac.compare_digest(query.get("token", ""), _token(account, day, until)):
        raise RefusedError(403, "FORBIDDEN", "this address was never given out")
    if int(until) < datetime.now(UTC).timestamp():
        raise RefusedError(403, "EXPIRED", "the address was valid for 30 seconds")
    data = zipped(desk, account, day)
    return web.Response(body=data, content_type="application/zip")


def zipped(desk: Desk, account: Account, day: str) -> bytes:
    """The two tables of a day."""
    rows = core.movements(desk, account, day)
    seller = account.alipay.seller_id if account.alipay else account.account_id
    head = [
        "#支付宝业务明细查询",
        f"#账号：[{seller}0156]",
        f"#起始日期：[{day} 00:00:00]   终止日期：[{date.fromisoformat(day) + timedelta(days=1)} 00:00:00]",
    ]
    lines = [_line(desk, account, row) for row in rows]
    total = sum(_signed(row) for row in rows)
    detail = [*head, "#-----业务明细列表----", ",".join(COLUMNS), *lines, "#-----业务明细列表结束----"]
    detail.append(f"#导出时间：[{local(desk.clock.now())}]")
    counts = [sum(row.kind == kind for row in rows) for kind in ("debit", "refund")]
    sums = ("", "合计", *map(str, counts), yuan(total), yuan(total), yuan(-sum(row.fee_minor for row in rows)))
    summary = ["#支付宝业务汇总查询", *head[1:], ",".join(SUMMARY_COLUMNS), _row(sums)]
    name = f"{seller}0156_{day.replace('-', '')}_业务明细"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry(f"{name}.csv"), "\r\n".join([*detail, ""]).encode("gb18030"))
        archive.writestr(_entry(f"{name}(汇总).csv"), "\r\n".join([*summary, ""]).encode("gb18030"))
    return buffer.getvalue()


def _line(desk: Desk, account: Account, row: Movement) -> str:
    """One movement in 25 columns; money that went back is negative."""
    debit, request_no = _trade(desk, account, row)
    amount = yuan(_signed(row))
    cells: dict[str, Any] = {
        "支付宝交易号": number_of(debit) if debit else f"{row.at:%Y%m%d}{row.ref}",
        "商户订单号": debit.asked.key if debit else row.key,
        "业务类型": "退款" if row.kind == "refund" else "交易",
        "商品名称": debit.asked.subject if debit else "",
        "创建时间": local(debit.created_at if debit else row.at),
        "完成时间": local(row.at),
        "对方账户": f"*{logon_id(debit.rider)}" if debit else "",
        "订单金额（元）": amount,
        "商家实收（元）": amount,
        "退款批次号/请求号": request_no,
        "服务费（元）": yuan(-row.fee_minor),
        "备注": debit.asked.subject if debit else "",
    }
    return _row([cells.get(name, "0.00" if name.endswith("（元）") else "") for name in COLUMNS])


def _row(cells: Sequence[str]) -> str:
    return ",".join(f"{cell}\t" for cell in cells)


def _signed(row: Movement) -> int:
    return -row.amount_minor if row.kind == "refund" else row.amount_minor


def _trade(desk: Desk, account: Account, row: Movement) -> tuple[Debit | None, str]:
    """The trade of a movement, and the refund's request number; no trade for a row that is made up."""
    books, who = desk.books, account.account_id
    if row.kind == "refund":
        refund = books.refunds.get((who, row.key))
        return (books.debits_by_number[refund.debit_number] if refund else None), row.key
    found = books.debits.get((who, row.key))
    return (found if found and found.ref == row.ref else None), ""


def _entry(name: str) -> zipfile.ZipInfo:
    """A file of the archive, of no particular time: the same day gives the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _token(account: Account, day: str, until: str) -> str:
    secret = (account.keys[0] if account.keys else account.account_id).encode()
    return hmac.digest(secret, f"{account.account_id}/{day}/{until}".encode(), "sha256").hex()
