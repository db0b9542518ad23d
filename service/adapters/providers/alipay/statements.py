"""The day's bill: a zip of GBK CSV files, `#` comments, 25 columns, every value ended by a tab.

Sources: alipay-sdk-java-all, AlipayDataDataserviceBillDownloadurlQueryModel; columns: opendocs.alipay.com/open/01inem.
"""

from __future__ import annotations

import asyncio
import csv
import io
import zipfile
import zlib
from datetime import date, datetime
from typing import Literal

from service.adapters.providers.alipay import codes, wire
from service.adapters.providers.alipay.codes import Problem
from service.adapters.providers.alipay.gateway import ZONE, Gateway
from service.adapters.providers.exchange import ANSWER_BYTES_MAX, Reply
from service.adapters.providers.further import key_of
from service.adapters.providers.port import Statement, StatementAnswer, StatementRow
from service.billing.instants import utc
from service.billing.outcomes import NotFound, Unknown

COLUMNS = (
    "支付宝交易号",
    "商户订单号",
    "业务类型",
    "完成时间",
    "订单金额（元）",
    "退款批次号/请求号",
    "服务费（元）",
)
"""Those of the 25 that are read: trade, our number, kind, done at, amount, refund number, fee."""
KINDS: dict[str, Literal["debit", "refund"]] = {"交易": "debit", "退款": "refund"}
NO_BILL = frozenset({"BILL_NOT_EXIST", "isp.bill_not_exist"})
"""There is none for that day, or not yet (error table of the method, opendocs.alipay.com/open/02e7gr; older words)."""
UNPACKED_BYTES_MAX = 8 * ANSWER_BYTES_MAX
PIECE_BYTES = 1 << 20


async def read_statement(gateway: Gateway, day: date) -> StatementAnswer:
    """Everything Alipay booked on one of its civil days; NotFound while there is no bill for it."""
    asked = {"bill_type": "trade", "bill_date": day.isoformat()}
    answer = await gateway.call("alipay.data.dataservice.bill.downloadurl.query", asked, wire.BILL)
    if isinstance(answer, Problem):
        return NotFound() if answer.sub_code in NO_BILL else codes.of_query(codes.outcome(answer))
    if not isinstance(answer, wire.BillAddress):
        return codes.of_query(answer)
    file = await gateway.download(answer.bill_download_url)
    if not isinstance(file, Reply):
        return codes.of_query(file)
    if file.status != 200:
        return Unknown(f"HTTP {file.status}")
    return await asyncio.to_thread(unpacked, day, file.body)  # A large one takes seconds: the loop goes on meanwhile.


def unpacked(day: date, body: bytes) -> Statement | Unknown:
    """The rows of a downloaded bill; a row that can't be read makes all of it unreadable, since money is in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            texts = _texts(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        return Unknown(f"the bill can't be read: {type(error).__name__}")
    if texts is None:
        return Unknown("the bill is too long")
    rows: list[StatementRow] = []
    found = False
    for text in texts:
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        header = [cell.strip() for cell in (lines[0] if lines else "").split(",")]
        if not set(COLUMNS) <= set(header):
            continue  # The summary, a file of its own.
        found = True
        places = [header.index(name) for name in COLUMNS]
        for line in lines[1:]:
            cells = _cells(line, len(header))
            row = _row([cells[place].strip() for place in places]) if cells else None
            if row is None:
                return Unknown("a row of the bill can't be read")
            rows.append(row)
    return Statement(day, tuple(rows)) if found else Unknown("the bill has no table of trades")


def _texts(archive: zipfile.ZipFile) -> list[str] | None:
    """The files of an archive, None where they are too long in all; their lengths are counted, not believed.

    Raises ValueError for what is packed in a way that unpacks without a bound (bzip2, LZMA), and as zipfile does.
    """
    texts, left = [], UNPACKED_BYTES_MAX
    for entry in archive.infolist():
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("packed in another way")
        raw = bytearray()
        with archive.open(entry) as file:
            while part := file.read(PIECE_BYTES):
                raw += part
                left -= len(part)
                if left < 0:
                    return None
        texts.append(raw.decode("gb18030"))  # All of GBK, and more.
    return texts


def _cells(line: str, count: int) -> list[str]:
    """The values of a row, none if there are not so many. A title may have commas: the tab is what ends a value, unless
    it is quoted (no source says)."""
    cells = line.split("\t,")
    if len(cells) == count:
        return cells
    try:
        cells = next(csv.reader([line]), [])
    except csv.Error:
        return []
    return cells if len(cells) == count else []


def _row(cells: list[str]) -> StatementRow | None:
    """A payment under our key of it (the order's number where it went through one), a refund under its own; the fee of
    a refund is what comes back of it, below 0."""
    trade, number, kind, done_at, amount, refund, fee = cells
    what = KINDS.get(kind)
    sign = -1 if what == "refund" else 1
    taken, charged = _signed(amount), _signed(fee)
    if what is None or taken is None or charged is None or taken * sign <= 0 or any("\0" in cell for cell in cells):
        return None
    try:
        at = utc(datetime.strptime(done_at, "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE))
    except ValueError:
        return None
    key = refund if what == "refund" else key_of(number)
    return StatementRow(what, key, trade, taken * sign, abs(charged) * sign, wire.CURRENCY, at) if key else None


def _signed(text: str) -> int | None:
    """Minor units of an amount that may be below 0."""
    amount = wire.minor(text.removeprefix("-"))
    return -amount if amount is not None and text.startswith("-") else amount
