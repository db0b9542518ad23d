"""WeChat Pay Score in memory: one order is one hold and one collection, in parts; other payments are the rider's own.

What its adapter makes of WeChat Pay's answers is written down once more, by hand: adapters/providers/wechatpay.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sim_held import HoldsTeller
from sim_teller import CURRENCY, Dice, Giving, Held, Notice, Order, Payment, Taken

from service.adapters.providers.port import (
    DebitRef,
    DebitRequest,
    DisputeStatus,
    HoldRef,
    NamedBy,
    RefundRef,
    RefundRequest,
)
from service.billing.agreements.standing import HoldAnswer, HoldStatus
from service.billing.outcomes import (
    Accepted,
    AlreadyDone,
    CapExceeded,
    Closed,
    Conflict,
    MiniProgram,
    NeedsRider,
    NotFound,
    Outcome,
    Part,
    Postponed,
    Rejected,
    Succeeded,
    Unknown,
)

PAGE = MiniProgram("wx", "pages/pay")
MUST_PAY = "RIDER_MUST_PAY"
PAID_ELSEWHERE, REVOKED = Closed("PAID_ELSEWHERE", "paid"), Closed("REVOKED", "cancelled")
PREPAID_FOR = timedelta(hours=2)
"""How long a rider may begin a payment of a prepay_id."""
OWN_FOR = timedelta(days=7)
"""After which a payment of his own that he has not made is closed."""
FURTHER = ("", "_B", "_C", "_D", "_E", "_F")
"""What follows our key in the numbers of his own payments, each begun once those before are closed."""
CREATED_FOR = timedelta(hours=1)
"""How long an order waits for its rider (there: longer)."""
APART = timedelta(minutes=1)


class ScoreTeller(HoldsTeller):
    """Orders by our key of the hold; the payment of an order has that as its number, a rider's own our key of it."""

    # ------------------------------------------------------------------ orders

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        """An order that nobody confirms expires."""
        order = self.orders.get(hold.key)
        if order is None or order.state == "refused":
            return NotFound()
        if order.state == "pending" and self.now() > order.made_at + CREATED_FOR and not self.declines:
            order.state = "expired"
        return self.hold_status(order)

    async def release_hold(self, hold: HoldRef) -> HoldAnswer:
        """Cancelled, unless it was completed."""
        order = self.orders.get(hold.key)
        if order is None:
            return NotFound()
        if order.state in ("pending", "open") and hold.key not in self.payments:
            order.state = "released"
        return self.hold_status(order)

    async def finish_hold(self, hold: HoldRef) -> HoldAnswer:
        """Done when it is paid; one that was never completed is cancelled."""
        order = self.orders.get(hold.key)
        if order is not None and order.state in ("pending", "open") and hold.key not in self.payments:
            order.state = "released"
            return HoldStatus("completed", order.ref)
        return NotFound() if order is None else self.hold_status(order)

    async def debit(self, request: DebitRequest) -> Outcome:
        """Completes the order; without one it is a payment that the rider approves."""
        if request.hold is None:
            return self._prepay(request)
        order, known = self.orders.get(request.hold.key), self.payments.get(request.hold.key)
        if order is None or order.state == "refused":
            return Rejected("ORDER_NOT_EXIST")
        if known is not None:
            if known.asked_minor != request.amount_minor:
                return Conflict("271316598")
            return Accepted() if known.state == "accepted" else AlreadyDone()
        if order.state != "open":
            return Unknown("code 271302262")
        if request.amount_minor > order.cap_minor:
            return CapExceeded(order.cap_minor)
        made = Payment(order.key, request.key, request.amount_minor, self.now(), "accepted", hold=order.key, shown=True)
        self.payments[order.key] = made
        if self.dice.odd(3):
            self.decide(made)
        return Accepted()

    async def get_debit(self, debit: DebitRef) -> Outcome:
        """What the order says, or the rider's own payment."""
        if debit.hold is None:
            _, payment = self._payable(debit.key)
            outcome = NotFound() if payment is None else self.outcome(payment)
            other = (
                payment is not None and isinstance(outcome, NeedsRider) and payment.asked_minor != debit.amount_minor
            )
            return Conflict("total") if other else outcome
        outcome = self._order_outcome(debit.hold)
        known = self.payments.get(debit.hold.key)
        other = known is not None and known.asked_minor != debit.amount_minor
        return Conflict("total_amount") if outcome == Accepted() and other else outcome

    async def reduce_debit(self, debit: DebitRef, amount_minor: int) -> Outcome:
        """Lowers what waits for payment, not to nothing."""
        if debit.hold is None:
            return self._close_own(debit) if amount_minor <= 0 else Rejected("NOT_POSSIBLE")
        if amount_minor <= 0:
            return Rejected("NOT_POSSIBLE")
        known = self.payments.get(debit.hold.key)
        if known is not None and known.state == "accepted" and known.paid_minor < amount_minor < known.asked_minor:
            known.asked_minor = amount_minor
            return Accepted()
        state = self._order_outcome(debit.hold)
        if isinstance(state, Accepted):
            same = known is not None and known.asked_minor == amount_minor
            return state if same else Unknown("code 271316657")
        return state if isinstance(state, Succeeded | Closed) else Unknown("code 271316657")

    async def settle_elsewhere(self, debit: DebitRef, paid_at: datetime) -> Outcome:
        """The rest is not collected any more."""
        if debit.hold is None:
            return self._close_own(debit)
        known = self.payments.get(debit.hold.key)
        if known is not None and known.state == "accepted":
            self._stop(known, PAID_ELSEWHERE.code)
            return AlreadyDone() if known.taken else PAID_ELSEWHERE
        return self._over(debit.hold, Unknown("code 271316657"))

    async def close_debit(self, debit: DebitRef) -> Outcome:
        """A completed order is never closed unpaid."""
        return self._close_own(debit) if debit.hold is None else self._over(debit.hold, Rejected("NOT_POSSIBLE"))

    async def nudge_debit(self, debit: DebitRef) -> Outcome:
        """Collected now, perhaps."""
        if debit.hold is None:
            return Rejected("NOT_POSSIBLE")
        known = self.payments.get(debit.hold.key)
        if known is not None and known.state == "accepted":
            self.decide(known)
            return Accepted()
        return self._over(debit.hold, Unknown("code"))

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """The order's own page; of what goes through no order, a payment of his own."""
        if request.hold is None:
            return self._prepay(request)
        state = self._order_outcome(request.hold)
        if isinstance(state, NotFound):
            state = await self.debit(request)
        if isinstance(state, Accepted):
            return NeedsRider(MUST_PAY, PAGE)
        return AlreadyDone() if isinstance(state, Succeeded) else state

    def _order_outcome(self, hold: HoldRef) -> Outcome:
        order, known = self.orders.get(hold.key), self.payments.get(hold.key)
        if order is None or order.state == "refused":
            return NotFound()
        if known is not None:
            return self.outcome(known)
        if order.state in ("released", "completed"):
            return REVOKED
        return Closed("EXPIRED") if order.state == "expired" else NotFound()

    def _over(self, hold: HoldRef, otherwise: Outcome) -> Outcome:
        state, known = self._order_outcome(hold), self.payments.get(hold.key)
        if isinstance(state, Succeeded) and known is not None and known.state == "paid":
            return AlreadyDone()
        return state if isinstance(state, Closed | NotFound) else otherwise

    # ------------------------------------------------------------------ the rider's own payments

    def _prepay(self, request: DebitRequest) -> Outcome:
        if self.capabilities.hold_confirmed_by_rider:
            beside = self.orders.get(request.beside.key) if request.beside is not None else None
            if beside is None or beside.state in ("pending", "refused", "expired"):
                return Rejected("OPENID_UNKNOWN")
        number, known = self._payable(request.key)
        if known is not None and known.number != number:
            known = None
        if known is not None and known.state == "paid":
            return AlreadyDone()
        if known is not None and known.state == "closed":
            return Closed("ORDER_CLOSED")
        if known is not None and known.asked_minor != request.amount_minor:
            return Conflict("OUT_TRADE_NO_USED")
        made = known or Payment(number, request.key, request.amount_minor, self.now(), "shown")
        made.until, made.shown = self.now() + PREPAID_FOR, True
        self.payments[number] = made
        return NeedsRider(MUST_PAY, PAGE)

    def _close_own(self, debit: DebitRef) -> Outcome:
        _, payment = self._payable(debit.key)
        if payment is None:
            return NotFound()
        if payment.state == "paid":
            return AlreadyDone()
        payment.state = "closed"
        return Closed()

    def _payable(self, key: str) -> tuple[str, Payment | None]:
        """The number under which a payment of his own is or can still be made, and that payment, or the one that was
        closed last."""
        number, payment = key, self._own(key)
        for further in FURTHER[1:]:
            if payment is None or payment.state != "closed":
                break
            number = key + further
            payment = self._own(number) or payment
            if payment.number != number:
                break
        return number, payment

    def _own(self, number: str) -> Payment | None:
        """A payment of his own, which is closed when its time is over."""
        payment = self.payments.get(number)
        if payment is not None and payment.state == "shown" and self.now() > payment.made_at + OWN_FOR:
            payment.state = "closed"
        return payment

    # ------------------------------------------------------------------ books

    def outcome(self, payment: Payment) -> Outcome:
        """See Teller."""
        if payment.hold is None:
            if payment.state == "paid":
                return Succeeded(payment.paid_minor, payment.taken[0].ref)
            return Closed("CLOSED") if payment.state == "closed" else NeedsRider("NOTPAY")
        if payment.taken:
            parts = tuple(Part(one.ref, one.amount_minor) for one in payment.taken)
            return Succeeded(payment.paid_minor, parts[0].provider_ref, parts, payment.state == "paid")
        if payment.state == "closed":
            return PAID_ELSEWHERE if payment.code == PAID_ELSEWHERE.code else REVOKED
        return Accepted()

    def named(self, payment: Payment) -> tuple[str, NamedBy]:
        """See Teller."""
        return (payment.key, "key") if payment.hold is None else (payment.hold, "hold")

    def tell(self, payment: Payment) -> None:
        """Of an order only what was paid is told; all else is a reason to ask."""
        told = self.outcome(payment)
        if payment.hold is not None and not isinstance(told, Succeeded):
            told = Unknown("WeChat Pay says it has changed")
        if payment.hold is not None or isinstance(told, Succeeded):
            key, named_by = self.named(payment)
            self.notices.append(Notice("debit", key, told, named_by))

    def payable(self) -> list[Payment]:
        """An order he finds by himself; his own payment while its page is good."""
        own = (one for one in self.payments.values() if one.state in ("accepted", "shown"))
        return [one for one in own if one.until is None or self.now() < min(one.until, one.made_at + OWN_FOR)]

    def rider_pays(self, payment: Payment) -> None:
        """See Teller."""
        super().rider_pays(payment)
        self._done(payment)

    def decide(self, payment: Payment) -> None:
        """See Teller."""
        rest, roll = payment.asked_minor - payment.paid_minor, self.dice.roll(4)
        if self.declines or roll == 1:
            return
        self.bring(payment, (rest + 1) // 2 if roll == 2 else rest)
        self._done(payment)
        self.tell(payment)

    def at_desk(self, dice: Dice) -> None:
        """At the merchant platform: an order is cancelled or marked as paid, a payment of the rider's own is closed."""
        waiting: list[Payment | Order] = [one for one in self.payments.values() if one.state in ("accepted", "shown")]
        waiting += [one for one in self.orders.values() if one.state == "open" and one.key not in self.payments]
        if not waiting:
            return
        one = waiting[dice.roll(len(waiting))]
        if isinstance(one, Order):
            one.state = "released"
        elif one.hold is None:
            one.state = "closed"
        else:
            self._stop(one, REVOKED.code if dice.roll(2) == 1 else PAID_ELSEWHERE.code)

    def _stop(self, payment: Payment, code: str) -> None:
        """The rest is not collected any more."""
        payment.state, payment.code = ("paid", "") if payment.taken else ("closed", code)
        payment.asked_minor = payment.paid_minor or payment.asked_minor
        assert payment.hold is not None
        self.orders[payment.hold].state = "completed"

    def _done(self, payment: Payment) -> None:
        if payment.hold is not None and payment.state == "paid":
            self.orders[payment.hold].state = "completed"

    def confirm(self, order: Order, *, refuses: bool = False) -> None:
        """See HoldsTeller: who does not want an order lets it be."""
        if not refuses:
            super().confirm(order)
            self.notices.append(Notice("hold", order.key, self.hold_status(order)))
        else:
            order.state = "expired"

    # ------------------------------------------------------------------ refunds and complaints

    async def refund(self, request: RefundRequest) -> Outcome:
        """By the number of one payment, which can't give back more than it took."""
        found = self._payment(request.debit, request.amount_minor)
        if not isinstance(found, tuple):
            return found
        payment, part = found
        known = self.givings.get(request.key)
        if known is not None:
            same = known.part is part and known.amount_minor == request.amount_minor
            return self.refund_outcome(known) if same else Conflict("INVALID_REQUEST")
        last = [one.made_at for one in self.givings.values() if one.part is part]
        if last and self.now() < max(last) + APART:
            return Postponed(APART)
        code = self.refusal(payment, part, request.amount_minor)
        if code is not None:
            return Rejected("INVALID_REQUEST")
        return self.refund_outcome(self.give(request.key, payment, part, request.amount_minor))

    async def get_refund(self, refund: RefundRef) -> Outcome:
        """As it stands."""
        known = self.givings.get(refund.key)
        return NotFound() if known is None else self.refund_outcome(known)

    def refund_outcome(self, giving: Giving) -> Outcome:
        """See Teller. What the rider's card does not take stands still."""
        match giving.state:
            case "paid":
                return Succeeded(giving.amount_minor, giving.ref)
            case "abnormal":
                return Accepted(giving.ref, "ABNORMAL")
            case "failed" | "returned":
                return Closed("CLOSED")
        return Accepted(giving.ref)

    def decide_refund(self, giving: Giving) -> None:
        """See Teller."""
        if giving.state == "pending" and self.dice.odd(5):
            giving.state = "abnormal"
            self.notices.append(Notice("refund", giving.key, self.refund_outcome(giving)))
        else:
            super().decide_refund(giving)

    def _payment(self, debit: DebitRef, amount_minor: int) -> tuple[Payment, Taken] | Outcome:
        """The payment that can give the amount back."""
        if debit.hold is None:
            _, own = self._payable(debit.key)
            if debit.provider_ref is None or own is None or not own.taken:
                return Rejected("PAYMENT_UNKNOWN")
            return own, own.taken[0]
        known = self.payments.get(debit.hold.key)
        if known is None:
            return Rejected("NO_SUCH_PAYMENT") if debit.hold.key in self.orders else Rejected("ORDER_NOT_EXIST")
        for part in sorted(known.taken, key=lambda one: one.ref != debit.provider_ref):
            if part.amount_minor >= amount_minor:
                return known, part
        return Postponed(timedelta(minutes=10)) if known.state == "accepted" else Rejected("NO_SUCH_PAYMENT")

    def dispute_status(self, held: Held) -> DisputeStatus:
        """See Teller: an order is named by our number of it, and by what was paid of it."""
        payment = held.payment
        ref = payment.taken[0].ref if payment.taken else ""
        about = (ref, held.kind, held.state, payment.paid_minor, CURRENCY, held.ref, None, None, None)
        return DisputeStatus(*about) if payment.hold is None else DisputeStatus(*about, payment.hold, "hold")
