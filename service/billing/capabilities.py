"""What a provider can do: the rules look at these and at outcomes, never at a provider's name."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The declared abilities of one provider account; the defaults are those of a card-like provider.

    Durations are ISO 8601 in settings (`"P1D"`). Sources of the real ones: collection.md, the table of the port.
    """

    provider_retries: bool = False
    """The provider retries an accepted debit by itself: never resubmitted, only polled."""
    nudges: bool = False
    """The provider can be asked to try an accepted debit at once."""
    hold_needed: bool = False
    """A debit goes through an order that was opened before the ride."""
    debits_without_hold: bool = False
    """Though there are holds, a debit can do without: one whose hold was never opened, or is over, is not held up."""
    hold_confirmed_by_rider: bool = False
    """The rider confirms each order in his app."""
    payable_apart: bool = True
    """A rider can be given a payment that goes through no hold; else he pays through one that he confirms."""
    partial_debit: bool = False
    """A debit may be collected in parts."""
    further_debit: bool = True
    """A second debit for the same ride is allowed without the rider's approval."""
    reduces_pending: bool = False
    """An accepted debit that is not paid yet can be lowered."""
    reduces_declined: bool = False
    """A declined debit may be tried again, under the same key, with a smaller amount."""
    closes_unpaid: bool = True
    """A debit that is not paid yet can be closed, and the provider says when it is."""
    told_paid_elsewhere: bool = True
    """A debit that is not paid yet ends once the provider is told that the rider has paid elsewhere, and he says so."""
    opened_by_rider: bool = False
    """What a rider is given to pay is there only once he opens it: what the provider does not find may still be paid
    until the rider's time for it is over (`payable_until`)."""
    same_key_window: timedelta = timedelta(hours=24)
    """How long after its first use a key is remembered."""
    same_key_is_query: bool = False
    """Sending the same key again answers what became of it (Stripe)."""
    new_key_after_decline: bool = True
    """A definitely declined key replays its decline: each further attempt takes a new one."""
    debit_min_minor: int = 1
    """Less than this is not worth a debit: waived."""
    refund_window: timedelta | None = None
    """How long after its settlement a debit can be refunded; None: for ever."""
    reports_performance: Literal["provider", "merchant"] = "provider"
    """Who reports how the rider paid."""
    dispute: Literal["complaint", "chargeback"] = "complaint"
    """A complaint leaves the money where it is; a chargeback takes it at its opening."""
    revoking_ends_collection: bool = False
    """Once the provider has ended an agreement, it debits nothing on it any more, the ride under way included."""
