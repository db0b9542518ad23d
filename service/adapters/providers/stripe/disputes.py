"""Disputes: chargebacks, and inquiries of the bank that take no money (docs.stripe.com/disputes/how-disputes-work).

A payment that fails after it was told to have succeeded (a bank debit that comes back days later) is a dispute too, and
a lost one from the beginning: Stripe never takes "succeeded" back (support.stripe.com: Respond to or contest an ACH
Direct Debit dispute; SEPA Direct Debit payment disputes). What fails before is told by the payment itself (`meaning`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from service.adapters.providers.port import DisputeStatus
from service.adapters.providers.stripe.amounts import UnitsError, from_stripe
from service.adapters.providers.stripe.wire import Dispute
from service.billing.outcomes import Unknown

State = Literal["opened", "won", "lost", "resolved"]
Kind = Literal["complaint", "chargeback"]
STATES: dict[str, State] = {
    "warning_needs_response": "opened",
    "warning_under_review": "opened",
    "warning_closed": "resolved",
    "needs_response": "opened",
    "under_review": "opened",
    "won": "won",
    "lost": "lost",
    "appeal_needs_response": "opened",
    "appeal_under_review": "opened",
}
"""States of a dispute (docs.stripe.com/api/disputes/object; appeals: stripe-python 16.1.0). `warning_*` is an inquiry
of the bank."""
PREVENTED = "prevented"
"""Settled before it became a chargeback, by giving the money back or without (docs.stripe.com/changelog, 2025-08-27,
dispute preventions): what it took from the balance tells which."""
NOTHING_TAKEN: tuple[State, Kind] = ("resolved", "complaint")


def dispute_status(dispute: Dispute, told_at: datetime | None = None) -> DisputeStatus | Unknown:
    """How a dispute stands; Unknown for a state nobody listed, and for one that names no payment. `told_at` is the
    instant of the event that brought it."""
    state, kind = STATES.get(dispute.status), _kind(dispute.status)
    if dispute.status == PREVENTED and dispute.balance_transactions is not None:
        taken = sum(moved.amount for moved in dispute.balance_transactions) < 0
        state, kind = ("lost" if taken else "won", "chargeback") if dispute.balance_transactions else NOTHING_TAKEN
    if state is None or dispute.payment_intent is None:
        return Unknown(f"dispute state {dispute.status}" if state is None else "a dispute about no payment")
    currency = dispute.currency.upper()
    try:
        amount = from_stripe(dispute.amount, currency)
        fee, fee_currency = _fee(dispute)
        moved = _moved(dispute) if kind == "chargeback" else None
    except UnitsError as error:
        return Unknown(str(error))
    ref = dispute.payment_intent
    return DisputeStatus(ref, kind, state, amount, currency, dispute.id, fee, fee_currency, told_at, moved_minor=moved)


def _moved(dispute: Dispute) -> int | None:
    """What it has taken from the balance and not given back, where that is in the currency of the payment. Raises
    UnitsError."""
    moved = dispute.balance_transactions
    if moved is None or any(one.currency != dispute.currency for one in moved):
        return None
    return from_stripe(max(-sum(one.amount for one in moved), 0), dispute.currency.upper())


def _fee(dispute: Dispute) -> tuple[int | None, str | None]:
    """What Stripe keeps for it in all, and in which currency: the fees of what it moved, of which one that is given
    back is below 0 (docs.stripe.com/api/disputes/object, balance_transactions: one when funds are withdrawn, another
    when they are reinstated; docs.stripe.com/disputes/how-disputes-work). Raises UnitsError."""
    moved = dispute.balance_transactions or ()
    currencies = {one.currency for one in moved}
    currency = currencies.pop() if len(currencies) == 1 else None
    if currency is None:
        return None, None
    return from_stripe(max(sum(one.fee for one in moved), 0), currency.upper()), currency.upper()


def _kind(status: str) -> Kind:
    return "complaint" if status.startswith("warning_") else "chargeback"
