"""Stripe in memory: PaymentIntents that succeed at most once, idempotency keys that keep what was answered first.

What its adapter makes of Stripe's answers is written down once more, by hand: adapters/providers/stripe.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sim_held import HoldsTeller
from sim_teller import CURRENCY, Giving, Held, Payment, Taken

from service.adapters.providers.port import (
    DebitRef,
    DebitRequest,
    DisputeStatus,
    HoldRef,
    HoldRequest,
    RefundRef,
    RefundRequest,
)
from service.billing.agreements.standing import HoldAnswer
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    CapExceeded,
    ClientSecret,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    Outcome,
    Postponed,
    Prepared,
    Rejected,
    Succeeded,
    Unknown,
)

KEPT = timedelta(hours=24)
"""How long an idempotency key is."""
ERROR = Unknown("HTTP 500 api_error")
AUTHENTICATE = "authentication_required"
FEE = 15


class StripeTeller(HoldsTeller):
    """PaymentIntents by their numbers (`Payment.ref`); `payments` has the newest of each key of ours."""

    @property
    def refunds_return(self) -> bool:
        """See Teller."""
        return True

    def _remembered(self, key: str) -> tuple[int, Outcome] | None:
        """What was answered under an idempotency key first, and over how much it was asked."""
        known = self._keys.get(key)
        return known[1:] if known is not None and self.now() < known[0] + KEPT else None

    @property
    def _keys(self) -> dict[str, tuple[datetime, int, Outcome]]:
        if not hasattr(self, "_kept"):
            self._kept: dict[str, tuple[datetime, int, Outcome]] = {}
        return self._kept

    def _keep(self, key: str, amount_minor: int, outcome: Outcome) -> Outcome:
        self._keys[key] = self.now(), amount_minor, outcome
        return outcome

    # ------------------------------------------------------------------ debits

    async def debit(self, request: DebitRequest) -> Outcome:
        """Captures the hold; else prepares, and confirms what was prepared."""
        number = self._own(request)
        if number is None and request.hold is not None and request.hold.provider_ref is not None:
            return self._capture(request)
        if number is None:
            return self._prepare(request)
        if request.attempt > 1:
            ready = self._ready(request, number)
            if not isinstance(ready, Payment):
                return ready
        return self._confirm(request, self._intent(number))

    async def get_debit(self, debit: DebitRef) -> Outcome:
        """How its PaymentIntent stands."""
        number = self._own(debit)
        if number is not None:
            return self.outcome(self._intent(number))
        hold = self._captured(debit)
        if hold is not None:
            return self.outcome(hold)
        intent = self.payments.get(debit.key)
        if intent is None or intent.hold is not None:
            return NotFound()
        standing = self.outcome(intent)
        return standing if isinstance(standing, Succeeded | Accepted | Closed) else Prepared(intent.ref)

    async def reduce_debit(self, debit: DebitRef, amount_minor: int) -> Outcome:
        """Lowers what is not under way."""
        if amount_minor <= 0:
            return self._stop(debit)
        number = self._own(debit)
        if number is None:
            return Accepted() if debit.hold else NotFound()
        intent = self._intent(number)
        standing = self.outcome(intent)
        if isinstance(standing, Succeeded | Closed):
            return standing
        if isinstance(standing, Accepted):
            return Rejected("NOT_POSSIBLE")
        intent.asked_minor = amount_minor
        return Accepted(intent.ref)

    async def settle_elsewhere(self, debit: DebitRef, paid_at: datetime) -> Outcome:
        """Cancelled."""
        return self._stop(debit)

    async def close_debit(self, debit: DebitRef) -> Outcome:
        """Cancelled."""
        return self._stop(debit)

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """The client secret of the debit's own PaymentIntent."""
        number = self._own(request)
        if number is None:
            hold = self._captured(request)
            if hold is not None:
                return AlreadyDone()
            return self._prepare(request)
        ready = self._ready(request, number)
        if not isinstance(ready, Payment):
            return AlreadyDone() if isinstance(ready, Succeeded) else ready
        ready.shown = True
        return NeedsRider("rider_must_pay", ClientSecret(ready.ref))

    def _prepare(self, request: DebitRequest) -> Outcome:
        known = self._remembered(request.key)
        if known is not None:
            return known[1] if known[0] == request.amount_minor else Conflict("idempotency_error")
        if self.dice.odd(8):
            return self._keep(request.key, request.amount_minor, ERROR)
        before = self.payments.get(request.key)
        if before is not None:
            self.old.append(before)
        intent = Payment(request.key, request.key, request.amount_minor, self.now(), ref=self.number("pi_"))
        self.payments[request.key] = intent
        return self._keep(request.key, request.amount_minor, Prepared(intent.ref))

    def _ready(self, request: DebitRequest, number: str) -> Payment | Outcome:
        """The unpaid PaymentIntent over the request's amount; else how it stands."""
        if self.dice.odd(12):
            return Postponed(timedelta(seconds=2))
        intent = self._intent(number)
        standing = self.outcome(intent)
        if isinstance(standing, Succeeded | Accepted | Closed):
            return standing
        intent.asked_minor = request.amount_minor
        return intent

    def _confirm(self, request: DebitRequest, intent: Payment) -> Outcome:
        key = f"{request.key}-{request.attempt}"
        known = self._remembered(key)
        if known is not None:
            return known[1]
        if intent.state in ("paid", "closed", "accepted"):
            return self.outcome(intent)
        roll = self.dice.roll(9)
        if self.revoked:
            return NeedsRider("payment_method_detached", ClientSecret(intent.ref))
        if self.declines or roll in (1, 2):
            intent.state, intent.code = "declined", "insufficient_funds" if roll != 2 else "lost_card"
        elif roll == 3:
            intent.state, intent.code, intent.shown = "declined", AUTHENTICATE, True
        elif roll in (4, 5):
            intent.state = "accepted"
        elif roll == 6:
            return self._keep(key, request.amount_minor, ERROR)
        else:
            self.bring(intent, intent.asked_minor)
        self.tell(intent)
        outcome = self.outcome(intent)
        if roll == 7:
            return self._keep(key, request.amount_minor, ERROR)
        return self._keep(key, request.amount_minor, outcome)

    def _stop(self, debit: DebitRef) -> Outcome:
        own = self._own(debit)
        if own is None and debit.hold is None:
            return NotFound()
        if own is None:
            return self._stop_hold(debit)
        intent = self._intent(own)
        if intent.state in ("idle", "declined", "shown"):
            intent.state, intent.code = "closed", "requested_by_customer"
            self.tell(intent)
        match intent.state:
            case "closed":
                return Closed(intent.code)
            case "paid":
                return AlreadyDone()
        return Accepted(intent.ref)

    # ------------------------------------------------------------------ holds

    async def open_hold(self, request: HoldRequest) -> HoldAnswer:
        """An authorisation to be captured once."""
        return await super().open_hold(request)

    def _capture(self, request: DebitRequest) -> Outcome:
        assert request.hold is not None
        order = self.orders[request.hold.key]
        key = f"{request.key}-capture-{request.amount_minor}"
        known = self._remembered(key)
        if known is not None:
            return known[1]
        captured = self._captured(request)
        if captured is not None:
            return self.outcome(captured)
        if order.state != "open":
            return self._prepare(request)
        if request.amount_minor > order.cap_minor:
            return CapExceeded(order.cap_minor)
        intent = Payment(request.key, request.key, request.amount_minor, self.now(), ref=order.ref, hold=order.key)
        self.payments[request.key] = intent
        self.bring(intent, request.amount_minor)
        order.state = "completed"
        self.tell(intent)
        return self._keep(key, request.amount_minor, self.outcome(intent))

    def _captured(self, debit: DebitRef | DebitRequest) -> Payment | None:
        """The hold's PaymentIntent where it was captured for this debit."""
        known = self.payments.get(debit.key)
        hold = debit.hold.key if debit.hold else None
        return known if known is not None and hold is not None and known.hold == hold else None

    def _stop_hold(self, debit: DebitRef) -> Outcome:
        assert debit.hold is not None
        order = self.orders.get(debit.hold.key)
        if order is None:
            return NotFound()
        if order.state == "completed":
            return AlreadyDone() if self._captured(debit) else Closed("captured for another debit")
        order.state = "released"
        return Closed("requested_by_customer")

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        """Authorisations end after a week."""
        order = self.orders.get(hold.key)
        if order is not None and order.state == "open" and self.now() > order.made_at + timedelta(days=7):
            order.state = "expired"
        return await super().get_hold(hold)

    # ------------------------------------------------------------------ books

    def outcome(self, payment: Payment) -> Outcome:
        """See Teller."""
        match payment.state:
            case "paid":
                return Succeeded(payment.paid_minor, payment.ref)
            case "accepted":
                return Accepted(payment.ref)
            case "closed":
                return Closed(payment.code)
            case "declined" if payment.code == AUTHENTICATE:
                return NeedsRider(AUTHENTICATE, ClientSecret(payment.ref))
            case "declined":
                return Declined(payment.code == "insufficient_funds", payment.code)
        return Prepared(payment.ref)

    def payable(self) -> list[Payment]:
        """What he has a secret of and is not paid or closed."""
        return [one for one in self.all_payments() if one.state in ("idle", "declined", "shown") and one.shown]

    def decide(self, payment: Payment) -> None:
        """See Teller."""
        if self.declines or self.dice.roll(3) == 1:
            payment.state, payment.code = "declined", "insufficient_funds"
        else:
            self.bring(payment, payment.asked_minor)
        self.tell(payment)

    def _own(self, debit: DebitRequest | DebitRef) -> str | None:
        hold = debit.hold.provider_ref if debit.hold else None
        return debit.provider_ref if debit.provider_ref != hold else None

    def _intent(self, number: str) -> Payment:
        return next(one for one in self.all_payments() if one.ref == number)

    # ------------------------------------------------------------------ refunds and disputes

    async def refund(self, request: RefundRequest) -> Outcome:
        """Looked for first, then made."""
        if self.dice.odd(12):
            return Postponed(timedelta(seconds=5))
        known = self.givings.get(request.key)
        if known is not None:
            return self.refund_outcome(known)
        kept = self._remembered(f"refund {request.key}")
        if kept is not None:
            return kept[1]
        payment = self._paid(request.debit)
        if payment is None:
            return Rejected("PAYMENT_UNKNOWN")
        part: Taken | None = payment.taken[0] if payment.taken else None
        code = self.refusal(payment, part, request.amount_minor)
        if code is not None or part is None:
            return Declined(False, code or "charge_not_refundable")
        if self.dice.odd(8):
            return self._keep(f"refund {request.key}", request.amount_minor, ERROR)
        if self.dice.odd(10):
            return self._keep(f"refund {request.key}", request.amount_minor, Declined(True, "balance_insufficient"))
        return self.refund_outcome(self.give(request.key, payment, part, request.amount_minor))

    async def get_refund(self, refund: RefundRef) -> Outcome:
        """As it stands."""
        known = self.givings.get(refund.key)
        return NotFound() if known is None else self.refund_outcome(known)

    def refund_outcome(self, giving: Giving) -> Outcome:
        """See Teller."""
        match giving.state:
            case "paid":
                return Succeeded(giving.amount_minor, giving.ref)
            case "failed" | "returned":
                return Declined(False, giving.code)
            case "abnormal":
                return Accepted(giving.ref, "requires_action")
        return Accepted(giving.ref)

    def dispute_status(self, held: Held) -> DisputeStatus:
        """See Teller."""
        fee_minor = held.fee_minor if held.kind == "chargeback" else None
        about = (held.payment.ref, held.kind, held.state, held.amount_minor, CURRENCY, held.ref)
        return DisputeStatus(*about, fee_minor, None if fee_minor is None else CURRENCY, held.at)

    def tell_dispute(self, held: Held) -> None:
        """A chargeback costs a fee, which is given back when it is won."""
        if held.kind == "chargeback":
            held.fee_minor = FEE if held.state in ("opened", "lost") else 0
        super().tell_dispute(held)

    def _paid(self, debit: DebitRef) -> Payment | None:
        if debit.provider_ref is not None:
            return self._intent(debit.provider_ref)
        intent = self.payments.get(debit.key)
        return intent if intent is not None and intent.taken else None
