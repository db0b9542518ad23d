"""What Stripe's states and refusals mean to us. Nothing here raises for what Stripe says; the unknown is `Unknown`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from service.adapters.providers.exchange import REFUSED_UNREAD
from service.adapters.providers.stripe import declines
from service.adapters.providers.stripe.amounts import UnitsError, from_stripe
from service.adapters.providers.stripe.wire import Charge, ErrorBody, Intent, Method, Refund, Refused, Setup
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.billing.outcomes import (
    BARRED_FOR,
    Accepted,
    Barred,
    ClientSecret,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    Outcome,
    Postponed,
    Prepared,
    Rejected,
    Succeeded,
    Unknown,
)

IN_USE_RETRY = timedelta(seconds=2)
"""The same idempotency key is being worked on at this moment (409, docs.stripe.com/error-low-level)."""
NOT_SIGNED = Declined(False, "AGREEMENT_NOT_SIGNED", "the agreement has no payment method yet")
EXPIRED = frozenset({"automatic", "expired"})
"""Cancellation reasons of an authorisation whose time ran out; all others are somebody's decision."""
NOT_LET_IN = frozenset({"api_key_expired", "platform_api_key_expired", "testmode_charges_only"})
"""Error codes of a key that is over, and of an account that was never activated (docs.stripe.com/error-codes): nothing
was executed, whatever their status. Beside them every 401 (no valid key) and 403 (a restricted key without the
permission; docs.stripe.com/api/errors)."""
REFUSED = "abandoned"
"""The cancellation reason that we give for a hold that was refused."""
UNPAYABLE = frozenset(
    {"charge_already_refunded", "charge_disputed", "charge_not_refundable", "refund_disputed_payment"}
)
"""Error codes of a refund that can't be made any more (docs.stripe.com/error-codes)."""
BALANCE_SHORT = frozenset({"balance_insufficient", "insufficient_funds"})
"""Error codes of a refund for which the operator's balance is too small today (docs.stripe.com/error-codes)."""


def debit_outcome(intent: Intent) -> Outcome:
    """How a debit stands by its PaymentIntent. Prepared: it was never confirmed, so nothing has moved."""
    match intent.status:
        case "succeeded":
            return _succeeded(intent)
        case "processing":
            return Accepted(intent.id)
        case "requires_action":
            return NeedsRider("authentication_required", _secret(intent))
        case "requires_confirmation":
            return Prepared(intent.id)
        case "requires_payment_method" if intent.last_payment_error is None:
            return Prepared(intent.id)
        case "requires_payment_method":
            assert intent.last_payment_error is not None
            return decline(intent.last_payment_error, intent)
        case "canceled":
            return Closed(intent.cancellation_reason or "canceled")
    return Unknown(f"payment state {intent.status}")


def decline(error: ErrorBody, intent: Intent | None = None) -> Declined | NeedsRider:
    """A payment that was definitely not made, and whether waiting may help. Stripe's message is for the card holder: it
    is not kept."""
    code = error.decline_code or error.code or "card_declined"
    intent = intent or error.payment_intent
    if code in declines.AUTHENTICATION or error.code in declines.AUTHENTICATION:
        return NeedsRider("authentication_required", _secret(intent) if intent else None)
    return Declined(declines.retryable(code, error.advice_code), code)


def hold_status(intent: Intent) -> HoldStatus | Unknown:
    """How a hold stands by its manual-capture PaymentIntent."""
    match intent.status:
        case "requires_capture":
            return _open(intent)
        case "requires_action":
            return HoldStatus("pending", intent.id, action=_secret(intent))
        case "processing" | "requires_confirmation":
            return HoldStatus("pending", intent.id)
        case "requires_payment_method":
            why = decline(intent.last_payment_error or ErrorBody(), intent)
            if isinstance(why, NeedsRider):
                return HoldStatus("pending", intent.id, action=why.action)
            return HoldStatus("refused", intent.id, code=why.code, retryable=why.retryable)
        case "canceled" if intent.cancellation_reason == REFUSED:
            why = decline(intent.last_payment_error or ErrorBody(), intent)
            retryable = isinstance(why, Declined) and why.retryable
            return HoldStatus("refused", intent.id, code=why.code, retryable=retryable)
        case "succeeded":
            return HoldStatus("completed", intent.id)
        case "canceled" if intent.cancellation_reason in EXPIRED:
            return HoldStatus("expired", intent.id, code=intent.cancellation_reason)
        case "canceled":
            return HoldStatus("released", intent.id)
    return Unknown(f"hold state {intent.status}")


