"""What values look like on WeChat Pay's wire: fen as integers, times of Shanghai, numbers that tell their kind."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from datetime import datetime
from hashlib import blake2b
from zoneinfo import ZoneInfo

from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Debit, Hold, Refund

SHANGHAI = ZoneInfo("Asia/Shanghai")
CURRENCY = "CNY"
_OPENID = re.compile(r"o[0-9A-Za-z_-]{27}")
_ORDER = re.compile(r"1000\d{8}(\d{14})")
_TRANSACTION = re.compile(r"4200(\d{12})(\d{12})")


def order_id(row: Hold) -> str:
    """WeChat Pay's number of a service order: digits, with the day."""
    return f"1000{row.created_at.astimezone(SHANGHAI):%Y%m%d}{row.number:014d}"


def transaction_id(debit: Debit, so_far_minor: int) -> str:
    """The number of one payment of a debit, told by how much was paid with it."""
    return f"4200{debit.number:012d}{so_far_minor:012d}"


def payment_of(text: str) -> tuple[int, int] | None:
    """The debit's number and how much was paid of it so far, from a payment's number; None for any other text."""
    found = _TRANSACTION.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None


def order_of(text: str) -> int:
    """The row's number within a service order's; 0, which no row has, for any other text."""
    found = _ORDER.fullmatch(text)
    return int(found[1]) if found else 0


def own_trade_no(debit: Debit, so_far_minor: int) -> str:
    """The merchant's order number that WeChat Pay makes up for what it debits by itself (开发参数与业务规则, 六)."""
    return f"{debit.created_at.astimezone(SHANGHAI):%Y%m%d}{debit.number:012d}{so_far_minor:012d}"


def refund_id(row: Refund) -> str:
    """WeChat Pay's number of a refund."""
    return f"5030{row.created_at.astimezone(SHANGHAI):%Y%m%d}{row.number:016d}"


def openid(rider: str, appid: str) -> str:
    """A rider within one app: `o` and 27 characters; a rider who is called like that is himself."""
    if _OPENID.fullmatch(rider):
        return rider
    return (
        "o" + urlsafe_b64encode(blake2b(rider.encode(), digest_size=21, key=appid.encode()[:64]).digest()).decode()[:27]
    )


def compact(instant: datetime) -> str:
    """`yyyyMMddHHmmss` in Shanghai."""
    return f"{instant.astimezone(SHANGHAI):%Y%m%d%H%M%S}"


def rfc3339(instant: datetime) -> str:
    """`yyyy-MM-ddTHH:mm:ss+08:00`."""
    return instant.astimezone(SHANGHAI).isoformat(timespec="seconds")


def local(instant: datetime) -> str:
    """`yyyy-MM-dd HH:mm:ss` in Shanghai, as bills have it."""
    return f"{instant.astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}"


def instant(text: str, name: str) -> datetime:
    """A time of a request: yyyyMMddHHmmss or yyyyMMdd by the documents, RFC 3339 by 排障手册; both are understood.

    Raises RefusedError for anything else.
    """
    forms = {14: "%Y%m%d%H%M%S", 8: "%Y%m%d"}
    try:
        if text.isdecimal():
            return datetime.strptime(text, forms[len(text)]).replace(tzinfo=SHANGHAI)
        read = datetime.fromisoformat(text)
    except (ValueError, KeyError):
        raise RefusedError(400, "INVALID_REQUEST", f"{name} is not yyyyMMddHHmmss") from None
    if read.tzinfo is None:
        raise RefusedError(400, "INVALID_REQUEST", f"{name} has no zone")
    return read


def yuan(amount_minor: int) -> str:
    """Fen as yuan with two decimals, as bills have it."""
    sign, amount = ("-", -amount_minor) if amount_minor < 0 else ("", amount_minor)
    return f"{sign}{amount // 100}.{amount % 100:02d}"
