"""The doors of files that providers give: bills as text, which the harness packs, and as what lies at the address."""

from __future__ import annotations

import io
import zipfile
from datetime import date

from fuzz_parts import Door, storable

from service.adapters.providers.alipay import statements as alipay
from service.adapters.providers.port import Statement
from service.adapters.providers.wechatpay import statements as wechatpay
from service.billing.outcomes import Unknown

DAY = date(2026, 11, 21)
ALIPAY = "\t,".join(alipay.COLUMNS) + "\t\n"
ALIPAY_ROWS = (
    "2026\t,K3Y\t,交易\t,2026-11-21 18:30:00\t,12.34\t,\t,0.07\t\n"
    "2027\t,K3Y\t,退款\t,2026-11-21 19:30:00\t,-1.00\t,R3F\t,-0.01\t\n"
)
WECHAT = (
    "\ufeff" + ",".join(wechatpay.COLUMNS) + "\n"
    "`2026-11-21 18:30:00,`4200,`W1,`AUTH,`SUCCESS,`0,`wxzff|9|K3Y,`0.07000,`12.34,`0.00\n"
    "`2026-11-21 19:30:00,`4200,`W1,`AUTH,`REFUND,`R3F,`wxzff|9|K3Y,`-0.01000,`0.00,`1.00\n"
    "总交易单数,应结订单总金额\n`2,`12.34\n"
)


def _told(told: Statement | Unknown) -> None:
    assert isinstance(told, Statement | Unknown)
    storable(told)


def packed(text: bytes, kind: int = zipfile.ZIP_STORED) -> bytes:
    """A bill as Alipay packs it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr(zipfile.ZipInfo("20882021_业务明细.csv"), text, kind, 1)
    return file.getvalue()


def enter_alipay(data: bytes) -> None:
    """The table in an archive that is whole."""
    _told(alipay.unpacked(DAY, packed(data)))


def enter_archive(data: bytes) -> None:
    """The archive itself."""
    _told(alipay.unpacked(DAY, data))


def enter_wechat(data: bytes) -> None:
    """The file as it is."""
    _told(wechatpay.unpacked(DAY, data))


def seeds_of_alipay() -> list[bytes]:
    """A table with a payment and a refund, its comments around it."""
    return [f"#支付宝业务明细查询\n{ALIPAY}{ALIPAY_ROWS}#合计\n".encode("gb18030")]


def seeds_of_archives() -> list[bytes]:
    """The same in an archive, packed in each way that there is."""
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    return [packed(seeds_of_alipay()[0], kind) for kind in kinds]


WORDS = ("退款", "交易", "SUCCESS", "REVOKED", "总交易单数", "1e12", "-0.00", "999999999999", "\t,", ",`", "\x00", '"')
DOORS = (
    Door("alipay-bill", enter_alipay, seeds_of_alipay, 4_000, WORDS),
    Door("alipay-archive", enter_archive, seeds_of_archives, 4_000, ("PK\x01\x02", "PK\x03\x04", "PK\x05\x06")),
    Door("wechatpay-bill", enter_wechat, lambda: [WECHAT.encode()], 4_000, WORDS),
)
