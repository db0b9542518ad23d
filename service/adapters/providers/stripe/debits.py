"""Debits: one PaymentIntent each, for its whole life.

It is made unconfirmed, its number is stored, and only then it is confirmed off session. A PaymentIntent succeeds at
most once (docs.stripe.com/payments/paymentintents/lifecycle). So no retry, no ignored idempotency key, no answer that
was lost and no payment by the rider himself can take the money twice, whatever Stripe remembers of keys.

This departs from the rule "a new key for each attempt after a decline", which is there because Stripe answers the same
idempotency key with the same decline (docs.stripe.com/api/idempotent_requests): each *confirmation* has an idempotency
key of its own, the debit's key and the number of the attempt; the PaymentIntent stays. A new one per attempt would
leave the declined ones open behind it, and a rider who paid an old one in his app while we confirm the new one would
pay twice.

On a hold the debit is the capture of the hold's PaymentIntent, for its amount or less; it too is captured once. A debit
whose hold is gone, or was captured for another debit, gets a PaymentIntent of its own.
"""

from __future__ import annotations

from datetime import timedelta

from service.adapters.providers.port import DebitRef, DebitRequest
from service.adapters.providers.stripe.agreements import Paying
from service.adapters.providers.stripe.amounts import UnitsError, from_stripe
from service.adapters.providers.stripe.calls import Calls
from service.adapters.providers.stripe.intents import Intents
from service.adapters.providers.stripe.meaning import NOT_SIGNED, debit_outcome, decline, refusal
from service.adapters.providers.stripe.wire import KEY, METHOD, Intent, Method, Refused
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    CapExceeded,
    ClientSecret,
    Closed,
    NeedsRider,
    NotFound,
    Outcome,
    Postponed,
    Prepared,
    Rejected,
    Succeeded,
    Unknown,
)

RIDER_MUST_PAY = "rider_must_pay"
LOOK_AGAIN = timedelta(seconds=2)
"""A look before the confirmation that failed: nothing was sent, the same again soon."""


