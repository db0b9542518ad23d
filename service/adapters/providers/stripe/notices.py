"""Webhooks: `stripe-signature: t=<seconds>,v1=<hex HMAC-SHA256 of "t.body">`, with one v1 for each secret in force
while one is being replaced (docs.stripe.com/webhooks, Verify webhook signatures manually). `v0` is of test events: not
looked at.

An event carries its object as it was when it happened, in the API version of its endpoint: it may be old, and only says
what to ask about. A state that is not known is `Unknown`, which makes us ask too.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from service.adapters.providers.exchange import decoded
from service.adapters.providers.port import Ack, BadNotification, DisputeStatus, Notification
from service.adapters.providers.stripe.disputes import dispute_status
from service.adapters.providers.stripe.meaning import agreement_status, debit_outcome, hold_status, refund_outcome
from service.adapters.providers.stripe.settings import StripeSettings
from service.adapters.providers.stripe.wire import (
    DISPUTE,
    EVENT,
    HOLD,
    INTENT,
    KEY,
    MONEY,
    NAMED,
    REFUND,
    SETUP,
    Event,
    Refund,
    our_key,
)
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import Unknown

CLOCK_OFFSET_MAX_S = 300
"""Stripe's libraries allow a signature to be this old; we allow one from the future no more than that either."""
SIGNATURES_MAX = 16
SIGNATURE_CHARACTERS_MAX = 4096
"""So much of the header is read, of which the longest that Stripe sends has some hundreds: anybody may send one."""
TAKEN = Ack(200, "text/plain", b"")
OF_AUTHORISATIONS = frozenset({"expired_uncaptured_charge", "partial_capture"})
"""Reasons of refunds that Stripe makes itself."""
ABOUT = {
    "payment_intent": frozenset(
        {"succeeded", "payment_failed", "processing", "canceled", "requires_action", "amount_capturable_updated"}
    ),
    "setup_intent": frozenset({"succeeded", "setup_failed", "canceled", "requires_action"}),
    "payment_method": frozenset({"detached"}),
    "customer": frozenset({"deleted"}),
    "refund": frozenset({"created", "updated", "failed"}),
    "charge.refund": frozenset({"updated"}),  # The same as refund.updated, in older API versions.
    "charge.dispute": frozenset({"created", "updated", "closed", "funds_withdrawn", "funds_reinstated"}),
}
"""The events that are read (docs.stripe.com/api/events/types); all others are acknowledged and left. `charge.refunded`
is one of those: it names no refund of ours, and `refund.*` comes beside it."""


def read_notice(
    secrets: Sequence[str], settings: StripeSettings, headers: Mapping[str, str], body: bytes, now: datetime
) -> Notification | BadNotification:
    """The notification, or why it is not believed, or not used (then its `ack` is a 200: Stripe is not to send it
    again). `now` is the machine's clock.

    Each of Stripe's endpoints hears of everything at Stripe: payments in another currency are another account's of
    ours, which has the same key.
    """
    reason = _distrust(secrets, headers.get("stripe-signature", ""), body, now)
    if reason:
        return BadNotification(reason, Ack(401, "text/plain", b"refused"))
    event = decoded(body, EVENT)
    if event is None:
        return BadNotification("the body is not an event", Ack(400, "text/plain", b"refused"))
    if event.livemode != (settings.mode == "live"):
        told = "live" if event.livemode else "test"
        return BadNotification(f"an event of {told} mode, and the account is not", Ack(400, "text/plain", b"refused"))
    about, _, what = event.type.rpartition(".")
    if what not in ABOUT.get(about, ()):
        return BadNotification(f"a notification of type {event.type[:64]!r}, which is not used", TAKEN)
    return _read(event, about, settings.currency)


def signed(secrets: Sequence[str], signature: str, body: bytes) -> bool:
    """Whether one of the signatures is one of the secrets'; the time is not looked at."""
    seconds, signatures = _parts(signature)
    expected = [hmac.digest(secret.encode(), seconds.encode() + b"." + body, "sha256").hex() for secret in secrets]
    return any(
        hmac.compare_digest(good.encode(), given.encode("utf-8", "replace"))
        for good in expected
        for given in signatures
    )


def _parts(signature: str) -> tuple[str, list[str]]:
    pairs = [part.strip().partition("=")[::2] for part in signature[:SIGNATURE_CHARACTERS_MAX].split(",")]
    seconds = next((value for name, value in pairs if name == "t"), "")
    return seconds, [value for name, value in pairs if name == "v1"][:SIGNATURES_MAX]


