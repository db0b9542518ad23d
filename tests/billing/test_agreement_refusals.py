"""Who may begin a ride (product.md, the journey's second step): every reason why not, and which one is named first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from service.billing.agreements import Debt, Standing, exposure_minor, refusal

NOW = datetime(2026, 11, 22, tzinfo=UTC)
GOOD = Standing(
    state="active",
    currency="CNY",
    cap_minor=10_000,
    valid_until=None,
    exposure_max_minor=5_000,
    debts=[],
    tariff_currency="CNY",
    tariff_least_minor=150,
)
OPEN = Debt("CNY", overdue=0, overdue_minor=0, open_minor=5_000)
OVERDUE = Debt("CNY", overdue=1, overdue_minor=200, open_minor=200)

CASES: list[tuple[str, Standing, str | None]] = [
    ("an active agreement may", GOOD, None),
    ("without a tariff too", replace(GOOD, tariff_currency=None, tariff_least_minor=None), None),
    *(
        (f"{state} may not", replace(GOOD, state=state), f"agreement_{state}")
        for state in ("pending", "suspended", "revoked")
    ),
    ("nor one past its day", replace(GOOD, valid_until=NOW), "agreement_expired"),
    ("a day before it may", replace(GOOD, valid_until=NOW + timedelta(days=1)), None),
    ("debts past due on any agreement", replace(GOOD, debts=[OVERDUE]), "overdue_debts"),
    ("even in another currency", replace(GOOD, debts=[replace(OVERDUE, currency="EUR")]), "overdue_debts"),
    ("up to the limit of exposure", replace(GOOD, debts=[OPEN]), None),
    ("not above it", replace(GOOD, debts=[replace(OPEN, open_minor=5_001)]), "exposure_limit"),
    ("no limit, no refusal", replace(GOOD, debts=[OPEN], exposure_max_minor=None), None),
    ("a tariff in another currency", replace(GOOD, tariff_currency="EUR"), "tariff_in_another_currency"),
    ("a cap below what the tariff takes at least", replace(GOOD, cap_minor=149), "cap_below_tariff_minimum"),
    ("a cap of just that", replace(GOOD, cap_minor=150), None),
    ("revoked is said before overdue", replace(GOOD, state="revoked", debts=[OVERDUE]), "agreement_revoked"),
]


@pytest.mark.parametrize(("standing", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_who_may_ride(standing: Standing, expected: str | None) -> None:
    assert refusal(standing, NOW) == expected


def test_exposure_is_what_is_open_in_the_agreements_currency() -> None:
    assert exposure_minor(replace(GOOD, debts=[OPEN, replace(OPEN, currency="EUR")])) == 5_000
