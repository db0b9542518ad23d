"""Debts that another system billed and that are brought over: each becomes a ride of its own that is a debt alone.

There is no fare to derive again, so the ride's first event is an adjustment of kind `opening` over an empty fare. From
there on it is a ride like any other: its obligation is netted into debits, support adjusts or voids it, the audit
derives it again. In the ledger it stands against an account of its own, for its revenue was booked elsewhere. It is
owed whatever `bill_from` says: that is about rides that are to be billed here, and this one was billed.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from service.billing.catalog import Operator
from service.billing.charged import StoredCharge, adjusted_charge
from service.billing.events import Adjustment, Position, RideEvent
from service.billing.instants import LAST
from service.billing.keys import session_key_bytes
from service.billing.rating import Charge
from service.billing.rides import Revision, Ride, compose
from service.billing.sessions import Session, SessionState, Usage, take
from service.billing.tariffs import TariffDraft
from service.billing.verdicts import Terms, Verdict

SOURCE = "urn:farebox:import"
"""The source of what is brought over; it comes from no topic."""
BY = "farebox import"
REASON = "brought over from another system"
TARIFF = "brought-over-{}"
"""The tariff that such rides name, by currency: their debits can be stopped by it, as any tariff's."""
SESSION = "debt-{}"
"""The session id of the ride that a debt becomes, by the debt's reference."""


class OpenDebt(msgspec.Struct, frozen=True):
    """A debt of another system. `reference` is its number there and the key under which it is brought over once;
    `code` is what it is for (`ride`, `damage`), `since_at` since when it is owed."""

    reference: str
    agreement_id: str
    code: str
    amount_minor: int
    currency: str
    since_at: datetime

    @property
    def session_id(self) -> str:
        """The ride that it becomes."""
        return SESSION.format(self.reference)

    def key(self, operator_id: str) -> bytes:
        """The session key of that ride."""
        return session_key_bytes(operator_id, self.session_id)


def opening_tariff(currency: str) -> TariffDraft:
    """A tariff without a fare, that no ride can be on: a ride names one, and what is brought over has been priced. It
    holds from the last instant on, so that an app that names it gets no ride for nothing."""
    tariff_id = TARIFF.format(currency.lower())
    plan = {
        "plan_id": tariff_id,
        "name": "Debts brought over",
        "description": "What another system billed; no ride is priced by it.",
        "currency": currency,
        "price": "0",
        "is_taxable": False,
    }
    return TariffDraft(tariff_id=tariff_id, plan=msgspec.json.encode(plan), valid_from=LAST, time_zone="UTC")


def brought_over(debt: OpenDebt, operator: Operator, ride_no: int, terms: Terms, now: datetime) -> Revision:
    """The first revision of the ride that a debt becomes: closed, and owing it."""
    event = RideEvent(
        kind="adjusted",
        source=SOURCE,
        id=debt.reference,
        time=debt.since_at,
        session_id=debt.session_id,
        position=Position("", 0, 0),
        agreement_id=debt.agreement_id,
        tariff_id=terms.version.tariff.tariff_id,
        adjustment=Adjustment(
            kind="opening",
            code=debt.code,
            amount_minor=debt.amount_minor,
            currency=debt.currency,
            reason=REASON,
            adjustment_id=debt.reference,
            by=BY,
        ),
    )
    session, taken = take(Session(), event)
    assert taken == "counted"
    ride = Ride(debt.key(operator.operator_id), ride_no, operator)
    charge = opening_charge(session)
    return compose(ride, session, (event,), Verdict(SessionState.CLOSED, None, terms, charge.usage), charge, now)


def opening_charge(session: Session) -> StoredCharge:
    """What such a ride owes, by its first event alone: it took no time, and its fare is nothing."""
    event = session.counted[0]
    assert event.adjustment is not None
    usage = Usage(started_at=event.time, ended_at=event.time, duration_us=0)
    return adjusted_charge(StoredCharge(usage, Charge(event.adjustment.currency, (), 0)), session)


def debt_of(ride: Ride) -> OpenDebt | None:
    """The debt that a ride was brought over as; None for every other ride."""
    event = ride.session.counted[0] if ride.session.counted else None
    if event is None or event.source != SOURCE or event.adjustment is None:
        return None
    one = event.adjustment
    return OpenDebt(event.id, event.agreement_id or "", one.code, one.amount_minor, one.currency, event.time)
