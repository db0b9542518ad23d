"""PaymentIntents: read, made without being confirmed, lowered, cancelled. None of these moves money."""

from __future__ import annotations

from service.adapters.providers.port import DebitRequest
from service.adapters.providers.stripe.agreements import Paying
from service.adapters.providers.stripe.amounts import UnitsError, to_stripe
from service.adapters.providers.stripe.calls import PAGE, Calls, Form, Trouble
from service.adapters.providers.stripe.meaning import NOT_SIGNED, of_query, refusal
from service.adapters.providers.stripe.wire import INTENT, INTENTS, KEY, Intent, Page, Refused, our_key
from service.billing.outcomes import NotFound, Outcome, Prepared, Rejected, Unknown

_MONEY = {"succeeded": 0, "processing": 1}
EXPAND_CHARGE = ("expand[]", "latest_charge")


class Intents:
    """The PaymentIntents of one account."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def amount(self, minor: int, currency: str) -> int | Rejected:
        """Stripe's amount, in the account's currency."""
        if currency != self._calls.settings.currency:
            return Rejected("CURRENCY_OTHER", f"the account debits in {self._calls.settings.currency}")
        try:
            return to_stripe(minor, currency)
        except UnitsError as error:
            return Rejected("AMOUNT_IMPOSSIBLE", str(error))

    async def get(self, number: str) -> Intent | Outcome:
        """The PaymentIntent, or what a question that failed says."""
        intent = await self._calls.get(f"payment_intents/{number}", INTENT, [EXPAND_CHARGE])
        if not isinstance(intent, Intent):
            return of_query(intent)
        return intent if intent.id == number else Unknown("the answer is about another payment")

    async def find(self, customer: str, key: str) -> Intent | Outcome:
        """A debit's PaymentIntent by our key, among the latest hundred of a customer (docs.stripe.com/api, List all
        PaymentIntents: the latest first); NotFound where there is none. What brought money, or is bringing it, comes
        before what is unpaid."""
        if not customer:
            return NotFound()
        asked: Form = [("customer", customer), ("limit", PAGE), ("expand[]", "data.latest_charge")]
        page = await self._calls.get("payment_intents", INTENTS, asked)
        if not isinstance(page, Page):
            return of_query(page)
        own = [intent for intent in page.data if our_key(intent.metadata) == key]
        return min(own, key=lambda intent: _MONEY.get(intent.status, len(_MONEY)), default=NotFound())

    async def post(
        self, number: str, verb: str, form: list[tuple[str, str | int]], key: str | None
    ) -> Intent | Trouble:
        """`verb` of a PaymentIntent, or a change of it where the verb is empty."""
        path = f"payment_intents/{number}/{verb}".rstrip("/")
        intent = await self._calls.post(path, INTENT, form, key)
        if isinstance(intent, Intent) and intent.id != number:
            return Unknown("the answer is about another payment")
        return intent

    async def prepare(self, request: DebitRequest) -> Outcome:
        """The debit's PaymentIntent, unconfirmed and without a payment method: Prepared with its number."""
        paying, amount = Paying(request.agreement), self.amount(request.amount_minor, request.currency)
        if isinstance(amount, Rejected):
            return amount
        if not paying:
            return NOT_SIGNED
        form: list[tuple[str, str | int]] = [
            ("amount", amount),
            ("currency", request.currency.lower()),
            ("customer", paying.customer),
            ("description", request.subject),
            (f"metadata[{KEY}]", request.key),
            *(("payment_method_types[]", kind) for kind in self._calls.settings.payment_method_types),
        ]
        intent = await self._calls.post("payment_intents", INTENT, form, request.key)
        if not isinstance(intent, Intent):
            return refusal(intent) if isinstance(intent, Refused) else intent
        if intent.metadata.get(KEY) != request.key:
            return Unknown("the answer is about another key")
        return Prepared(intent.id)

    async def lower(self, intent: Intent, minor: int, currency: str) -> Intent | Outcome:
        """The unpaid PaymentIntent over another amount; as it is where that is its amount."""
        amount = self.amount(minor, currency)
        if isinstance(amount, Rejected) or amount == intent.amount:
            return amount if isinstance(amount, Rejected) else intent
        changed = await self.post(intent.id, "", [("amount", amount)], None)
        if not isinstance(changed, Intent):
            return refusal(changed) if isinstance(changed, Refused) else changed
        return changed if changed.amount == amount else Unknown("the amount was not changed")

    async def cancel(self, number: str, reason: str | None = None) -> Intent | Outcome:
        """The PaymentIntent once it was told to end, for one of Stripe's reasons: as it stands then, where it would
        not."""
        form: list[tuple[str, str | int]] = [("cancellation_reason", reason)] if reason else []
        intent = await self.post(number, "cancel", form, None)
        if isinstance(intent, Refused) and intent.status in (400, 404):
            return await self.get(number)
        if isinstance(intent, Intent):
            return intent
        return refusal(intent) if isinstance(intent, Refused) else intent
