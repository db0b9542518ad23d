"""Why a card was declined, and whether waiting may help.

Sources: the codes and their meaning are docs.stripe.com/declines/codes; which of them Stripe itself never retries is
docs.stripe.com/billing/revenue-recovery/smart-retries (hard decline codes); `advice_code` is
docs.stripe.com/declines/card, "Retrying issuer declines". Stripe does not divide the other codes: an issuer's refusal
without a cause, a limit or a failure on the way counts as retryable here, what is wrong with the card or with this kind
of payment as final.
"""

from __future__ import annotations

AUTHENTICATION = frozenset(
    {"authentication_required", "authentication_not_handled", "mobile_device_authentication_required"}
)
"""The rider's bank wants him to authenticate, which he can only do himself."""

RETRYABLE = frozenset(
    {
        "approve_with_id",
        "call_issuer",
        "card_declined",  # An error code, given where there is no decline code.
        "card_velocity_exceeded",
        "do_not_honor",
        "generic_decline",
        "insufficient_funds",
        "issuer_not_available",
        "no_action_taken",
        "processing_error",
        "reenter_transaction",
        "try_again_later",
        "withdrawal_count_limit_exceeded",
    }
)
"""Without money, over a limit, or refused without a cause: another day may be better."""

FINAL = frozenset(
    {
        # Never retried by Stripe itself.
        "highest_risk_level",
        "incorrect_number",
        "lost_card",
        "pickup_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "stolen_card",
        "transaction_not_allowed",
        # The card, or what is known of it.
        "expired_card",
        "incorrect_address",
        "incorrect_cvc",
        "incorrect_pin",
        "incorrect_zip",
        "invalid_account",
        "invalid_cvc",
        "invalid_expiry_month",
        "invalid_expiry_year",
        "invalid_number",
        "invalid_pin",
        "new_account_information_available",
        "offline_pin_required",
        "online_or_offline_pin_required",
        "pin_try_exceeded",
        # This kind of payment, or this payment.
        "card_not_supported",
        "currency_not_supported",
        "do_not_try_again",
        "duplicate_transaction",
        "fraudulent",
        "invalid_amount",
        "merchant_blacklist",
        "not_permitted",
        "restricted_card",
        "security_violation",
        "service_not_allowed",
        "stop_payment_order",
        "testmode_decline",
    }
)
"""Waiting does not help: the rider needs another card, or his bank."""

ADVICE = {"try_again_later": True, "do_not_try_again": False, "confirm_card_data": False}
"""What the network advises, where it does: it overrules the tables."""


def retryable(code: str, advice: str | None) -> bool:
    """Whether waiting may help. A code that nobody listed: no, the rider is asked, who can pay at once."""
    return ADVICE.get(advice or "", code in RETRYABLE)