def agreement_status(setup: Setup, customer: str) -> AgreementStatus | Unknown:
    """How an agreement stands by its SetupIntent, and its payment method where that came along. `provider_ref` is
    `customer:setup intent` until it is signed, then `customer:setup intent:payment method`."""
    ref = f"{customer}:{setup.id}"
    match setup.status:
        case "requires_payment_method" | "requires_confirmation" | "requires_action":
            action = ClientSecret(setup.client_secret) if setup.client_secret else None
            code = (
                setup.last_setup_error.decline_code or setup.last_setup_error.code if setup.last_setup_error else None
            )
            return AgreementStatus("pending", ref, action=action, code=code)
        case "processing":
            return AgreementStatus("pending", ref)
        case "canceled":
            return AgreementStatus("refused", ref, code=setup.cancellation_reason or "canceled")
        case "succeeded":
            return _signed(setup.payment_method, ref, customer)
    return Unknown(f"agreement state {setup.status}")


def refund_outcome(refund: Refund) -> Outcome:
    """How a refund stands. `requires_action`: the rider is being asked for an account by Stripe."""
    match refund.status:
        case "succeeded":
            amount = _minor(refund.amount, refund.currency)
            return amount if isinstance(amount, Unknown) else Succeeded(amount, refund.id)
        case "pending":
            return Accepted(refund.id)
        case "requires_action":
            return Accepted(refund.id, "requires_action")
        case "failed" | "canceled":
            return Declined(False, refund.failure_reason or refund.status)
    return Unknown(f"refund state {refund.status}")


def refusal(refused: Refused) -> Outcome:
    """What a refusal means: 402 is a decline, the other 4xx were refused before anything began."""
    error = refused.error
    code = error.code or error.type or f"HTTP_{refused.status}"
    if error.code in NOT_LET_IN:
        return Barred(BARRED_FOR, code, "the account's secret key can't be used any more, or not for this")
    match refused.status:
        case 402:
            return decline(error)
        case 401:
            return Barred(BARRED_FOR, "UNAUTHORIZED", "the account's secret key is refused")
        case 403:
            return Barred(BARRED_FOR, "PERMISSION_MISSING", f"the account's secret key may not {refused.call}")
        case 409:
            return Postponed(IN_USE_RETRY)
    if error.type == "idempotency_error":
        return Conflict(code)
    if refused.status in REFUSED_UNREAD:
        return Rejected(code, error.message or refused.call)
    return Unknown(f"HTTP {refused.status} {code}")


def refund_refusal(refused: Refused) -> Outcome:
    """A refund that was refused: later, never, or our fault."""
    if refused.error.code in BALANCE_SHORT:
        return Declined(True, refused.error.code or "")
    if refused.error.code in UNPAYABLE:
        return Declined(False, refused.error.code or "")
    return refusal(refused)


def of_query(answer: Refused | Outcome) -> Outcome:
    """A question that failed says nothing about what was asked for, but that it is not there."""
    if isinstance(answer, Refused):
        if answer.status == 404:
            return NotFound()
        answer = refusal(answer)
    if isinstance(answer, NotFound | Postponed | Unknown):
        return answer
    return Unknown(getattr(answer, "code", type(answer).__name__))


def _succeeded(intent: Intent) -> Succeeded | Unknown:
    """Without `amount_received` a payment that is not captured by hand has brought its whole amount."""
    amount = intent.amount_received
    if amount is None and intent.capture_method != "manual":
        amount = intent.amount
    if amount is None:
        return Unknown("succeeded without an amount")
    minor = _minor(amount, intent.currency)
    return minor if isinstance(minor, Unknown) else Succeeded(minor, intent.id)


def _open(intent: Intent) -> HoldStatus | Unknown:
    cap = _minor(intent.amount if intent.amount_capturable is None else intent.amount_capturable, intent.currency)
    if isinstance(cap, Unknown):
        return cap
    details = intent.latest_charge.payment_method_details if isinstance(intent.latest_charge, Charge) else None
    until = details.card.capture_before if details and details.card else None
    return HoldStatus("open", intent.id, cap, datetime.fromtimestamp(until, UTC) if until else None)


def _signed(method: Method | str | None, ref: str, customer: str) -> AgreementStatus | Unknown:
    """Signed, unless the payment method was detached since; valid to the end of the card's last month (UTC)."""
    match method:
        case None:
            return Unknown("signed without a payment method")
        case str():
            return AgreementStatus("active", f"{ref}:{method}")
        case Method() if method.customer != customer:
            return AgreementStatus("revoked", f"{ref}:{method.id}", code="detached")
    card, end = method.card, None
    if card is not None and 1 <= card.exp_month <= 12 and 1970 <= card.exp_year <= 9998:
        end = datetime(card.exp_year + card.exp_month // 12, card.exp_month % 12 + 1, 1, tzinfo=UTC)
    return AgreementStatus("active", f"{ref}:{method.id}", valid_until=end)


def _minor(amount: int, currency: str) -> int | Unknown:
    try:
        return from_stripe(amount, currency.upper())
    except UnitsError as error:
        return Unknown(str(error))


def _secret(intent: Intent) -> ClientSecret | None:
    return ClientSecret(intent.client_secret) if intent.client_secret else None
