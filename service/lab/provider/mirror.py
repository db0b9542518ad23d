"""A merchant account at the simulator that behaves as our settings say the provider does."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from service.billing.capabilities import Capabilities
from service.lab.provider.rows import Terms


def terms_of(capabilities: Capabilities, **others: Any) -> Terms:
    """The terms under which the simulator has exactly these capabilities; `others` are further fields of Terms."""
    window = capabilities.refund_window
    terms = Terms(
        provider_retries=capabilities.provider_retries,
        nudge=capabilities.nudges,
        hold_needed=capabilities.hold_needed,
        confirm_hold=capabilities.hold_confirmed_by_rider,
        partial=capabilities.partial_debit,
        further_debits=capabilities.further_debit,
        reduce_pending=capabilities.reduces_pending,
        reduce_declined=capabilities.reduces_declined,
        close=capabilities.closes_unpaid,
        new_key_after_decline=capabilities.new_key_after_decline,
        revoking_ends_debits=capabilities.revoking_ends_collection,
        amount_min_minor=capabilities.debit_min_minor,
        refund_window_s=None if window is None else int(window.total_seconds()),
    )
    return replace(terms, **others)
