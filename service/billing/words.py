"""What riders read, in Chinese and English: on receipts, and at the providers. One word per thing on both."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec

Language = Literal["zh", "en"]


def _both(chinese: str, english: str) -> Mapping[str, str]:
    return {"zh": chinese, "en": english}


LINES = {
    "price": _both("起步价", "Base price"),
    "per_min": _both("时长费", "Time"),
    "per_km": _both("里程费", "Distance"),
    "pause": _both("暂停计费", "Paused time"),
    "per_night": _both("每晚", "Nights"),
    "late_check_out": _both("延迟归还", "Late return"),
    "free_minutes": _both("免费时长", "Free minutes"),
    "free_abort": _both("免费取消", "Free cancellation"),
    "fare_min": _both("最低消费补足", "Minimum fare"),
    "fare_capping": _both("时段封顶", "Cap of the time window"),
    "day_cap": _both("单日封顶", "Day cap"),
    "month_cap": _both("单月封顶", "Month cap"),
    "ride_max": _both("单次封顶", "Ride maximum"),
    "reservation": _both("预约费", "Reservation"),
    "parking_fee": _both("停车费", "Parking"),
    "zone_fee": _both("区域调度费", "Zone fee"),
    "unknown_zone_fee": _both("未知区域", "Unknown zone"),
    "discount": _both("优惠", "Discount"),
    "pass": _both("骑行卡", "Pass"),
    "coupon": _both("优惠券", "Coupon"),
    "coupon_not_used": _both("优惠券未使用", "Coupon not used"),
    "zero_floor": _both("抵扣至零", "Not below zero"),
    "extra": _both("附加费用", "Extra charge"),
    "goodwill": _both("优惠减免", "Goodwill"),
    "refund": _both("退款", "Refund"),
    "opening": _both("此前未付款项", "Debt from before"),
    "taken_back": _both("行程已撤销", "Ride taken back"),
    "lapsed": _both("随撤销失效", "Lapsed with the ride"),
    "rounding": _both("四舍五入", "Rounding"),
    "tax": _both("税", "Tax"),
    "tax_rounding": _both("税额舍入", "Rounding of tax"),
}
"""A line of a charge, by its code."""

ADJUSTMENTS = {
    "ride": _both("骑行", "ride"),
    "damage": _both("车辆损坏", "damage"),
    "fine": _both("违章罚款", "fine"),
    "toll": _both("过路费", "toll"),
    "cleaning": _both("清洁费", "cleaning"),
    "towing": _both("拖车费", "towing"),
    "lost_item": _both("配件遗失", "lost item"),
    "late_return": _both("逾期归还", "late return"),
    "parking": _both("停车不当", "parking"),
    "apology": _both("致歉", "apology"),
    "vehicle_fault": _both("车辆故障", "vehicle fault"),
    "refund": _both("退款", "refund"),
    "wrong_charge": _both("收费有误", "wrong charge"),
}
"""What an adjustment was for, by its code; another code is shown as the operator gave it."""

PARKED = {
    "corral": _both("停车点", "parking area"),
    "curb": _both("路边", "kerb"),
    "rack": _both("停车架", "rack"),
    "other_valid": _both("其他允许区域", "another permitted place"),
    "invalid": _both("违规停放", "not permitted there"),
}
"""How a vehicle was parked that a fee is for, by its category."""

UNITS = {
    "min": _both("分钟", "min"),
    "km": _both("公里", "km"),
    "ride": _both("次", "ride"),
    "window": _both("时段", "window"),
    "night": _both("晚", "night"),
    "fee": _both("项", "fee"),
    "reservation": _both("次", "reservation"),
}
"""What a line counts."""

TEXTS: Mapping[Language, Mapping[str, str]] = {
    "zh": {
        "title": "行程账单",
        "session": "行程号",
        "vehicle": "车辆",
        "tariff": "资费",
        "from": "开始",
        "to": "结束",
        "duration": "时长",
        "distance": "里程",
        "item": "项目",
        "quantity": "数量",
        "price": "单价",
        "amount": "金额",
        "total": "合计",
        "tax": "其中税额",
        "paid": "已支付",
        "refunded": "已退款",
        "to_refund": "待退款",
        "given_back": "其他方式已退",
        "outside": "其他方式已付",
        "given_up": "不再收取",
        "open": "待支付",
        "charged_back": "已由银行收回",
        "contact": "如有疑问请联系",
        "lost_end": "未收到本次行程的结束信息，暂按资费规则计费；收到后将更正，多收的金额会退还。",
        "rest": "行程已撤销，其余项目仍需支付。",
        "brought_over": "此前在其他系统中未付的款项。",
    },
    "en": {
        "title": "Receipt",
        "session": "Ride",
        "vehicle": "Vehicle",
        "tariff": "Tariff",
        "from": "From",
        "to": "To",
        "duration": "Duration",
        "distance": "Distance",
        "item": "Item",
        "quantity": "Quantity",
        "price": "Price",
        "amount": "Amount",
        "total": "Total",
        "tax": "Tax in it",
        "paid": "Paid",
        "refunded": "Given back",
        "to_refund": "To be given back",
        "given_back": "Given back otherwise",
        "outside": "Paid otherwise",
        "given_up": "Not asked for any more",
        "open": "To be paid",
        "charged_back": "Taken back by your bank",
        "contact": "Questions",
        "lost_end": "The end of this ride was not heard of: it is charged by the tariff's rule for that. When its end"
        " is heard of, this is put right, and what was too much is given back.",
        "rest": "The ride was taken back; what is left is owed all the same.",
        "brought_over": "What was open in another system, before.",
    },
}
"""Everything else on a receipt."""

RIDE = _both("用车", "Ride")
"""What a ride is called at a provider unless its account's settings say it: of a bike and of a car alike."""
_COLON = _both("：", ": ")
_FURTHER = _both("补款", "further payment")
_TWICE = _both("重复支付退款", "Refund of what was paid twice")


