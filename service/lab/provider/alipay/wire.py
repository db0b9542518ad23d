"""What values look like on Alipay's wire: yuan with two decimals, times of Shanghai, numbers that tell their kind."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from zoneinfo import ZoneInfo

from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Agreement, Debit, Hold, Refund

SHANGHAI = ZoneInfo("Asia/Shanghai")
CURRENCY = "CNY"
AMOUNT_MAX_MINOR = 10_000_000_000
"""100,000,000 yuan (alipay-sdk-java-all, AlipayTradePayModel.totalAmount)."""
PREFIXES = {Agreement: "ZMOP", Hold: "ZMCB", Debit: "", Refund: ""}
FORBIDDEN_IN_SUBJECT = frozenset("/=&")
_OUR_NUMBER = re.compile(r"[0-9A-Za-z_]{1,64}")
_NUMBER = re.compile(r"(?:ZMOP99|ZMCB99|)\d{8}(\d{12,20})")

Amount = Decimal
"""An amount in yuan, as clients write it: a string by the documents, a number by some."""


def number_of(row: Agreement | Hold | Debit) -> str:
    """The provider's number: an agreement's begins with ZMOP99, a credit order's with ZMCB99; a trade's and an
    authorisation's are digits that begin with the day."""
    day = f"{row.created_at.astimezone(SHANGHAI):%Y%m%d}"
    match row:
        case Agreement():
            return f"ZMOP99{day}{row.number:014d}"
        case Hold() if row.asked.agreement:
            return f"ZMCB99{day}{row.number:014d}"
        case _:
            return f"{day}{row.number:020d}"


def row_number(text: str) -> int:
    """The row's number within one of the provider's numbers; 0, which no row has, for any other text."""
    found = _NUMBER.fullmatch(text)
    return int(found[1]) if found else 0


def operation_id(hold: Hold) -> str:
    """The number of the freeze of an authorisation."""
    return f"{hold.created_at.astimezone(SHANGHAI):%Y%m%d}{hold.number:012d}"


def user_id(rider: str) -> str:
    """A rider's Alipay user id: 2088 and twelve digits."""
    return f"2088{int.from_bytes(blake2b(rider.encode(), digest_size=5).digest()) % 10**12:012d}"


def open_id(rider: str) -> str:
    """The rider's id within one app."""
    return blake2b(rider.encode(), digest_size=24, key=b"open_id").hexdigest()


def yuan(amount_minor: int) -> str:
    """Fen as yuan with two decimals."""
    sign, amount = ("-", -amount_minor) if amount_minor < 0 else ("", amount_minor)
    return f"{sign}{amount // 100}.{amount % 100:02d}"


def fen(amount: Amount) -> int:
    """Yuan as fen; RefusedError unless it is within [0.01, 100000000] with at most two decimals."""
    minor = amount * 100
    if not minor.is_finite() or minor != int(minor) or not 1 <= minor <= AMOUNT_MAX_MINOR:
        raise RefusedError(400, "INVALID_REQUEST", f"{amount} is not within [0.01, 100000000] with two decimals")
    return int(minor)


def check_subject(subject: str) -> None:
    """RefusedError unless a title is without the signs that Alipay forbids (AlipayTradePayModel.subject)."""
    if FORBIDDEN_IN_SUBJECT & set(subject):
        raise RefusedError(400, "INVALID_REQUEST", "subject has one of / = &")


def check_trade(out_trade_no: str, subject: str) -> None:
    """RefusedError unless number and title of a new trade are of the forms that AlipayTradePayModel has for them."""
    if not _OUR_NUMBER.fullmatch(out_trade_no):
        raise RefusedError(400, "INVALID_REQUEST", "out_trade_no has letters, digits and _, at most 64")
    check_subject(subject)


def local(instant: datetime) -> str:
    """`yyyy-MM-dd HH:mm:ss` in Shanghai."""
    return f"{instant.astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}"
