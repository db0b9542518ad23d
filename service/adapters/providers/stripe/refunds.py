"""Refunds: looked for before they are made, so that a key that Stripe has forgotten, or a peer that ignores keys, never
gives the money back twice (docs.stripe.com/api/refunds)."""

from __future__ import annotations

from datetime import timedelta

from service.adapters.providers.port import DebitRef, RefundRef, RefundRequest
from service.adapters.providers.stripe.agreements import Paying
from service.adapters.providers.stripe.calls import Calls, Form
from service.adapters.providers.stripe.intents import Intents
from service.adapters.providers.stripe.meaning import of_query, refund_outcome, refund_refusal, refusal
from service.adapters.providers.stripe.wire import KEY, REFUND, REFUNDS, Intent, Refund, Refused, our_key
from service.billing.outcomes import NotFound, Outcome, Postponed, Rejected, Unknown

LOOK_AGAIN = timedelta(seconds=5)
"""A look for the refund that failed: nothing was sent, the same again soon."""


class Refunds:
    """The refunds of one account."""

    def __init__(self, calls: Calls, intents: Intents) -> None:
        self._calls = calls
        self._intents = intents

    async def make(self, request: RefundRequest) -> Outcome:
        """Gives money back, unless it was given back under this key before. Our reason is not sent: Stripe's is one of
        three words."""
        amount = self._intents.amount(request.amount_minor, request.currency)
        if isinstance(amount, Rejected):
            return amount
        payment = await self._payment(request.debit)
        if isinstance(payment, NotFound):
            return Rejected("PAYMENT_UNKNOWN", "Stripe has no payment of the debit")
        if not isinstance(payment, str):
            return payment if isinstance(payment, Postponed) else Postponed(LOOK_AGAIN)
        known = await self._find(payment, request.key)
        if isinstance(known, Refund):
            return refund_outcome(known)
        if not isinstance(known, NotFound):
            return Postponed(LOOK_AGAIN) if isinstance(known, Unknown) else known
        form: Form = [("payment_intent", payment), ("amount", amount), (f"metadata[{KEY}]", request.key)]
        refund = await self._calls.post("refunds", REFUND, form, request.key)
        if isinstance(refund, Refund):
            return refund_outcome(refund)
        return refund_refusal(refund) if isinstance(refund, Refused) else refund

    async def get(self, refund: RefundRef) -> Outcome:
        """By its number, or among the refunds of its payment."""
        if refund.provider_ref is not None:
            known = await self._calls.get(f"refunds/{refund.provider_ref}", REFUND)
            if isinstance(known, Refund):
                return refund_outcome(known)
            return of_query(known)
        payment = await self._payment(refund.debit)
        if not isinstance(payment, str):
            return payment
        found = await self._find(payment, refund.key)
        return refund_outcome(found) if isinstance(found, Refund) else of_query(found)

    async def _payment(self, debit: DebitRef) -> str | Outcome:
        """The number of the debit's PaymentIntent: where it was settled by hand without one, Stripe is asked for the
        one with its key. The ride's hold may have been captured for another debit."""
        if debit.provider_ref is not None:
            return debit.provider_ref
        if debit.hold is not None and debit.hold.provider_ref is not None:
            hold = await self._intents.get(debit.hold.provider_ref)
            if not isinstance(hold, Intent | NotFound):
                return hold
            if isinstance(hold, Intent) and our_key(hold.metadata) == debit.key:
                return hold.id
        intent = await self._intents.find(Paying(debit.agreement).customer, debit.key)
        return intent.id if isinstance(intent, Intent) else intent

    async def _find(self, payment: str, key: str) -> Refund | Outcome:
        """The payment's refund with our key, NotFound when it has none."""
        refunds = await self._calls.pages("refunds", REFUNDS, [("payment_intent", payment)])
        if not isinstance(refunds, list):
            return refusal(refunds) if isinstance(refunds, Refused) else refunds
        return next((refund for refund in refunds if our_key(refund.metadata) == key), NotFound())