Named = Annotated[
    str, msgspec.Meta(min_length=1, max_length=40, pattern=r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$")
]
"""A name that riders read: 1 to 40 characters, no space at either end."""


class Label(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What an adjustment is called in each language, in place of its code; in one alone, it is read in both."""

    zh: Named | None = None
    en: Named | None = None


NO_LABELS: Mapping[str, Label | None] = {}


def spoken(language: str) -> Language:
    """The language of the two that an agreement's is."""
    return "en" if language.startswith("en") else "zh"


def usual_language(currency: str) -> Language:
    """The language of a rider who is charged in a currency, where nobody says his."""
    return "zh" if currency == "CNY" else "en"


def title_of(title: str, at: datetime, zone: ZoneInfo, language: Language, *, further: bool = False) -> str:
    """What a payment or a freeze is called at the provider: the ride's word, and when it was by the rider's clock.
    `further`: another payment for the same ride, which is no mistake."""
    named = f"{title} {_FURTHER[language]}" if further else title
    return f"{named} {at.astimezone(zone):%Y-%m-%d %H:%M}"


def line_text(
    code: str, path: str, window: str | None, language: Language, labels: Mapping[str, Label | None] = NO_LABELS
) -> str:
    """A charge line's own words; of a fee also its zone, or how it was parked; of an adjustment what it was for: its
    label, of `labels` by adjustment id, else its code's word."""
    text = LINES.get(code, {}).get(language, code)
    if code in ("zone_fee", "unknown_zone_fee", "parking_fee"):
        fee = path.rpartition("/")[2].replace("~1", "/").replace("~0", "~")  # The last name of a JSON pointer.
        return f"{text}{_COLON[language]}{PARKED.get(fee, {}).get(language, fee) if code == 'parking_fee' else fee}"
    if not is_adjustment(path) or window is None:
        return text
    label = labels.get(path.partition(":")[2])
    named = None if label is None else (label.zh or label.en if language == "zh" else label.en or label.zh)
    if named is None and window == code:
        return text
    return f"{text}{_COLON[language]}{named or ADJUSTMENTS.get(window, {}).get(language, window)}"


def unit_text(unit: str, language: Language) -> str:
    """A unit's own word; of an interval ("15 min") the number stays."""
    many, _, one = unit.rpartition(" ")
    return f"{many} {UNITS.get(one, {}).get(language, one)}".strip()


def quantity_text(quantity: str, unit: str, times: str = "×") -> str:
    """How many of a unit: "3 km", and "2 × 15 min" of what has a number of its own."""
    return f"{quantity} {times} {unit}" if unit[:1].isdigit() else f"{quantity} {unit}"


def price_text(price: str, currency: str, language: Language) -> str:
    """A price with its currency."""
    return f"{price} {'元' if currency == 'CNY' and language == 'zh' else currency}"


def refund_text(language: Language, *, twice: bool) -> str:
    """What the provider is told of a refund, and may show: never what support has noted about it."""
    return (_TWICE if twice else LINES["refund"])[language]


def is_adjustment(path: str) -> bool:
    """Whether a charge line is support's, by its path."""
    return path.startswith("adjustment:")
