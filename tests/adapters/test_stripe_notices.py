"""Stripe's webhooks: what is believed, and what each event says."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stripe_double import intent, provider_at

from service.adapters.providers.port import BadNotification, DisputeStatus, Notification, Provider
from service.adapters.providers.stripe.notices import signed
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import Accepted, ClientSecret, Closed, Declined, Succeeded, Unknown

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
VECTORS = Path(__file__).parents[1] / "vectors" / "signatures.json"
SECRET = "whsec_1"  # noqa: S105  # The tests' own.


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_KEY", "sk_test_1")
    monkeypatch.setenv("STRIPE_WEBHOOK", SECRET)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with provider_at("http://127.0.0.1:9") as it:
        yield it


def signature(body: bytes, secret: str = SECRET, at: datetime = NOW) -> str:
    seconds = int(at.timestamp())
    return f"t={seconds},v1={hmac.digest(secret.encode(), b'%d.%s' % (seconds, body), 'sha256').hex()}"


def read(provider: Provider, type_: str, data: Any, **more: Any) -> Notification | BadNotification:
    event = {"id": "evt_1", "object": "event", "api_version": "2017-08-15", "type": type_, "livemode": False}
    body = msgspec.json.encode(event | {"data": {"object": data}} | more)
    return provider.parse_notification({"stripe-signature": signature(body)}, body, NOW)


def test_the_public_vector_verifies_and_is_reproduced() -> None:
    vectors = msgspec.json.decode(VECTORS.read_bytes())
    (vector,) = (vector for vector in vectors if vector["name"] == "stripe-webhook-v1")
    body = vector["payload"].encode()
    assert signed([vector["secret"]], vector["header"], body)
    assert not signed([vector["secret"]], vector["header"], body + b" ")
    assert not signed(["whsec_other"], vector["header"], body)
    assert signature(body, vector["secret"], datetime.fromtimestamp(vector["timestamp"], UTC)) == vector["header"]


SETUP = {"id": "seti_1", "customer": "cus_1", "metadata": {"farebox_key": "A1"}}
REFUND = {"id": "re_1", "amount": 500, "currency": "eur", "metadata": {"farebox_key": "R1"}}
HOLD = intent("requires_capture", amount_capturable=1250, metadata={"farebox_hold": "H1"})
FAILED = intent("requires_payment_method", last_payment_error={"code": "card_declined", "decline_code": "lost_card"})

NOT_HELD = FAILED | {"metadata": {"farebox_hold": "H1"}}
ENDED = NOT_HELD | {"status": "canceled", "cancellation_reason": "abandoned"}


@pytest.mark.parametrize(
    ("type_", "data", "about", "key", "answer"),
    [
        ("payment_intent.succeeded", intent("succeeded"), "debit", "D1", Succeeded(1250, "pi_1")),
        ("payment_intent.payment_failed", FAILED, "debit", "D1", Declined(False, "lost_card")),
        ("payment_intent.processing", intent("processing"), "debit", "D1", Accepted("pi_1")),
        ("payment_intent.canceled", intent("canceled"), "debit", "D1", Closed("canceled")),
        ("payment_intent.succeeded", intent("of_tomorrow"), "debit", "D1", Unknown("payment state of_tomorrow")),
        ("payment_intent.amount_capturable_updated", HOLD, "hold", "H1", HoldStatus("open", "pi_1", 1250)),
        ("payment_intent.payment_failed", NOT_HELD, "hold", "H1", Unknown("refused: to be cancelled")),
        ("payment_intent.canceled", ENDED, "hold", "H1", HoldStatus("refused", "pi_1", code="lost_card")),
        (
            "setup_intent.succeeded",
            SETUP | {"status": "succeeded", "payment_method": "pm_1"},
            "agreement",
            "A1",
            AgreementStatus("active", "cus_1:seti_1:pm_1"),
        ),
        (
            "setup_intent.setup_failed",
            SETUP | {"status": "requires_payment_method", "client_secret": "s", "last_setup_error": {"code": "x"}},
            "agreement",
            "A1",
            AgreementStatus("pending", "cus_1:seti_1", action=ClientSecret("s"), code="x"),
        ),
        ("refund.updated", REFUND | {"status": "succeeded"}, "refund", "R1", Succeeded(500, "re_1")),
        ("refund.failed", REFUND | {"status": "failed"}, "refund", "R1", Declined(False, "failed")),
        ("charge.refund.updated", REFUND | {"status": "pending"}, "refund", "R1", Accepted("re_1")),
    ],
)
def test_what_an_event_says(provider: Provider, type_: str, data: Any, about: str, key: str, answer: Any) -> None:
    notice = read(provider, type_, data)
    assert isinstance(notice, Notification), notice
    assert (notice.notification_id, notice.about, notice.key, notice.answer) == ("evt_1", about, key, answer)
    assert (notice.named_by, notice.dispute, notice.ack.status) == ("key", None, 200)


@pytest.mark.parametrize(
    ("type_", "data", "key", "code"),
    [
        ("payment_method.detached", {"id": "pm_1", "customer": None, "card": {"name": "Kim"}}, "pm_1", "detached"),
        ("customer.deleted", {"id": "cus_1", "email": "kim@example.org"}, "cus_1", "customer_deleted"),
    ],
)
def test_a_card_that_is_removed_ends_the_agreement_of_its_number(
    provider: Provider, type_: str, data: Any, key: str, code: str
) -> None:
    notice = read(provider, type_, data)
    assert isinstance(notice, Notification)
    assert (notice.about, notice.key, notice.named_by) == ("agreement", key, "agreement_ref")
    assert notice.answer == AgreementStatus("revoked", code=code)
    assert isinstance(read(provider, type_, {"object": "?"}), BadNotification)


@pytest.mark.parametrize(
    ("status", "kind", "state"),
    [
        ("needs_response", "chargeback", "opened"),
        ("under_review", "chargeback", "opened"),
        ("won", "chargeback", "won"),
        ("lost", "chargeback", "lost"),
        ("warning_needs_response", "complaint", "opened"),
        ("warning_closed", "complaint", "resolved"),
    ],
)
def test_a_dispute_names_the_payment(provider: Provider, status: str, kind: Any, state: Any) -> None:
    dispute = {"id": "dp_1", "status": status, "amount": 1250, "currency": "eur", "payment_intent": "pi_1"}
    notice = read(provider, "charge.dispute.created", dispute)
    assert isinstance(notice, Notification)
    assert (notice.about, notice.key) == ("debit", "pi_1")
    assert notice.dispute == DisputeStatus("pi_1", kind, state, 1250, "EUR", "dp_1")
    assert isinstance(notice.answer, Unknown)


def dispute(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "dp_1", "status": status, "amount": 1250, "currency": "eur", "payment_intent": "pi_1", **more}


def test_a_bank_debit_that_comes_back_after_it_succeeded_is_a_lost_dispute_from_the_beginning(
    provider: Provider,
) -> None:
    told = read(provider, "charge.dispute.created", dispute("lost", reason="insufficient_funds"))
    assert isinstance(told, Notification)
    assert told.dispute == DisputeStatus("pi_1", "chargeback", "lost", 1250, "EUR", "dp_1")


@pytest.mark.parametrize(
    ("moved", "kind", "state"),
    [
        ([], "complaint", "resolved"),
        ([{"amount": -1250}], "chargeback", "lost"),
        ([{"amount": -1250}, {"amount": 1250}], "chargeback", "won"),
    ],
)
def test_what_a_prevented_dispute_took_from_the_balance_tells_whether_money_is_gone(
    provider: Provider, moved: list[Any], kind: Any, state: Any
) -> None:
    told = read(provider, "charge.dispute.closed", dispute("prevented", balance_transactions=moved))
    assert isinstance(told, Notification)
    assert told.dispute == DisputeStatus("pi_1", kind, state, 1250, "EUR", "dp_1")


@pytest.mark.parametrize("status", ["of_tomorrow", "prevented"])
def test_a_dispute_that_is_not_understood_is_asked_about_and_not_let_go(provider: Provider, status: str) -> None:
    told = read(provider, "charge.dispute.updated", dispute(status))
    assert isinstance(told, Notification)
    assert (told.about, told.key, told.dispute, told.ack.status) == ("dispute", "dp_1", None, 200)


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("payment_intent.succeeded", intent("succeeded", currency="usd")),
        ("refund.updated", REFUND | {"status": "succeeded", "currency": "usd"}),
    ],
)
def test_the_events_of_an_account_in_another_currency_are_not_this_ones(
    provider: Provider, type_: str, data: Any
) -> None:
    """Two accounts with one key hear of each other's payments: none is money that nobody can explain."""
    told = read(provider, type_, data)
    assert isinstance(told, BadNotification)
    assert (told.ack.status, "another account" in told.reason) == (200, True)


