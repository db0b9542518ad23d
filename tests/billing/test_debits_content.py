"""What a debit is sent with: items that always sum to its amount, the same for the same key."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from debit_makers import KEY, NOW, debit, terms
from hypothesis import given
from hypothesis import strategies as st

from service.billing.balances import Balance
from service.billing.charged import StoredCharge
from service.billing.debits import State, after
from service.billing.debits.content import items_of, sent_items
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
    items = items_of(stored, stored.charge.total_minor)
    assert sum(item.amount_minor for item in items) == stored.charge.total_minor
    assert all(item.amount_minor for item in items)
    assert items_of(stored, stored.charge.total_minor + 1) == ()


def test_a_line_says_what_was_used_at_what_price() -> None:
    line = Line("duration", Decimal("4.0"), "block", Decimal("1.50"), Decimal(6), "/p")
    stored = StoredCharge(USAGE, Charge("CNY", (line,), 600))
    assert items_of(stored, 600) == (Item("duration", 600, "4 block × 1.5"),)


def test_what_was_cut_to_a_cap_is_sent_as_one_line() -> None:
    made, _ = after(debit(items=(Item("unlock", 150), Item("duration", 850))), Due(), NOW, terms())
    assert sent_items(made) == (Item("unlock", 150), Item("duration", 850))
    cut, _ = after(made, Submitted(KEY, CapExceeded(600)), NOW, terms())
    assert cut.state is State.RETRY_WAIT
    again, _ = after(cut, Due(), NOW, terms())
    assert sent_items(again) == (Item("ride", 600),)
