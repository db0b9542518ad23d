"""Support's adjustments of a charged ride: each is one more decision about it, as a correction is.

What an adjustment says stays said: later corrections rate the fare anew and lay the adjustments over it again. A void
takes back the fare, extra charges and reductions; what was marked as owed regardless stays, up to what was owed.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal

from service.billing.charged import UNCHARGED, StoredCharge, adjusted_charge, owed_minor, taken_back
from service.billing.events import Adjustment, Position, RideEvent
from service.billing.extent import DECISIONS_MAX
from service.billing.rides import Revision, Ride, compose
from service.billing.sessions import SessionState, take
from service.billing.verdicts import Verdict

SOURCE = "urn:farebox:adjustment"
"""The source of adjustments; they come from no topic."""
AMOUNT_MAX = 10**12
"""Minor units: more is a mistake, not a charge."""

Refusal = Literal[
    "unknown_session",
    "not_charged",
    "voided",
    "not_billed",
    "bad_adjustment",
    "wrong_currency",
    "more_than_owed",
    "id_reused",
    "too_many",
]


class AdjustmentError(ValueError):
    """An adjustment that can't be: `code` for programs, the text for people. Nothing was changed."""

    def __init__(self, code: Refusal, text: str) -> None:
        super().__init__(text)
        self.code = code


def adjust(ride: Ride, adjustment: Adjustment, now: datetime) -> Revision | None:
    """The revision that an adjustment makes of a ride; None where the same one was made before.

    Raises AdjustmentError. A ride that is corrected while it stands in review may be adjusted: its charge stands.
    """
    known = next((event for event in ride.session.events() if _names(event, adjustment)), None)
    if known is not None:
        if known.adjustment != adjustment:
            raise AdjustmentError("id_reused", "the ride was adjusted under this id with other content")
        return None
    check_adjustment(adjustment)
    if sum(event.kind == "adjusted" for event in ride.session.counted) >= DECISIONS_MAX:
        raise AdjustmentError("too_many", f"the ride was adjusted {DECISIONS_MAX} times: it takes no more")
    before = _adjustable(ride, adjustment)
    event = RideEvent(
        kind="adjusted",
        source=SOURCE,
        id=adjustment.adjustment_id,
        time=now,
        session_id=ride.session.counted[0].session_id,
        position=Position("", 0, 0),
        adjustment=adjustment,
    )
    session, taken = take(ride.session, event)
    assert taken == "counted", "a ride that is charged takes adjustments"
    if before.taken_back:
        charge = taken_back(before, session, -adjustment.amount_minor)
    else:
        charge = adjusted_charge(before, session)
    return compose(ride, session, (event,), Verdict(ride.state, ride.reason), charge, now)


def check_adjustment(adjustment: Adjustment) -> None:
    """Refuses what is wrong whatever the ride; raises AdjustmentError."""
    if not 0 < adjustment.amount_minor <= AMOUNT_MAX:
        raise AdjustmentError("bad_adjustment", f"the amount must be from 1 to {AMOUNT_MAX} minor units")
    if CODE.fullmatch(adjustment.code) is None:
        raise AdjustmentError("bad_adjustment", "the code is 1 to 32 lower-case letters, digits and underscores")
    for name, text in (("adjustment_id", adjustment.adjustment_id), ("by", adjustment.by)):
        if not 0 < len(text) <= 128 or not text.isprintable():
            raise AdjustmentError("bad_adjustment", f"{name} is 1 to 128 visible characters")
    if not 0 < len(adjustment.reason.strip()) <= 1000 or "\0" in adjustment.reason:
        raise AdjustmentError("bad_adjustment", "the reason is 1 to 1000 characters")
    rate = adjustment.tax_rate
    if adjustment.kind != "extra" and (rate is not None or adjustment.regardless):
        raise AdjustmentError("bad_adjustment", "a reduction takes its tax from the charge and falls with it")
    if adjustment.kind == "opening":
        raise AdjustmentError("bad_adjustment", "a debt is brought over by an import, as a ride of its own")
    if rate is not None and (not rate.is_finite() or not 0 <= rate <= 1 or len(str(rate)) > _RATE_LENGTH_MAX):
        raise AdjustmentError("bad_adjustment", "the tax rate is a share of 1: 0.13 for 13 %")


def _adjustable(ride: Ride, adjustment: Adjustment) -> StoredCharge:
    """The charge that is adjusted."""
    before = ride.charge
    if ride.state in UNCHARGED and (before is None or adjustment.kind == "extra"):
        code: Refusal = "voided" if ride.state is SessionState.VOIDED else "not_charged"
        raise AdjustmentError(code, f"the ride is {ride.state}: nothing can be charged for it, nothing given back")
    if before is None:
        raise AdjustmentError("not_charged", f"the ride is {ride.state}: it is not charged yet")
    if not before.owed:
        raise AdjustmentError("not_billed", "nothing is owed for this ride: shadow mode, or from before bill_from")
    if adjustment.currency != before.charge.currency:
        raise AdjustmentError("wrong_currency", f"the ride is charged in {before.charge.currency}")
    owed = owed_minor(before)
    if adjustment.kind != "extra" and adjustment.amount_minor > owed:
        raise AdjustmentError("more_than_owed", f"{adjustment.amount_minor} is more than the {owed} that are owed now")
    return before


def _names(event: RideEvent, adjustment: Adjustment) -> bool:
    return event.kind == "adjusted" and event.id == adjustment.adjustment_id


CODE = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
"""What an adjustment is for."""
_RATE_LENGTH_MAX = 12
