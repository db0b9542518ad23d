"""Disputes: chargebacks, and inquiries of the bank that take no money (docs.stripe.com/disputes/how-disputes-work)."""

from __future__ import annotations

from typing import Literal

from service.adapters.providers.port import DisputeStatus
from service.adapters.providers.stripe.amounts import UnitsError, from_stripe
from service.adapters.providers.stripe.wire import Dispute
from service.billing.outcomes import Unknown

State = Literal["opened", "won", "lost", "resolved"]
STATES: dict[str, State] = {
    "warning_needs_response": "opened",
    "warning_under_review": "opened",
    "warning_closed": "resolved",
    "needs_response": "opened",
    "under_review": "opened",
    "won": "won",
    "lost": "lost",
    "prevented": "resolved",
}
"""States of a dispute (docs.stripe.com/api/disputes/object). `warning_*` is an inquiry of the bank."""


def dispute_status(dispute: Dispute) -> DisputeStatus | Unknown:
    """How a dispute stands; Unknown for a state nobody listed, and for one that names no payment."""
    state = STATES.get(dispute.status)
    if state is None or dispute.payment_intent is None:
        return Unknown(f"dispute state {dispute.status}" if state is None else "a dispute about no payment")
    kind: Literal["complaint", "chargeback"] = "complaint" if dispute.status.startswith("warning_") else "chargeback"
    currency = dispute.currency.upper()
    try:
        amount = from_stripe(dispute.amount, currency)
    except UnitsError as error:
        return Unknown(str(error))
    return DisputeStatus(dispute.payment_intent, kind, state, amount, currency, dispute.id)
