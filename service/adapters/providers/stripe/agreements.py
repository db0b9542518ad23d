"""Agreements: a customer without a name, and a SetupIntent that the rider completes in his app
(docs.stripe.com/payments/save-and-reuse).

The rider's details go from his app to Stripe; here are numbers only. `provider_ref` is `customer:setup intent` and,
once signed, `customer:setup intent:payment method`: what a debit needs.
"""

from __future__ import annotations

from service.adapters.providers.port import AgreementRef, AgreementRequest
from service.adapters.providers.stripe.calls import Calls
from service.adapters.providers.stripe.meaning import agreement_status, of_query, refusal
from service.adapters.providers.stripe.wire import CUSTOMER, KEY, METHOD, SETUP, Customer, Method, Refused, Setup
from service.billing.agreements.standing import AgreementAnswer, AgreementStatus
from service.billing.outcomes import NotFound, Rejected, Unknown


class Paying:
    """By whom and with what a debit is paid: the parts of an agreement's `provider_ref`."""

    def __init__(self, agreement: AgreementRef | None) -> None:
        """Parts that are not known are empty."""
        parts = (agreement.provider_ref if agreement and agreement.provider_ref else "").split(":")
        self.customer, self.setup, self.method = (*parts, "", "", "")[:3]

    def __bool__(self) -> bool:
        """Whether the rider has signed."""
        return bool(self.customer and self.method)


class Agreements:
    """The agreements of one account."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def begin(self, request: AgreementRequest) -> AgreementAnswer:
        """The same again for the same key within Stripe's 24 hours; after that, another one that nobody has signed."""
        if request.currency != self._calls.settings.currency:
            return Rejected("CURRENCY_OTHER", f"the account debits in {self._calls.settings.currency}")
        form = [(f"metadata[{KEY}]", request.key)]
        customer = await self._calls.post("customers", CUSTOMER, form, f"{request.key}-customer")
        if not isinstance(customer, Customer):
            return refusal(customer) if isinstance(customer, Refused) else customer
        form += [("customer", customer.id), ("usage", "off_session")]
        form += [("payment_method_types[]", kind) for kind in self._calls.settings.payment_method_types]
        setup = await self._calls.post("setup_intents", SETUP, form, f"{request.key}-setup")
        if isinstance(setup, Setup):
            return agreement_status(setup, customer.id)
        return refusal(setup) if isinstance(setup, Refused) else setup

    async def get(self, agreement: AgreementRef) -> AgreementAnswer:
        """Without a number nobody can have signed: the rider was given nothing to sign."""
        paying = Paying(agreement)
        if not paying.setup:
            return NotFound()
        path = f"setup_intents/{paying.setup}"
        setup = await self._calls.get(path, SETUP, [("expand[]", "payment_method")])
        if not isinstance(setup, Setup):
            return of_query(setup)
        if setup.customer not in (None, paying.customer):
            return Unknown("the answer is about another customer")
        return agreement_status(setup, paying.customer)

    async def revoke(self, agreement: AgreementRef) -> AgreementAnswer:
        """Detaches the payment method, after which Stripe debits it no more, the ride under way included
        (docs.stripe.com/api/payment_methods/detach); what was authorised by a hold can still be captured. An agreement
        that was not signed is cancelled."""
        paying, revoked = Paying(agreement), AgreementStatus("revoked", agreement.provider_ref)
        if not paying.setup:
            return revoked
        if not paying.method:
            known = await self.get(agreement)
            if not isinstance(known, AgreementStatus):
                return revoked if isinstance(known, NotFound) else known
            if known.state == "pending":
                return await self._cancel(paying, revoked)
            if known.state != "active":
                return revoked
            paying = Paying(AgreementRef(agreement.key, known.provider_ref))
        done = await self._calls.post(f"payment_methods/{paying.method}/detach", METHOD, [], None)
        if isinstance(done, Refused) and done.status in (400, 404):  # Perhaps because it was detached before.
            done = await self._calls.get(f"payment_methods/{paying.method}", METHOD)
            if isinstance(done, Refused) and done.status == 404:
                return revoked
        if isinstance(done, Method):
            return revoked if done.customer is None else Unknown("still attached")
        return refusal(done) if isinstance(done, Refused) else done

    async def _cancel(self, paying: Paying, revoked: AgreementStatus) -> AgreementAnswer:
        done = await self._calls.post(f"setup_intents/{paying.setup}/cancel", SETUP, [], None)
        if isinstance(done, Setup):
            return revoked if done.status == "canceled" else Unknown(f"agreement state {done.status}")
        return of_query(done)  # It may have been signed meanwhile: it is asked about, and revoked then.
