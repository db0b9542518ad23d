"""What Stripe booked on a day: the balance transactions that are charges and refunds of ours."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Literal

from service.adapters.providers.port import Statement, StatementAnswer, StatementRow
from service.adapters.providers.stripe.amounts import UnitsError, from_stripe
from service.adapters.providers.stripe.calls import Calls, Form
from service.adapters.providers.stripe.meaning import of_query
from service.adapters.providers.stripe.wire import HOLD, KEY, MOVEMENTS, Intent, Movement, Source
from service.billing.outcomes import Unknown

KINDS: dict[str, Literal["debit", "refund"]] = {
    "charge": "debit",
    "payment": "debit",
    "refund": "refund",
    "payment_refund": "refund",
}
"""Types of balance transactions (docs.stripe.com/reports/balance-transaction-types); `payment` is what is not a card.
Payouts, fees of the account, disputes (`adjustment`) and whatever else is there are not rows of a debit."""


async def read_statement(calls: Calls, day: date) -> StatementAnswer:
    """The day is UTC's, as in Stripe's reports. `provider_ref` is the balance transaction.

    A row is in the currency that the rider paid in. Stripe's fee is in the currency of the payout: where that is
    another one, `fee_minor` is 0. A payment without our key (the account may sell other things too) has no row.
    """
    begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
    form: Form = [
        ("created[gte]", int(begins.timestamp())),
        ("created[lt]", int((begins + timedelta(days=1)).timestamp())),
        ("expand[]", "data.source"),
        ("expand[]", "data.source.payment_intent"),
    ]
    movements = await calls.pages("balance_transactions", MOVEMENTS, form)
    if not isinstance(movements, list):
        return of_query(movements)
    try:
        rows = [_row(movement) for movement in movements if movement.type in KINDS]
    except UnitsError as error:
        return Unknown(str(error))
    return Statement(day, tuple(row for row in rows if row is not None))


def _row(movement: Movement) -> StatementRow | None:
    """The row, None when it is not ours. Raises UnitsError."""
    source, kind = movement.source, KINDS[movement.type]
    if not isinstance(source, Source):
        raise UnitsError(f"{movement.id} came without what it is about")
    key = _key(source)
    if key is None:
        return None
    if source.currency in (None, movement.currency):
        amount, fee, currency = abs(movement.amount), movement.fee, movement.currency.upper()
    else:
        taken = source.amount if source.amount_captured is None else source.amount_captured
        amount, fee, currency = taken or 0, 0, (source.currency or "").upper()
    at = datetime.fromtimestamp(movement.created, UTC)
    return StatementRow(kind, key, movement.id, from_stripe(amount, currency), from_stripe(fee, currency), currency, at)


def _key(source: Source) -> str | None:
    """The refund's key, or the debit's: that of its PaymentIntent, which gets it at the capture where it is a hold."""
    metadata = dict(source.metadata or {})
    if source.object != "refund" and isinstance(source.payment_intent, Intent):
        metadata |= source.payment_intent.metadata
    return metadata.get(KEY) or metadata.get(HOLD)