@pytest.mark.parametrize(
    ("type_", "data", "status"),
    [
        ("customer.created", {"id": "cus_1", "email": "a@example.org"}, 200),
        ("payment_intent.succeeded", intent("succeeded", metadata={}), 200),
        ("refund.created", REFUND | {"metadata": {}}, 200),
        ("payment_intent.succeeded", {"id": "pi_1"}, 400),
        ("refund.created", REFUND | {"metadata": None}, 200),
        ("setup_intent.succeeded", SETUP | {"status": "succeeded", "metadata": None}, 200),
        ("charge.dispute.closed", {"id": "dp_1", "status": "lost", "amount": 1, "currency": "eur"}, 200),
        ("charge.dispute.closed", {"id": "dp_1"}, 400),
        ("setup_intent.succeeded", "seti_1", 400),
    ],
)
def test_what_is_nothing_of_ours_is_acknowledged_and_what_cannot_be_read_is_not(
    provider: Provider, type_: str, data: Any, status: int
) -> None:
    notice = read(provider, type_, data)
    assert isinstance(notice, BadNotification)
    assert notice.ack.status == status
    assert "example.org" not in notice.reason


@pytest.mark.parametrize(("metadata", "key"), [({}, "re_1"), (None, "re_1"), ({"farebox_key": "R1"}, "R1")])
def test_a_refund_of_the_dashboard_is_named_by_its_own_number_and_by_what_it_gives_back(
    provider: Provider, metadata: Any, key: str
) -> None:
    made = REFUND | {"metadata": metadata, "payment_intent": "pi_1", "status": "succeeded"}
    told = read(provider, "refund.created", made | {"balance_transaction": "txn_1", "reason": "duplicate"})
    assert isinstance(told, Notification)
    assert (told.about, told.key, told.payment, told.answer) == ("refund", key, "pi_1", Succeeded(500, "re_1"))


