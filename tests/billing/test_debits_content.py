"""What a debit is sent with: items that always sum to its amount, the same for the same key."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from debit_makers import KEY, NOW, debit, terms
from hypothesis import given
from hypothesis import strategies as st

from service.billing.balances import Balance
from service.billing.charged import StoredCharge
from service.billing.debits import State, after
from service.billing.debits.content import Content, items_of, sent_items, subject_of
from service.billing.debits.events import Due, Submitted
from service.billing.debits.state import Item
from service.billing.outcomes import CapExceeded
from service.billing.rating.charges import Charge, Line, settle
from service.billing.sessions import Usage

USAGE = Usage(started_at=NOW - timedelta(hours=1), ended_at=NOW, duration_us=3_600_000_000)
EXACT = st.decimals(min_value=-20, max_value=200, places=4)


def charge(amounts: list[Decimal]) -> Charge:
    lines = [Line(f"line_{number}", Decimal(1), "ride", amount, amount, "/p") for number, amount in enumerate(amounts)]
    return settle(lines, "CNY", None, Balance(), ())


@given(st.lists(EXACT, max_size=20))
def test_items_sum_to_the_amount_whatever_the_lines_are(amounts: list[Decimal]) -> None:
    stored = StoredCharge(USAGE, charge(amounts))
    items = items_of(stored, stored.charge.total_minor, "zh")
    assert sum(item.amount_minor for item in items) == stored.charge.total_minor
    assert all(item.amount_minor for item in items)
    assert items_of(stored, stored.charge.total_minor + 1, "zh") == ()


LINES = (
    Line("price", Decimal(1), "ride", Decimal("1.50"), Decimal("1.50"), "/plan/price"),
    Line("per_min", Decimal("4.0"), "15 min", Decimal("1.25"), Decimal(5), "/plan/per_min_pricing/0"),
    Line("extra", Decimal(1), "fee", Decimal(3), Decimal(3), "adjustment:a1", "damage"),
    Line("extra", Decimal(1), "fee", Decimal(2), Decimal(2), "adjustment:a2", "helmet_lost"),
    Line("goodwill", Decimal(1), "ride", Decimal(-1), Decimal(-1), "adjustment:a3", "apology"),
    Line("rounding", Decimal(1), "CNY", Decimal("-0.50"), Decimal("-0.50"), "/plan/currency"),
)


def test_lines_are_said_in_the_receipts_words_and_the_riders_language() -> None:
    stored = StoredCharge(USAGE, Charge("CNY", LINES, 1000))
    assert items_of(stored, 1000, "zh") == (
        Item("起步价", 150, "1 次 × 1.5 元"),
        Item("时长费", 500, "4 × 15 分钟 × 1.25 元"),
        Item("附加费用：车辆损坏", 300),
        Item("附加费用：helmet_lost", 200),
        Item("优惠减免：致歉", -100),
        Item("四舍五入", -50),
    )
    assert [(item.name, item.description) for item in items_of(stored, 1000, "en")] == [
        ("Base price", "1 ride × 1.5 CNY"),
        ("Time", "4 × 15 min × 1.25 CNY"),
        ("Extra charge: damage", ""),
        ("Extra charge: helmet_lost", ""),
        ("Goodwill: apology", ""),
        ("Rounding", ""),
    ]


def test_the_title_tells_when_the_ride_was_by_the_riders_clock_and_what_was_brought_over() -> None:
    zone, price = ZoneInfo("Asia/Shanghai"), (Decimal(1), "fee", Decimal(3), Decimal(3), "adjustment:o", "opening")
    at = f"{USAGE.started_at.astimezone(zone):%Y-%m-%d %H:%M}"
    ride = Content(StoredCharge(USAGE, Charge("CNY", LINES, 1000)), 1, "用车", "zh")
    debt = Content(StoredCharge(USAGE, Charge("CNY", (Line("opening", *price),), 300)), 1, "Ride", "en")
    assert subject_of(ride, 1, NOW, zone) == f"用车 {at}"
    assert subject_of(ride, 2, NOW, zone) == f"用车 补款 {at}"
    assert subject_of(debt, 1, NOW, zone) == f"Debt from before {at}"


def test_of_what_was_cut_to_a_cap_only_the_title_is_sent() -> None:
    made, _ = after(debit(items=(Item("unlock", 150), Item("duration", 850))), Due(), NOW, terms())
    assert sent_items(made) == (Item("unlock", 150), Item("duration", 850))
    cut, _ = after(made, Submitted(KEY, CapExceeded(600)), NOW, terms())
    assert cut.state is State.RETRY_WAIT
    again, _ = after(cut, Due(), NOW, terms())
    assert sent_items(again) == ()
