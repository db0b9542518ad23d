"""The sandbox's provider in all its profiles: cards, orders, credit orders, pre-authorisations (sim_teller)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sim_held import PAGE, HoldsTeller
from sim_teller import Giving, Payment, Taken

from service.adapters.providers.port import DebitRef, DebitRequest, RefundRef, RefundRequest
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    CapExceeded,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    Outcome,
    Rejected,
    Succeeded,
    Unknown,
)

SHORT, LIMIT, MUST_PAY = "BALANCE_NOT_ENOUGH", "CARD_LOST", "RIDER_MUST_PAY"


class CardTeller(HoldsTeller):
    """The sandbox; what it does is what the capabilities say."""

    @property
    def refunds_return(self) -> bool:
        """Cards' refunds do, as chargebacks are cards'."""
        return self.capabilities.dispute == "chargeback"

    async def debit(self, request: DebitRequest) -> Outcome:
        """The same key with the same request never takes twice; a retryable decline may be tried again."""
        known = self._remembered(request)
        if isinstance(known, Outcome):
            return known
        if known is None or not self._may_again(known):
            refused = self._at_best(self.outcome(known)) if known is not None else self._refused(request)
            if refused is not None:
                return refused
        payment = known or self._made(request)
        if self.capabilities.provider_retries or self.dice.odd(4):
            payment.state, payment.code = "accepted", ""
            self.tell(payment)
            return Accepted(payment.ref)
        self.decide(payment)
        return self.outcome(payment)

    async def get_debit(self, debit: DebitRef) -> Outcome:
        """As it stands."""
        payment = self.payments.get(debit.key)
        return NotFound() if payment is None else self.outcome(payment)

    async def reduce_debit(self, debit: DebitRef, amount_minor: int) -> Outcome:
        """Lowered, down to nothing, where the account can."""
        payment, able = self.payments.get(debit.key), self.capabilities
        if payment is None:
            return NotFound()
        if payment.asked_minor == amount_minor:
            standing = self.outcome(payment)
            return Accepted() if isinstance(standing, Declined) else standing
        if payment.state in ("paid", "closed"):
            return AlreadyDone() if payment.state == "paid" else Closed("DEBIT_CLOSED")
        if not (able.reduces_pending if payment.state == "accepted" else able.reduces_declined):
            return Rejected("NOT_POSSIBLE")
        if not payment.paid_minor <= amount_minor < payment.asked_minor:
            return Rejected("INVALID_REQUEST")
        payment.asked_minor = amount_minor
        if amount_minor == payment.paid_minor:
            return self._closed(payment, "REDUCED")
        standing = self.outcome(payment)
        return Accepted() if isinstance(standing, Declined) else standing

    async def settle_elsewhere(self, debit: DebitRef, paid_at: datetime) -> Outcome:
        """It ends, unless it was paid."""
        return self._close(debit, "PAID_ELSEWHERE")

    async def close_debit(self, debit: DebitRef) -> Outcome:
        """It ends, where the account closes debits."""
        return self._close(debit, "CLOSED")

    async def nudge_debit(self, debit: DebitRef) -> Outcome:
        """Tried at once."""
        payment = self.payments.get(debit.key)
        if payment is None or not self.capabilities.nudges:
            return NotFound() if payment is None else Rejected("NOT_POSSIBLE")
        if payment.state == "accepted":
            self.decide(payment)
        return self.outcome(payment)

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """A page on which the rider pays the very number."""
        known = self._remembered(request, shown=True)
        if isinstance(known, Outcome):
            return known
        payment = known or self._made(request, "shown")
        if payment.state in ("accepted", "declined", "shown"):
            payment.shown = True
            return NeedsRider(MUST_PAY, PAGE)
        standing = self.outcome(payment)
        return AlreadyDone() if isinstance(standing, Succeeded) else standing

    async def refund(self, request: RefundRequest) -> Outcome:
        """The key gives back once; one that failed for now is tried again."""
        known = self.givings.get(request.key)
        if known is not None and (known.state != "failed" or known.final):
            return self.refund_outcome(known)
        payment = self.payments.get(request.debit.key)
        if payment is None:
            return NotFound()
        part = self._whole(payment)
        code = self.refusal(payment, part, request.amount_minor)
        if code is not None or part is None:
            return Rejected(code or "REFUND_TOO_MUCH")
        return self.refund_outcome(self.give(request.key, payment, part, request.amount_minor))

    async def get_refund(self, refund: RefundRef) -> Outcome:
        """As it stands."""
        known = self.givings.get(refund.key)
        return NotFound() if known is None else self.refund_outcome(known)

    async def report_performance(self, debit: DebitRef, record: Literal["completed", "violated"], key: str) -> Outcome:
        """Kept."""
        self.reports.setdefault(key, record)
        return Accepted()

    # ------------------------------------------------------------------ books

    def outcome(self, payment: Payment) -> Outcome:
        """See Teller."""
        match payment.state:
            case "paid":
                return Succeeded(payment.paid_minor, payment.ref)
            case "accepted":
                return Succeeded(payment.paid_minor, payment.ref) if payment.taken else Accepted(payment.ref)
            case "closed":
                return Closed(payment.code)
            case "shown":
                return NeedsRider(MUST_PAY, PAGE)
            case "declined":
                return Declined(payment.code == SHORT, payment.code)
        return Unknown("idle")

    def refund_outcome(self, giving: Giving) -> Outcome:
        """See Teller."""
        match giving.state:
            case "paid":
                return Succeeded(giving.amount_minor, giving.ref)
            case "failed" | "returned":
                return Declined(giving.code == "BALANCE_SHORT", giving.code)
        return Accepted(giving.ref)

    def decide(self, payment: Payment) -> None:
        """See Teller."""
        rest, roll = payment.asked_minor - payment.paid_minor, self.dice.roll(6)
        retries = self.capabilities.provider_retries
        if self.declines or roll in (1, 2) or (self.revoked and not payment.hold):
            over = roll == 2 or (self.revoked and not payment.hold)
            if not (retries or payment.taken):
                payment.state, payment.code = "declined", LIMIT if over else SHORT
        elif roll == 3 and self.capabilities.partial_debit and rest > 1:
            self.bring(payment, (rest + 1) // 2)
            payment.state = "accepted"
        elif roll == 4 and self.capabilities.closes_unpaid and not payment.taken and payment.state == "accepted":
            payment.state, payment.code = "closed", "GIVEN_UP"
        else:
            self.bring(payment, rest)
        self.tell(payment)

    def rider_pays(self, payment: Payment) -> None:
        """See Teller."""
        super().rider_pays(payment)
        payment.ref = payment.ref or self.number("B")

    def _whole(self, payment: Payment) -> Taken | None:
        """The sandbox gives back of a number, not of its parts: they are one."""
        if len(payment.taken) > 1:
            whole = payment.taken[0]
            whole.back_minor = payment.back_minor
            whole.amount_minor, whole.at = payment.paid_minor, max(one.at for one in payment.taken)
            del payment.taken[1:]
        return payment.taken[0] if payment.taken else None

    def _remembered(self, request: DebitRequest, *, shown: bool = False) -> Payment | Outcome | None:
        """The payment of the key, for as long as keys are remembered; another request under it is a conflict. Where
        each attempt has the same key, and of what a rider is shown, the number is known for good."""
        known = self.payments.get(request.key)
        if known is None:
            return None
        forgets = self.capabilities.new_key_after_decline and not shown
        if forgets and self.now() >= known.made_at + self.capabilities.same_key_window:
            self.old.append(self.payments.pop(request.key))
            return None
        hold = request.hold.key if request.hold else None
        if (known.asked_minor, known.hold) == (request.amount_minor, hold):
            return known
        less = known.paid_minor < request.amount_minor < known.asked_minor and known.hold == hold
        if less and self.capabilities.reduces_declined and known.state == "declined":
            known.asked_minor = request.amount_minor
            return known
        return Conflict("KEY_CONFLICT")

    def _may_again(self, known: Payment) -> bool:
        return known.state == "declined" and known.code == SHORT and not self.capabilities.new_key_after_decline

    def _refused(self, request: DebitRequest) -> Outcome | None:
        """Why nothing is taken."""
        able = self.capabilities
        if request.amount_minor < able.debit_min_minor:
            return Rejected("INVALID_REQUEST")
        if not able.hold_needed and self.revoked:
            return Declined(False, "AGREEMENT_REVOKED")
        if not able.hold_needed:
            return CapExceeded(self.cap_minor) if request.amount_minor > self.cap_minor else None
        if request.hold is None:
            return Rejected("HOLD_NEEDED")
        order = self.orders.get(request.hold.key)
        if order is None or order.state != "open":
            return Declined(False, "HOLD_CLOSED")
        on_it = self.on_hold(order.key)
        if on_it and not able.further_debit:
            return Rejected("NOT_POSSIBLE")
        left = order.cap_minor - sum(one.paid_minor if one.state == "closed" else one.asked_minor for one in on_it)
        return CapExceeded(left) if request.amount_minor > left else None

    def _made(self, request: DebitRequest, state: Literal["idle", "shown"] = "idle") -> Payment:
        hold = request.hold.key if request.hold else None
        made = Payment(request.key, request.key, request.amount_minor, self.now(), state, hold=hold)
        made.ref = self.number("B")
        self.payments[request.key] = made
        return made

    def _close(self, debit: DebitRef, code: str) -> Outcome:
        payment = self.payments.get(debit.key)
        if payment is None:
            return NotFound()
        if payment.state == "closed":
            return Closed(payment.code)
        if not self.capabilities.closes_unpaid and code == "CLOSED" and payment.state != "shown":
            return Rejected("NOT_POSSIBLE")
        return AlreadyDone() if payment.state == "paid" else self._closed(payment, code)

    def _closed(self, payment: Payment, code: str) -> Outcome:
        """What was taken stays taken: it ends as paid, at that amount."""
        payment.state, payment.code = ("paid", "") if payment.taken else ("closed", code)
        payment.asked_minor = payment.paid_minor or payment.asked_minor
        self.tell(payment)
        return self.outcome(payment)

    def _at_best(self, outcome: Outcome) -> Outcome:
        """From a provider that retries by itself an answer is at best Accepted."""
        retries = self.capabilities.provider_retries and isinstance(outcome, Succeeded)
        return Accepted(outcome.provider_ref) if retries and isinstance(outcome, Succeeded) else outcome