@pytest.mark.parametrize(
    "more", [{"balance_transaction": None}, {"reason": "partial_capture"}, {"reason": "expired_uncaptured_charge"}]
)
def test_what_a_capture_leaves_of_a_hold_is_no_refund(provider: Provider, more: dict[str, Any]) -> None:
    """Each ride that cost less than its hold was listed as given back by nobody here."""
    made = REFUND | {"metadata": {}, "payment_intent": "pi_1", "status": "succeeded"} | more
    told = read(provider, "refund.created", made)
    assert isinstance(told, BadNotification)
    assert told.ack.status == 200


def test_an_event_of_the_other_mode_is_refused(provider: Provider) -> None:
    notice = read(provider, "payment_intent.succeeded", intent("succeeded"), livemode=True)
    assert isinstance(notice, BadNotification)
    assert (notice.ack.status, notice.reason) == (400, "an event of live mode, and the account is not")


def test_old_and_future_signatures_are_refused_and_so_are_foreign_ones(provider: Provider) -> None:
    body = msgspec.json.encode({"id": "evt_1", "type": "customer.created", "livemode": False, "data": {"object": {}}})
    for seconds, status in ((0, 200), (-300, 200), (300, 200), (-301, 401), (301, 401)):
        header = signature(body, at=NOW + timedelta(seconds=seconds))
        notice = provider.parse_notification({"stripe-signature": header}, body, NOW)
        assert notice.ack.status == status, seconds
    for headers in ({}, {"stripe-signature": signature(body, "whsec_2")}, {"stripe-signature": signature(body + b" ")}):
        assert provider.parse_notification(headers, body, NOW).ack.status == 401
    many = signature(body) + ",v1=00" * 20
    assert provider.parse_notification({"stripe-signature": many}, body, NOW).ack.status == 200
    endless = "," * 4096 + signature(body)  # Nobody's header: no more of it is taken apart.
    assert provider.parse_notification({"stripe-signature": endless}, body, NOW).ack.status == 401