def _distrust(secrets: Sequence[str], signature: str, body: bytes, now: datetime) -> str | None:
    """Why a signature is not believed, or None."""
    if not secrets:
        return "the account has no webhook_secret"
    seconds, _ = _parts(signature)
    if not (seconds.isascii() and seconds.isdigit()) or len(seconds) > 12:
        return "the signature has no time"
    if not signed(secrets, signature, body):
        return "the signature is wrong"
    if abs(now.timestamp() - int(seconds)) > CLOCK_OFFSET_MAX_S:
        return "the signature is too old, or from the future"
    return None


def _read(event: Event, about: str, currency: str) -> Notification | BadNotification:
    told = decoded(bytes(event.data.object), MONEY) if about != "charge.dispute" else None
    if told is not None and told.currency not in (None, currency.lower()):
        return BadNotification(f"{event.type} in {told.currency!r}, which is another account's", TAKEN)
    readers: dict[str, Callable[[str, bytes], Notification | str | None]] = {
        "payment_intent": _payment,
        "setup_intent": _agreement,
        "payment_method": partial(_gone, code="detached"),
        "customer": partial(_gone, code="customer_deleted"),
    }
    data = bytes(event.data.object)
    notice = _dispute(event, data) if about == "charge.dispute" else readers.get(about, _refund)(event.id, data)
    if isinstance(notice, str):
        return BadNotification(f"{event.type}: {notice}", Ack(400, "text/plain", b"refused"))
    return notice or BadNotification(f"{event.type} of nothing that Farebox made", TAKEN)


def _payment(number: str, data: bytes) -> Notification | str | None:
    intent = decoded(data, INTENT)
    if intent is None:
        return "not a payment in a shape that is known"
    if key := intent.metadata.get(KEY):
        return Notification(number, "debit", key, debit_outcome(intent), TAKEN)
    if key := intent.metadata.get(HOLD):
        status = hold_status(intent)
        if isinstance(status, HoldStatus) and status.state == "refused" and intent.status != "canceled":
            return Notification(number, "hold", key, Unknown("refused: to be cancelled"), TAKEN)
        return Notification(number, "hold", key, status, TAKEN)
    return None


def _agreement(number: str, data: bytes) -> Notification | str | None:
    setup = decoded(data, SETUP)
    if setup is None:
        return "not an agreement in a shape that is known"
    key = our_key(setup.metadata)
    if key is None or setup.customer is None:
        return None
    return Notification(number, "agreement", key, agreement_status(setup, setup.customer), TAKEN)


def _gone(number: str, data: bytes, code: str) -> Notification | str:
    """What an agreement stands on was removed, for good: a card that is detached can't be attached again, a customer
    who is deleted takes his cards with him (docs.stripe.com/api: payment_methods/detach, customers/delete). A card has
    nothing of ours on it, so Stripe's number names the agreement."""
    what = decoded(data, NAMED)
    if what is None:
        return "nothing that has a number"
    gone = AgreementStatus("revoked", code=code)
    return Notification(number, "agreement", what.id, gone, TAKEN, "agreement_ref")


def _refund(number: str, data: bytes) -> Notification | str | None:
    refund = decoded(data, REFUND)
    if refund is None:
        return "not a refund in a shape that is known"
    key = our_key(refund.metadata)
    if key is None and refund.payment_intent and not _released(refund):
        key = refund.id  # Made in the dashboard.
    if key is None:
        return None
    return Notification(number, "refund", key, refund_outcome(refund), TAKEN, payment=refund.payment_intent)


def _released(refund: Refund) -> bool:
    """Whether Stripe has made the refund itself, of what a capture leaves of an authorisation, or of one that was never
    captured: nobody's money.

    Sources: docs.stripe.com/api/payment_intents/capture ("any additional amount is automatically refunded");
    solidusio/solidus_stripe#268; docs.stripe.com/api/refunds/object, balance_transaction, reason.
    """
    return refund.reason in OF_AUTHORISATIONS or refund.balance_transaction is None


def _dispute(event: Event, data: bytes) -> Notification | str | None:
    """A dispute in a state that nobody listed is asked about until it is in one that is known."""
    dispute = decoded(data, DISPUTE)
    if dispute is None:
        return "not a dispute in a shape that is known"
    if dispute.payment_intent is None:
        return None
    status = dispute_status(dispute, None if event.created is None else datetime.fromtimestamp(event.created, UTC))
    if not isinstance(status, DisputeStatus):
        return Notification(event.id, "dispute", dispute.id, status, TAKEN)
    return Notification(event.id, "debit", status.debit_ref, Unknown(f"dispute {status.state}"), TAKEN, dispute=status)
