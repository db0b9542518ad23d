"""The day's bill: CSV in UTF-8, each value of a row behind a backtick, then a summary; its SHA1 is told beforehand.

Sources: pay.weixin.qq.com, 申请交易账单, 交易账单文件格式说明; wechatpay-skills, 开发参数与业务规则 6: what Pay Score
collected by itself is of type AUTH under a number of WeChat Pay's own, ours stands in 商户数据包.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from datetime import date, datetime
from decimal import Decimal

from service.adapters.providers.exchange import Reply
from service.adapters.providers.further import key_of
from service.adapters.providers.port import Statement, StatementAnswer, StatementRow
from service.adapters.providers.wechatpay import codes, wire
from service.adapters.providers.wechatpay.client import Client
from service.adapters.providers.wechatpay.codes import Problem
from service.billing.instants import utc
from service.billing.money import MoneyError, exponent, parse_decimal
from service.billing.outcomes import NotFound, Unknown

TRADE_BILL = "/v3/bill/tradebill"
NO_BILL = frozenset({"NO_STATEMENT_EXIST", "STATEMENT_CREATING", "RESOURCE_NOT_EXISTS", "PARAM_ERROR"})
"""There is none for that day, not yet, or not any more: the date is all that differs between calls (申请交易账单)."""
COLUMNS = (
    "交易时间",
    "微信订单号",
    "商户订单号",
    "交易类型",
    "交易状态",
    "商户退款单号",
    "商户数据包",
    "手续费",
    "订单金额",
    "申请退款金额",
)
"""Those that are read: time, payment, our number, type, state, our refund, data, fee, amount, refunded."""
SUMMARY = "总交易单数"
PACKET = re.compile(r"wxzff\|[^|]*\|([0-9A-Za-z_\-|*]{1,32})", re.ASCII)


async def read_statement(client: Client, day: date) -> StatementAnswer:
    """Everything WeChat Pay booked on one of its civil days; NotFound while there is no bill for it."""
    asked = {"bill_date": day.isoformat(), "bill_type": "ALL"}
    answer = await client.get(TRADE_BILL, asked, wire.BILL)
    if isinstance(answer, Problem):
        return NotFound() if answer.code in NO_BILL else codes.of_query(codes.outcome(answer))
    if not isinstance(answer, wire.BillAddress):
        return codes.of_query(answer)
    file = await client.download(answer.download_url)
    if not isinstance(file, Reply):
        return codes.of_query(file)
    if file.status != 200:
        return Unknown(f"HTTP {file.status}")
    # A large one takes seconds: the loop goes on meanwhile.
    return await asyncio.to_thread(_believed, day, file.body, answer)


def _believed(day: date, body: bytes, told: wire.BillAddress) -> Statement | Unknown:
    """What a downloaded bill says, if it is the one that was told of."""
    found = hashlib.sha1(body, usedforsecurity=False).hexdigest()
    if told.hash_type != "SHA1" or found != told.hash_value.lower():
        return Unknown("the bill is not the one whose hash was told")
    return unpacked(day, body)


def unpacked(day: date, body: bytes) -> Statement | Unknown:
    """The rows of a downloaded bill; a row that can't be read makes all of it unreadable, since money is in it."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Unknown("the bill is not UTF-8")
    lines = text.splitlines()
    header = [cell.strip() for cell in (lines[0] if lines else "").split(",")]
    if not set(COLUMNS) <= set(header):
        return Unknown("the bill has no table of payments")
    places = [header.index(name) for name in COLUMNS]
    rows: list[StatementRow] = []
    for line in lines[1:]:
        if not line.strip():
            continue
        if line.split(",")[0].strip() == SUMMARY:
            return Statement(day, tuple(rows))
        cells = line.removeprefix("`").split(",`")  # A title may have commas: the backtick is what begins a value.
        row = _row([cells[place].strip() for place in places]) if len(cells) >= len(header) else None
        if row is None:
            return Unknown("a row of the bill can't be read")
        rows.append(row)
    return Unknown("the bill ends without its summary")


def _row(cells: list[str]) -> StatementRow | None:
    """A payment under its order's number (AUTH) or its own, a refund under its own; the fee of a refund is what comes
    back of it, below 0."""
    done_at, payment, number, kind, state, refund, packet, fee, amount, refunded = cells
    charged = _minor(fee)
    given_back = state in ("REFUND", "REVOKED")
    moved = _minor(refunded if given_back else amount)
    if state not in ("SUCCESS", "REFUND", "REVOKED") or charged is None or moved is None or moved <= 0:
        return None
    if any("\0" in cell for cell in cells):
        return None
    try:
        at = utc(datetime.strptime(done_at, "%Y-%m-%d %H:%M:%S").replace(tzinfo=wire.ZONE))
    except ValueError:
        return None
    if given_back:
        return StatementRow("refund", refund, payment, moved, -abs(charged), wire.CURRENCY, at) if refund else None
    key = key_of(number)
    if kind == "AUTH":
        found = PACKET.fullmatch(packet)
        key = found[1] if found else ""
    return StatementRow("debit", key, payment, moved, abs(charged), wire.CURRENCY, at) if key else None


def _minor(text: str) -> int | None:
    """Fen of an amount in yuan, which may be below 0; fees are told with five places, the last three of them 0."""
    try:
        value = parse_decimal(text).scaleb(exponent(wire.CURRENCY))
    except MoneyError:
        return None
    whole = int(value)
    return whole if Decimal(whole) == value else None
