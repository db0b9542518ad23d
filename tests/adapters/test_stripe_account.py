"""A merchant account at Stripe: its settings and keys, the riders' agreements, the statement of a day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from stripe_double import AGREEMENT, Double, bad_request, double, intent, provider_at

from service.adapters.providers import open_provider
from service.adapters.providers.port import (
    AgreementRef,
    AgreementRequest,
    DebitRef,
    DisputeStatus,
    MerchantAccount,
    Provider,
    Statement,
    StatementRow,
)
from service.adapters.providers.secrets import AccountSettingsError
from service.billing.agreements.standing import AgreementStatus
from service.billing.outcomes import BARRED_FOR, Barred, ClientSecret, NotFound, Rejected, Succeeded, Throttled, Unknown

SETUP = {"id": "seti_1", "object": "setup_intent", "customer": "cus_1", "client_secret": "seti_1_secret"}
CARD = {"id": "pm_1", "object": "payment_method", "customer": "cus_1", "card": {"exp_month": 12, "exp_year": 2030}}
TO_SIGN = ClientSecret("seti_1_secret")
LISTS = ("payment_intents", "setup_intents", "refunds", "customers", "disputes", "balance_transactions")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_KEY", "sk_test_1")
    monkeypatch.setenv("STRIPE_LIVE", "rk_live_1")
    monkeypatch.setenv("STRIPE_WEBHOOK", "whsec_1")


@pytest.fixture(scope="module")
async def stripe() -> AsyncIterator[Double]:
    async with double() as it:
        yield it


@pytest.fixture
async def provider(stripe: Double) -> AsyncIterator[Provider]:
    stripe.forget()
    async with provider_at(stripe.url) as it:
        yield it


# ------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"currency": None}, "settings: missing are currency"),
        ({"currency": "eur"}, "settings.currency: expected three capitals"),
        ({"currency": "XQQ"}, "unknown currency 'XQQ'"),
        ({"currency": "LYD"}, "LYD: Stripe does not say how its amounts are written"),
        ({"mode": "sandbox"}, "settings.mode: allowed are live, test"),
        ({"hold": "always"}, "settings.hold: allowed are none, manual_capture"),
        ({"payment_method_types": []}, "settings.payment_method_types: expected a list"),
        ({"curency": "EUR"}, "settings.curency is not known"),
        ({"secret_key": "sk_test_1"}, "settings.secret_key is not known"),
        ({"secret_key_env": None}, "secret_key_file or secret_key_env"),
        ({"secret_key_env": "STRIPE_LIVE"}, "not one of mode test: it must begin with sk_test_ or rk_test_"),
        ({"mode": "live"}, "not one of mode live: it must begin with sk_live_ or rk_live_"),
        ({"mode": "live", "webhook_secret_env": None}, "missing are webhook_secret_file or webhook_secret_env"),
        ({"webhook_secret_env": "NOT_SET_ANYWHERE"}, "which is not set"),
        ({"timeout_s": 0}, "settings.timeout_s: expected a number > 0"),
    ],
)
async def test_an_account_that_cannot_be_used_says_why(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(AccountSettingsError, match=f"merchant account cards: .*{told}"):
        async with provider_at("http://127.0.0.1:9", **settings):
            pass


async def test_the_abilities_are_those_of_cards() -> None:
    async with provider_at("http://127.0.0.1:9", currency="HKD") as provider:
        able = provider.capabilities
        assert (able.hold_needed, able.further_debit, able.new_key_after_decline) == (False, True, False)
        assert (able.dispute, able.refund_window, able.debit_min_minor) == ("chargeback", None, 400)
    async with provider_at("http://127.0.0.1:9", hold="manual_capture", debit_min_minor=70) as provider:
        assert (provider.capabilities.hold_needed, provider.capabilities.debit_min_minor) == (True, 70)


@pytest.mark.parametrize(
    ("answer", "status", "expected"),
    [
        ({"status": "lost"}, 200, (DisputeStatus("pi_1", "chargeback", "lost", 700, "EUR", "dp/1"),)),
        ({"status": "of_tomorrow"}, 200, Unknown("dispute state of_tomorrow")),
        ({"status": "lost", "payment_intent": None}, 200, Unknown("a dispute about no payment")),
        ({}, 404, NotFound()),
    ],
)
async def test_a_dispute_is_asked_for_by_its_number(
    stripe: Double, provider: Provider, answer: dict[str, Any], status: int, expected: object
) -> None:
    stripe.forget()
    dispute = {"id": "dp/1", "amount": 700, "currency": "eur", "payment_intent": "pi_1"} | answer
    body = dispute if status == 200 else {"error": {"type": "invalid_request_error", "code": "resource_missing"}}
    stripe.says("GET disputes/dp/1", body, status)  # The double shows the path unquoted.
    assert await provider.get_dispute("dp/1") == expected


# ------------------------------------------------------------------------------ credentials

EXPIRED = Barred(BARRED_FOR, "api_key_expired", "the account's secret key can't be used any more, or not for this")


async def test_wrong_credentials_are_found_and_named_by_calls_that_move_nothing(
    stripe: Double, provider: Provider
) -> None:
    stripe.says("GET balance", bad_request(None), 401)
    assert await provider.check() == Barred(BARRED_FOR, "UNAUTHORIZED", "the account's secret key is refused")
    stripe.forget()
    stripe.says("GET balance", {"object": "balance", "livemode": True})
    assert await provider.check() == Rejected("MODE_DIFFERS", "mode is test in the settings, live at Stripe")
    stripe.forget()
    stripe.says("GET balance", {"object": "balance", "livemode": False})
    for what in LISTS:
        stripe.says(f"GET {what}", {"object": "list", "data": [{"id": "x_1", "email": "a@example.org"}]})
    assert await provider.check() is None
    assert all(call.startswith("GET ") for call in stripe.calls)
    for missing in LISTS:
        stripe.forget()
        stripe.says("GET balance", {"object": "balance", "livemode": False})
        for what in LISTS:
            told = ({"object": "list", "data": []}, 200) if what != missing else (bad_request("more_permissions"), 403)
            stripe.says(f"GET {what}", *told)
        found = await provider.check()
        assert found == Barred(BARRED_FOR, "PERMISSION_MISSING", f"the account's secret key may not GET {missing}")
    async with provider_at("http://127.0.0.1:9") as gone:
        assert isinstance(await gone.check(), Throttled)


@pytest.mark.parametrize("code", ["api_key_expired", "platform_api_key_expired", "testmode_charges_only"])
@pytest.mark.parametrize("status", [400, 401, 402, 403])
async def test_a_key_that_is_over_is_told_by_its_code(
    stripe: Double, provider: Provider, status: int, code: str
) -> None:
    stripe.says("GET balance", bad_request(code), status)
    found = await provider.check()
    assert isinstance(found, Barred) and found.code == code


async def test_a_key_replaced_in_its_file_is_used_without_a_restart(stripe: Double, tmp_path: Path) -> None:
    stripe.forget()
    file = tmp_path / "key"
    file.write_text("sk_test_old\n")
    debit = DebitRef("D1", 1250, "EUR", "pi_1", AGREEMENT)
    async with provider_at(stripe.url, secret_key_env=None, secret_key_file=str(file)) as provider:
        stripe.says("GET payment_intents/pi_1", bad_request("api_key_expired"), 401)
        assert await provider.get_debit(debit) == EXPIRED
        file.write_text("sk_test_new\n")
        stripe.says("GET payment_intents/pi_1", intent("succeeded"))
        assert await provider.get_debit(debit) == Succeeded(1250, "pi_1")
        file.write_text("sk_live_new\n")  # Of the other mode: not used.
        stripe.says("GET payment_intents/pi_1", bad_request("api_key_expired"), 401)
        await provider.get_debit(debit)
        assert await provider.get_debit(debit) == EXPIRED
    used = [asked.headers["Authorization"].removeprefix("Bearer ") for asked in stripe.asked]
    assert used == ["sk_test_old", "sk_test_old", "sk_test_new", "sk_test_new", "sk_test_new"]


async def test_a_providers_name_opens_it() -> None:
    with pytest.raises(AccountSettingsError, match=r"known are .*stripe"):
        open_provider(MerchantAccount(1, "cards", "strip", "http://127.0.0.1:9", {}))


# ------------------------------------------------------------------------------ agreements


async def test_an_agreement_is_a_customer_of_whom_nothing_is_told(stripe: Double, provider: Provider) -> None:
    stripe.says("POST customers", {"id": "cus_1", "email": None})
    stripe.says("POST setup_intents", SETUP | {"status": "requires_payment_method"})
    begun = await provider.begin_agreement(AgreementRequest("A1", "rider-7", "EUR", language="zh"))
    assert begun == AgreementStatus("pending", "cus_1:seti_1", action=ClientSecret("seti_1_secret"))
    customer, setup = stripe.asked
    assert customer.form == {"metadata[farebox_key]": "A1"}
    assert setup.form == {
        "metadata[farebox_key]": "A1",
        "customer": "cus_1",
        "usage": "off_session",
        "payment_method_types[]": "card",
    }
    assert [asked.headers["Idempotency-Key"] for asked in (customer, setup)] == ["A1-customer", "A1-setup"]
    other = await provider.begin_agreement(AgreementRequest("A2", "rider-7", "USD"))
    assert isinstance(other, Rejected) and other.code == "CURRENCY_OTHER"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"status": "requires_action"},
            AgreementStatus("pending", "cus_1:seti_1", action=ClientSecret("seti_1_secret")),
        ),
        (
            {
                "status": "requires_payment_method",
                "last_setup_error": {"code": "card_declined", "decline_code": "lost_card"},
            },
            AgreementStatus("pending", "cus_1:seti_1", action=ClientSecret("seti_1_secret"), code="lost_card"),
        ),
        ({"status": "processing"}, AgreementStatus("pending", "cus_1:seti_1")),
        ({"status": "canceled"}, AgreementStatus("refused", "cus_1:seti_1", code="canceled")),
        (
            {"status": "canceled", "cancellation_reason": "abandoned"},
            AgreementStatus("refused", "cus_1:seti_1", code="abandoned"),
        ),
        (
            {"status": "succeeded", "payment_method": CARD},
            AgreementStatus("active", "cus_1:seti_1:pm_1", valid_until=datetime(2031, 1, 1, tzinfo=UTC)),
        ),
        (
            {"status": "succeeded", "payment_method": CARD | {"card": {"exp_month": 1, "exp_year": 2027}}},
            AgreementStatus("active", "cus_1:seti_1:pm_1", valid_until=datetime(2027, 2, 1, tzinfo=UTC)),
        ),
        ({"status": "succeeded", "payment_method": "pm_1"}, AgreementStatus("active", "cus_1:seti_1:pm_1")),
        (
            {"status": "succeeded", "payment_method": CARD | {"customer": None}},
            AgreementStatus("revoked", "cus_1:seti_1:pm_1", code="detached"),
        ),
        ({"status": "succeeded"}, Unknown("signed without a payment method")),
        ({"status": "of_tomorrow"}, Unknown("agreement state of_tomorrow")),
        ({"status": "succeeded", "customer": "cus_2"}, Unknown("the answer is about another customer")),
    ],
)
async def test_how_an_agreement_stands(stripe: Double, provider: Provider, body: Any, said: Any) -> None:
    stripe.says("GET setup_intents/seti_1", SETUP | body)
    assert await provider.get_agreement(AgreementRef("A1", "cus_1:seti_1")) == said


async def test_an_agreement_that_nobody_was_given_is_not_there(stripe: Double, provider: Provider) -> None:
    assert await provider.get_agreement(AgreementRef("A1")) == NotFound()
    assert stripe.calls == []
    assert await provider.get_agreement(AgreementRef("A1", "cus_1:seti_1")) == NotFound()


async def test_an_agreement_is_revoked_signed_or_not_and_once_more(stripe: Double, provider: Provider) -> None:
    stripe.says("GET setup_intents/seti_1", SETUP | {"status": "requires_payment_method"})
    stripe.says("POST setup_intents/seti_1/cancel", SETUP | {"status": "canceled"})
    unsigned = AgreementRef("A1", "cus_1:seti_1")
    assert await provider.revoke_agreement(unsigned) == AgreementStatus("revoked", "cus_1:seti_1")
    stripe.forget()
    stripe.says("GET setup_intents/seti_1", SETUP | {"status": "succeeded", "payment_method": CARD})
    stripe.says("POST payment_methods/pm_1/detach", CARD | {"customer": None})
    assert await provider.revoke_agreement(unsigned) == AgreementStatus("revoked", "cus_1:seti_1")
    stripe.forget()
    stripe.says("POST payment_methods/pm_1/detach", bad_request(None), 400)
    stripe.says("GET payment_methods/pm_1", CARD | {"customer": None})
    assert await provider.revoke_agreement(AGREEMENT) == AgreementStatus("revoked", AGREEMENT.provider_ref)
    stripe.forget()
    stripe.says("POST payment_methods/pm_1/detach", bad_request(None), 400)
    stripe.says("GET payment_methods/pm_1", CARD)
    assert await provider.revoke_agreement(AGREEMENT) == Unknown("still attached")
    stripe.forget()
    stripe.says("POST payment_methods/pm_1/detach", {}, 500)
    assert await provider.revoke_agreement(AGREEMENT) == Unknown("HTTP 500")


# ------------------------------------------------------------------------------ statements


def movement(number: int, type_: str, source: Any, **more: Any) -> dict[str, Any]:
    body = {"id": f"txn_{number}", "object": "balance_transaction", "type": type_, "amount": 1250, "fee": 43}
    return body | {"currency": "eur", "created": 1795341600, "source": source} | more


def charge(key: str | None, **more: Any) -> dict[str, Any]:
    paid = intent("succeeded", metadata={} if key is None else {"farebox_key": key})
    return {"id": "ch_1", "object": "charge", "amount": 1250, "currency": "eur", "payment_intent": paid} | more


async def test_a_statement_has_our_charges_and_refunds_from_every_page(stripe: Double, provider: Provider) -> None:
    refund = {"id": "re_1", "object": "refund", "currency": "eur", "amount": 500, "metadata": {"farebox_key": "R1"}}
    refund |= {"payment_intent": intent("succeeded")}
    first = [
        movement(1, "charge", charge("D1")),
        movement(2, "payout", "po_1", amount=-9000, fee=0),
        movement(3, "charge", charge(None)),
    ]
    last = [
        movement(4, "refund", refund, amount=-500, fee=0),
        movement(5, "charge", charge("D2", currency="jpy", amount=900, amount_captured=300), amount=190, fee=9),
        movement(6, "stripe_fee", None, amount=-10),
    ]
    stripe.says("GET balance_transactions", {"data": first, "has_more": True})
    stripe.says("GET balance_transactions", {"data": last, "has_more": False})
    at = datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert await provider.statement(date(2026, 11, 22)) == Statement(
        date(2026, 11, 22),
        (
            StatementRow("debit", "D1", "txn_1", 1250, 43, "EUR", at),
            StatementRow("refund", "R1", "txn_4", 500, 0, "EUR", at),
            StatementRow("debit", "D2", "txn_5", 300, 0, "JPY", at),
        ),
    )
    assert (stripe.asked[0].form["created[gte]"], stripe.asked[0].form["created[lt]"]) == ("1795305600", "1795392000")
    assert stripe.asked[1].form["starting_after"] == "txn_3"


async def test_a_long_statement_is_read_to_its_end_and_half_a_statement_is_none(
    stripe: Double, provider: Provider
) -> None:
    """Longer than one read of a connection brings."""
    many = [movement(number, "charge", charge(f"D{number}", padding="x" * 5000)) for number in range(100)]
    stripe.says("GET balance_transactions", {"data": many, "has_more": False})
    statement = await provider.statement(date(2026, 11, 22))
    assert isinstance(statement, Statement) and len(statement.rows) == 100
    stripe.forget()
    stripe.says("GET balance_transactions", {"data": many[:1], "has_more": True})
    stripe.says("GET balance_transactions", {}, 500)
    assert await provider.statement(date(2026, 11, 22)) == Unknown("HTTP 500")
    stripe.forget()
    stripe.says("GET balance_transactions", {"data": [movement(1, "charge", "ch_1")], "has_more": False})
    assert isinstance(await provider.statement(date(2026, 11, 22)), Unknown)
