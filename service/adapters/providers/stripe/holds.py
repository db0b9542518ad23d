"""Holds: a PaymentIntent over the cap that is authorised and not captured
(docs.stripe.com/payments/place-a-hold-on-a-payment-method).

The authorisation is captured once, for the ride's amount or less, and the rest is given free by that; or it is
cancelled. How long it lasts is the card network's: `capture_before` says so, and a debit whose hold is over goes on
without it (`debits`).
"""

from __future__ import annotations

from service.adapters.providers.port import HoldRef, HoldRequest
from service.adapters.providers.stripe.agreements import Paying
from service.adapters.providers.stripe.calls import Calls
from service.adapters.providers.stripe.intents import EXPAND_CHARGE, Intents
from service.adapters.providers.stripe.meaning import NOT_SIGNED, REFUSED, decline, hold_status, refusal
from service.adapters.providers.stripe.wire import HOLD, INTENT, Intent, Refused
from service.billing.agreements.standing import HoldAnswer, HoldStatus
from service.billing.outcomes import Conflict, NeedsRider, NotFound, Rejected, Unknown


class Holds:
    """The holds of one account."""

    def __init__(self, calls: Calls, intents: Intents) -> None:
        self._calls = calls
        self._intents = intents

    async def open(self, request: HoldRequest) -> HoldAnswer:
        """One call. The idempotency key is of the hold and of when it was asked for: after a refusal the rider may ask
        again, with another card, and must not be told the old refusal."""
        paying, amount = Paying(request.agreement), self._intents.amount(request.cap_minor, request.currency)
        if isinstance(amount, Rejected):
            return amount
        if not paying:
            return NOT_SIGNED
        form: list[tuple[str, str | int]] = [
            ("amount", amount),
            ("currency", request.currency.lower()),
            ("customer", paying.customer),
            ("payment_method", paying.method),
            ("description", request.subject),
            ("capture_method", "manual"),
            ("confirm", "true"),
            ("off_session", "true"),
            (f"metadata[{HOLD}]", request.key),
            *(("payment_method_types[]", kind) for kind in self._calls.settings.payment_method_types),
            EXPAND_CHARGE,
        ]
        key = f"{request.key}-{int(request.requested_at.timestamp())}"
        intent = await self._calls.post("payment_intents", INTENT, form, key)
        if isinstance(intent, Intent):
            return hold_status(intent)
        if not isinstance(intent, Refused):
            return intent
        return _refused(intent) if intent.status == 402 else refusal(intent)

    async def get(self, hold: HoldRef) -> HoldAnswer:
        """Without a number: NotFound. What a lost answer has authorised can't be captured, and ends by itself.

        What was refused once the rider had been asked is cancelled before that is said: he still has its client_secret,
        and another card would be authorised by it for nobody.
        """
        if hold.provider_ref is None:
            return NotFound()
        intent = await self._intents.get(hold.provider_ref)
        status = hold_status(intent) if isinstance(intent, Intent) else intent
        over = isinstance(intent, Intent) and intent.status == "canceled"
        if not isinstance(status, HoldStatus) or status.state != "refused" or over:
            return status
        ended = await self._intents.cancel(hold.provider_ref, REFUSED)
        if not isinstance(ended, Intent):
            return ended
        return status if ended.status == "canceled" else Unknown(f"refused, and not cancelled: {ended.status}")

    async def release(self, hold: HoldRef) -> HoldAnswer:
        """Gives the authorisation back."""
        if hold.provider_ref is None:
            return NotFound()
        intent = await self._intents.cancel(hold.provider_ref)
        if not isinstance(intent, Intent):
            return intent
        status = hold_status(intent)
        if isinstance(status, HoldStatus) and status.state == "completed":
            return Conflict("payment_intent_unexpected_state")
        return status

    async def finish(self, hold: HoldRef) -> HoldAnswer:
        """Captured, it is complete; what was paid without it is given back."""
        if hold.provider_ref is None:
            return NotFound()
        intent = await self._intents.get(hold.provider_ref)
        if isinstance(intent, Intent) and intent.status not in ("succeeded", "canceled"):
            intent = await self._intents.cancel(hold.provider_ref)
        if not isinstance(intent, Intent):
            return intent
        if intent.status in ("succeeded", "canceled"):
            return HoldStatus("completed", intent.id)
        return hold_status(intent)


def _refused(refused: Refused) -> HoldStatus:
    """The issuer said no, or wants the rider: he confirms the same PaymentIntent in his app."""
    intent, why = refused.error.payment_intent, decline(refused.error)
    number = intent.id if intent else None
    if isinstance(why, NeedsRider):
        return HoldStatus("pending", number, action=why.action)
    return HoldStatus("refused", number, code=why.code, retryable=why.retryable)