async def test_a_webhook_secret_is_replaced_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("whsec_old\n")
    body = msgspec.json.encode({"id": "evt_1", "type": "customer.created", "livemode": False, "data": {"object": {}}})
    async with provider_at("http://127.0.0.1:9", webhook_secret_file=str(file), webhook_secret_env=None) as provider:

        def status(*secrets: str) -> int:
            first, *others = (signature(body, secret) for secret in secrets)
            header = ",".join([first, *(other.partition(",")[2] for other in others)])
            return provider.parse_notification({"stripe-signature": header}, body, NOW).ack.status

        assert [status("whsec_old"), status("whsec_new"), status("whsec_new", "whsec_old")] == [200, 401, 200]
        file.write_text("whsec_old\nwhsec_new\n")
        assert [status("whsec_old"), status("whsec_new")] == [200, 200]
        file.write_text("whsec_new\n")
        assert status("whsec_third") == 401
        assert [status("whsec_old"), status("whsec_new")] == [401, 200]
        file.unlink()
        assert [status("whsec_old"), status("whsec_new")] == [401, 200]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KINDS = ("payment_intent.succeeded", "setup_intent.succeeded", "refund.updated", "charge.dispute.created", "x")
FIELDS = ("status", "amount", "amount_received", "currency", "metadata", "payment_method", "last_payment_error")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4), st.binary(max_size=20))
def test_nothing_that_is_signed_raises(provider: Provider, type_: str, odd: dict[str, Any], rubbish: bytes) -> None:
    for data in (intent("succeeded") | odd, SETUP | {"status": "succeeded"} | odd, odd):
        assert isinstance(read(provider, type_, data), Notification | BadNotification)
    refused = provider.parse_notification({"stripe-signature": signature(rubbish)}, rubbish, NOW)
    assert isinstance(refused, BadNotification)


@pytest.mark.parametrize(
    ("moved", "fee"),
    [
        ([], (None, None)),
        ([{"amount": -1250, "fee": 1500, "currency": "eur"}], (1500, "EUR")),
        (
            [{"amount": -1250, "fee": 1500, "currency": "eur"}, {"amount": 1250, "fee": 0, "currency": "eur"}],
            (1500, "EUR"),
        ),
        (
            [{"amount": -1250, "fee": 1500, "currency": "eur"}, {"amount": 1250, "fee": -1500, "currency": "eur"}],
            (0, "EUR"),
        ),
        ([{"amount": -1400, "fee": 1500, "currency": "usd"}], (1500, "USD")),
        (
            [{"amount": -1400, "fee": 1500, "currency": "usd"}, {"amount": 1250, "fee": 0, "currency": "eur"}],
            (None, None),
        ),
    ],
)
def test_a_disputes_fee_is_what_is_kept_of_all_that_it_moved(provider: Provider, moved: Any, fee: Any) -> None:
    """docs.stripe.com/api/disputes/object, balance_transactions."""
    told = read(provider, "charge.dispute.funds_withdrawn", dispute("needs_response", balance_transactions=moved))
    assert isinstance(told, Notification) and told.dispute is not None
    assert (told.dispute.fee_minor, told.dispute.fee_currency) == fee


def test_a_dispute_is_told_as_of_when_its_event_happened(provider: Provider) -> None:
    told = read(provider, "charge.dispute.closed", dispute("lost"), created=1_795_000_000)
    assert isinstance(told, Notification) and told.dispute is not None
    assert told.dispute.told_at == datetime.fromtimestamp(1_795_000_000, UTC)