class Debits:
    """The debits of one account."""

    def __init__(self, calls: Calls, intents: Intents) -> None:
        self._calls = calls
        self._intents = intents

    async def take(self, request: DebitRequest) -> Outcome:
        """Captures the hold; else prepares, and confirms what was prepared."""
        number = _own(request)
        if number is None and request.hold is not None and request.hold.provider_ref is not None:
            return await self._capture(request, request.hold.provider_ref)
        if number is None:
            return await self._intents.prepare(request)
        if request.attempt > 1:
            known = await self._ready(request, number)
            if not isinstance(known, Intent):
                return known
        return await self._confirm(request, number)

    async def get(self, debit: DebitRef) -> Outcome:
        """How its PaymentIntent stands. Without a number nothing was confirmed, unless a restored database has lost the
        number: it is looked for among the rider's latest payments, and NotFound is proof."""
        number, hold = _own(debit), debit.hold.provider_ref if debit.hold else None
        if number is not None:
            intent = await self._intents.get(number)
            return debit_outcome(intent) if isinstance(intent, Intent) else intent
        captured = NotFound() if hold is None else await self._captured(debit.key, hold)
        if not isinstance(captured, NotFound):
            return captured
        intent = await self._intents.find(Paying(debit.agreement).customer, debit.key)
        if not isinstance(intent, Intent):
            return intent
        standing = debit_outcome(intent)  # One that is unpaid is gone on with: its number is to be stored first.
        return standing if isinstance(standing, Succeeded | Accepted | Closed | Unknown) else Prepared(intent.id)

    async def reduce(self, debit: DebitRef, amount_minor: int) -> Outcome:
        """Lowers what is not under way. What is captured from a hold later may be less anyway."""
        number = _own(debit)
        if number is None:
            return Accepted() if debit.hold else NotFound()
        intent = await self._intents.get(number)
        if not isinstance(intent, Intent):
            return intent
        standing = debit_outcome(intent)
        if isinstance(standing, Succeeded | Closed | Unknown):
            return standing
        if isinstance(standing, Accepted):
            return Rejected("NOT_POSSIBLE", "the payment is being processed")
        lowered = await self._intents.lower(intent, amount_minor, debit.currency)
        return Accepted(lowered.id) if isinstance(lowered, Intent) else lowered

    async def stop(self, debit: DebitRef) -> Outcome:
        """Cancels what is not paid; without a PaymentIntent of its own, the hold that it would be captured from."""
        own = _own(debit)
        number = own or (debit.hold.provider_ref if debit.hold else None)
        if number is None:
            return NotFound()
        intent = await self._intents.cancel(number)
        if not isinstance(intent, Intent):
            return intent
        match intent.status:
            case "canceled":
                return Closed(intent.cancellation_reason or "canceled")
            case "succeeded" if own or intent.metadata.get(KEY) == debit.key:
                return AlreadyDone()
            case "succeeded":
                return Closed("captured for another debit")
            case "processing":
                return Accepted(intent.id)
        return Unknown(f"payment state {intent.status}")

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """The rider pays the debit's own PaymentIntent in his app, with this card or another. Prepared where it has
        none yet: its number is to be stored first, so that what he pays is found."""
        number = _own(request)
        if number is None:
            if request.hold and request.hold.provider_ref:
                standing = await self._captured(request.key, request.hold.provider_ref)
                if not isinstance(standing, NotFound):
                    return AlreadyDone() if isinstance(standing, Succeeded) else standing
            return await self._intents.prepare(request)
        known = await self._ready(request, number)
        if not isinstance(known, Intent):
            return AlreadyDone() if isinstance(known, Succeeded) else known
        if known.client_secret is None:
            return Unknown("a payment without a client secret")
        return NeedsRider(RIDER_MUST_PAY, ClientSecret(known.client_secret))

    async def _ready(self, request: DebitRequest, number: str) -> Intent | Outcome:
        """The unpaid PaymentIntent over the request's amount; else how it stands: the rider may have paid meanwhile."""
        intent = await self._intents.get(number)
        match intent:
            case NotFound():
                return Rejected("PAYMENT_MISSING", f"{number} is not a payment of this account")
            case Unknown():
                return Postponed(LOOK_AGAIN)
            case Postponed():
                return intent
        assert isinstance(intent, Intent)
        standing = debit_outcome(intent)
        if isinstance(standing, Succeeded | Accepted | Closed | Unknown):
            return standing
        return await self._intents.lower(intent, request.amount_minor, request.currency)

    async def _confirm(self, request: DebitRequest, number: str) -> Outcome:
        paying = Paying(request.agreement)
        if not paying:
            return NOT_SIGNED
        form: list[tuple[str, str | int]] = [("payment_method", paying.method), ("off_session", "true")]
        intent = await self._intents.post(number, "confirm", form, f"{request.key}-{request.attempt}")
        if isinstance(intent, Intent):
            outcome = debit_outcome(intent)
            return Unknown("confirmed, and still unconfirmed") if isinstance(outcome, Prepared) else outcome
        if not isinstance(intent, Refused):
            return intent
        if intent.status == 402:
            return decline(intent.error)
        return await self._why_not(intent, number, paying) if intent.status in (400, 404) else refusal(intent)

    async def _why_not(self, refused: Refused, number: str, paying: Paying) -> Outcome:
        """A confirmation that was refused as impossible: it was confirmed before, or the rider's card is gone."""
        intent = await self._intents.get(number)
        if not isinstance(intent, Intent):
            return intent if isinstance(intent, Postponed | Unknown) else refusal(refused)
        standing = debit_outcome(intent)
        if not isinstance(standing, Prepared) and intent.status != "requires_payment_method":
            return standing
        method = await self._calls.get(f"payment_methods/{paying.method}", METHOD)
        detached = isinstance(method, Method) and method.customer != paying.customer
        if detached or (isinstance(method, Refused) and method.status == 404):
            secret = ClientSecret(intent.client_secret) if intent.client_secret else None
            return NeedsRider("payment_method_detached", secret)
        return refusal(refused)

    async def _capture(self, request: DebitRequest, number: str) -> Outcome:
        amount = self._intents.amount(request.amount_minor, request.currency)
        if isinstance(amount, Rejected):
            return amount
        form: list[tuple[str, str | int]] = [("amount_to_capture", amount), (f"metadata[{KEY}]", request.key)]
        intent = await self._intents.post(number, "capture", form, f"{request.key}-capture-{amount}")
        if isinstance(intent, Intent):
            return debit_outcome(intent)
        if not isinstance(intent, Refused):
            return intent
        if intent.status not in (400, 402, 404):
            return refusal(intent)
        hold = await self._intents.get(number)
        if not isinstance(hold, Intent):
            return refusal(intent) if isinstance(hold, NotFound) else hold
        return await self._instead(request, intent, hold, amount)

    async def _instead(self, request: DebitRequest, refused: Refused, hold: Intent, amount: int) -> Outcome:
        """The capture was refused: it was made before, it is too much, or the hold is of no more use."""
        if hold.status == "succeeded" and hold.metadata.get(KEY) == request.key:
            return debit_outcome(hold)
        if hold.status != "requires_capture":
            return await self._intents.prepare(request)
        allowed = hold.amount if hold.amount_capturable is None else hold.amount_capturable
        if amount > allowed:
            try:
                return CapExceeded(from_stripe(allowed, request.currency))
            except UnitsError as error:
                return Unknown(str(error))
        return refusal(refused)

    async def _captured(self, key: str, number: str) -> Outcome:
        """Whether a hold was captured for this debit."""
        hold = await self._intents.get(number)
        if not isinstance(hold, Intent):
            return hold
        return debit_outcome(hold) if hold.status == "succeeded" and hold.metadata.get(KEY) == key else NotFound()


def _own(debit: DebitRequest | DebitRef) -> str | None:
    """The number of the debit's own PaymentIntent, which is not that of its hold."""
    hold = debit.hold.provider_ref if debit.hold else None
    return debit.provider_ref if debit.provider_ref != hold else None
