"""Double entry: what each fact moves between accounts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.billing.ledger import (
    Account,
    Fact,
    Transfer,
    account,
    account_name,
    adjustment_transfers,
    charge_transfers,
    chargeback_transfers,
    forgone_transfers,
    recovery_transfers,
    refund_transfers,
    settlement_transfers,
)

AGREEMENT, TARIFF, OPERATOR, MERCHANT = 7, 3, 2, 5
RECEIVABLE, REVENUE = account(Account.RECEIVABLE, AGREEMENT), account(Account.REVENUE, TARIFF)
TAX, CLEARING = account(Account.TAX, OPERATOR), account(Account.CLEARING, MERCHANT)


def of(kind: Account) -> int:
    return account(kind, OPERATOR)


CASES: list[tuple[str, tuple[Transfer, ...], list[tuple[int, int, int]]]] = [
    ("charge", charge_transfers(7, 3, 2, 1000, 0, "CNY"), [(RECEIVABLE, REVENUE, 1000)]),
    (
        "charge with tax",
        charge_transfers(7, 3, 2, 1060, 60, "CNY"),
        [(RECEIVABLE, REVENUE, 1000), (RECEIVABLE, TAX, 60)],
    ),
    ("correction down", charge_transfers(7, 3, 2, -106, -6, "CNY"), [(REVENUE, RECEIVABLE, 100), (TAX, RECEIVABLE, 6)]),
    ("correction down untaxed", charge_transfers(7, 3, 2, -100, 0, "CNY"), [(REVENUE, RECEIVABLE, 100)]),
    ("only the tax changes", charge_transfers(7, 3, 2, 0, 6, "CNY"), [(REVENUE, RECEIVABLE, 6), (RECEIVABLE, TAX, 6)]),
    ("no difference", charge_transfers(7, 3, 2, 0, 0, "CNY"), []),
    (
        "extra charge with tax",
        adjustment_transfers("extra", 7, 2, 500, 80, "CNY"),
        [(RECEIVABLE, of(Account.EXTRAS), 420), (RECEIVABLE, TAX, 80)],
    ),
    ("goodwill", adjustment_transfers("goodwill", 7, 2, -500, 0, "CNY"), [(of(Account.GOODWILL), RECEIVABLE, 500)]),
    (
        "refund with tax",
        adjustment_transfers("refund", 7, 2, -106, -6, "CNY"),
        [(of(Account.REFUNDS), RECEIVABLE, 100), (TAX, RECEIVABLE, 6)],
    ),
    ("no adjustment", adjustment_transfers("extra", 7, 2, 0, 0, "CNY"), []),
    ("settlement", settlement_transfers(7, 5, 1000, "CNY"), [(CLEARING, RECEIVABLE, 1000)]),
    ("refund", refund_transfers(7, 5, 300, "CNY"), [(RECEIVABLE, CLEARING, 300)]),
    ("write-off", forgone_transfers(Fact.WRITE_OFF, 7, 2, 9, "CNY"), [(of(Account.WRITE_OFFS), RECEIVABLE, 9)]),
    (
        "less write-off",
        forgone_transfers(Fact.WRITE_OFF_BACK, 7, 2, 9, "CNY"),
        [(RECEIVABLE, of(Account.WRITE_OFFS), 9)],
    ),
    ("waiver", forgone_transfers(Fact.WAIVER, 7, 2, 9, "CNY"), [(of(Account.WAIVED), RECEIVABLE, 9)]),
    ("less waiver", forgone_transfers(Fact.WAIVER_BACK, 7, 2, 9, "CNY"), [(RECEIVABLE, of(Account.WAIVED), 9)]),
    ("paid elsewhere", forgone_transfers(Fact.ELSEWHERE, 7, 2, 9, "CNY"), [(of(Account.ELSEWHERE), RECEIVABLE, 9)]),
    *(
        (f"handed back: {fact.name}", forgone_transfers(fact, 7, 2, 9, "CNY"), [(RECEIVABLE, of(Account.ELSEWHERE), 9)])
        for fact in (Fact.ELSEWHERE_BACK, Fact.GIVEN_BACK)
    ),
    ("recovery", recovery_transfers(2, 5, 9, "CNY"), [(CLEARING, of(Account.WRITE_OFFS), 9)]),
    ("chargeback", chargeback_transfers(2, 5, 9, "CNY", won=False), [(of(Account.CHARGEBACKS), CLEARING, 9)]),
    ("chargeback won", chargeback_transfers(2, 5, 9, "CNY", won=True), [(CLEARING, of(Account.CHARGEBACKS), 9)]),
]


@pytest.mark.parametrize(("transfers", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_a_fact_moves(transfers: tuple[Transfer, ...], expected: list[tuple[int, int, int]]) -> None:
    assert [transfer[:3] for transfer in transfers] == expected
    assert all(transfer.currency == "CNY" for transfer in transfers)


@given(charges=st.lists(st.tuples(st.integers(-(10**9), 10**9), st.integers(-(10**8), 10**8)), max_size=8))
def test_differences_add_up_to_the_last_charge_and_every_amount_is_positive(charges: list[tuple[int, int]]) -> None:
    balances: Counter[int] = Counter()
    before = (0, 0)
    for total, tax in charges:
        for transfer in charge_transfers(7, 3, 2, total - before[0], tax - before[1], "CNY"):
            assert transfer.amount_minor > 0
            balances[transfer.debit_account] += transfer.amount_minor
            balances[transfer.credit_account] -= transfer.amount_minor
        before = (total, tax)
    assert (balances[RECEIVABLE], -balances[TAX], -balances[REVENUE]) == (before[0], before[1], before[0] - before[1])
    assert sum(balances.values()) == 0


def test_accounts_have_names_and_room() -> None:
    assert account_name(account(Account.RECEIVABLE, 17)) == "receivable:17"
    assert max(account(kind, 10**15 - 1) for kind in Account) < 2**63
    with pytest.raises(ValueError, match="99"):
        account_name(99 * 10**15)
