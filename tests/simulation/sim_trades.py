"""Alipay in memory, both products: trades by their out_trade_no, strings that are nothing before a rider opens them.

What its adapter makes of Alipay's answers is written down once more, by hand: adapters/providers/alipay.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
from sim_held import HoldsTeller
from sim_teller import CURRENCY, Giving, Held, Notice, Order, Payment

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
    Declined,
    NeedsRider,
    NotFound,
    Outcome,
    Rejected,
    SignString,
    Succeeded,
    Unknown,
)

LIFE = timedelta(days=15)
"""After which an unpaid trade is closed."""
STRING = SignString("order_string")
VOID_BEFORE = timedelta(minutes=1)


class Slip(msgspec.Struct):
    """A string that a rider was given: of what it would make a trade when he opens it."""

    number: str
    key: str
    amount_minor: int
    hold: str | None
    void_at: datetime


class TradeTeller(HoldsTeller):
    """What both products do alike; `payments` by out_trade_no."""

    zhima = False

    @property
    def slips(self) -> list[Slip]:
        """All strings that were ever given."""
        if not hasattr(self, "_slips"):
            self._slips: list[Slip] = []
        return self._slips

    # ------------------------------------------------------------------ debits

    async def get_debit(self, debit: DebitRef) -> Outcome:
        """How its trade stands."""
        number, trade = self._payable(debit)
        if trade is None:
            return NotFound()
        outcome = self._meaning(trade)
        if outcome is not None:
            return outcome
        if trade.asked_minor != debit.amount_minor:
            return Conflict("total_amount")
        alone = number.endswith("_B") or debit.hold is None
        if alone:
            return NeedsRider("WAIT_BUYER_PAY")
        return Accepted(trade.ref) if self.zhima else Declined(True, "WAIT_BUYER_PAY")

    async def reduce_debit(self, debit: DebitRef, amount_minor: int) -> Outcome:
        """No debit is lowered."""
        return await self.close_debit(debit) if amount_minor <= 0 else Rejected("NOT_POSSIBLE")

    async def close_debit(self, debit: DebitRef) -> Outcome:
        """Closed unless it was paid."""
        _, trade = self._payable(debit)
        if trade is None:
            return NotFound()
        meaning = self._meaning(trade)
        if meaning is not None:
            return AlreadyDone() if isinstance(meaning, Succeeded) else meaning
        trade.state = "closed"
        self.tell(trade)
        return Closed()

    async def settle_elsewhere(self, debit: DebitRef, paid_at: datetime) -> Outcome:
        """Told, then closed."""
        return await self.close_debit(debit)

    async def nudge_debit(self, debit: DebitRef) -> Outcome:
        """There is no such call."""
        return Rejected("NOT_POSSIBLE")

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """A string, of which Alipay hears when the rider opens it."""
        number, trade = self._payable(request)
        if trade is not None and trade.number == number:
            meaning = self._meaning(trade)
            if meaning is not None:
                return AlreadyDone() if isinstance(meaning, Succeeded) else meaning
        hold = request.hold.key if request.hold is not None else None
        void_at = (request.payable_until or self.now() + LIFE) - VOID_BEFORE
        self.slips.append(Slip(number, request.key, request.amount_minor, hold, void_at))
        return NeedsRider("RIDER_MUST_PAY", STRING)

    async def report_performance(self, debit: DebitRef, record: Literal["completed", "violated"], key: str) -> Outcome:
        """Kept, of a trade that is there."""
        trade = self._trade(self._number(debit))
        if trade is None:
            return NotFound()
        self.reports.setdefault(key, record)
        return Accepted(trade.ref)

    def _number(self, debit: DebitRef | DebitRequest) -> str:
        """One order is one collection, at Zhima."""
        if not self.zhima or debit.hold is None:
            return debit.key
        order = self.orders.get(debit.hold.key)
        return debit.hold.provider_ref or (order.ref if order is not None else debit.key)

    def _payable(self, debit: DebitRef | DebitRequest) -> tuple[str, Payment | None]:
        """The number under which it is or can still be paid: a second one once the first was closed unpaid."""
        number = self._number(debit)
        trade = self._trade(number)
        if trade is None or not isinstance(self._meaning(trade), Closed):
            return number, trade
        return f"{debit.key}_B", self._trade(f"{debit.key}_B") or trade

    def _trade(self, number: str) -> Payment | None:
        """A trade, which is closed when its time is over."""
        trade = self.payments.get(number)
        if trade is not None and trade.state in ("accepted", "declined", "shown"):
            over = self.now() > trade.made_at + LIFE or (trade.until is not None and self.now() > trade.until)
            if over:
                trade.state = "closed"
                self.tell(trade)
        return trade

    def _meaning(self, trade: Payment) -> Outcome | None:
        """None: it waits for its buyer."""
        match trade.state:
            case "paid":
                return Succeeded(trade.paid_minor, trade.ref)
            case "closed":
                return Closed("TRADE_CLOSED")
        return None

    def _refused(self, trade: Payment) -> Outcome:
        """What a further trade.pay of what is over means."""
        return AlreadyDone() if trade.state == "paid" else Closed("ACQ.TRADE_HAS_CLOSE")

    # ------------------------------------------------------------------ riders

    def payable(self) -> list[Payment]:
        """Trades that wait for him, and those that strings would make."""
        for slip in self.slips:
            if self.now() >= slip.void_at:
                continue
            trade = self._trade(slip.number)
            if trade is None:
                hold = slip.hold if self.zhima else None
                made = Payment(
                    slip.number, slip.key, slip.amount_minor, self.now(), "idle", hold=hold, until=slip.void_at
                )
                made.ref = self.number("T")
                self.slips.remove(slip)
                self.slips.append(slip)
                return [*self._open(), made]
            if trade.asked_minor == slip.amount_minor:
                trade.shown = True
        return self._open()

    def _open(self) -> list[Payment]:
        trades = [self._trade(number) for number in list(self.payments)]
        waiting = [one for one in trades if one is not None and one.state in ("accepted", "declined", "shown")]
        return [one for one in waiting if one.shown or one.state == "accepted"]

    def rider_pays(self, payment: Payment) -> None:
        """He opens it, and pays it, or leaves it open."""
        opened = payment.state == "idle"
        if opened:
            payment.state, payment.shown = "shown", True
            self.payments[payment.number] = payment
        if opened and self.dice.roll(3) == 1:
            return
        super().rider_pays(payment)
        self._done(payment)

    # ------------------------------------------------------------------ books

    def outcome(self, payment: Payment) -> Outcome:
        """See Teller: as notifications tell it."""
        return self._meaning(payment) or Unknown("trade_status WAIT_BUYER_PAY")

    def named(self, payment: Payment) -> tuple[str, NamedBy]:
        """See Teller."""
        is_order = self.zhima and payment.hold is not None and payment.number == self.orders[payment.hold].ref
        return (payment.number, "hold_ref") if is_order else (payment.key, "key")

    def decide(self, payment: Payment) -> None:
        """See Teller: Zhima collects by itself."""
        if self._trade(payment.number) is not payment or payment.state != "accepted":
            return
        if self.declines or self.dice.roll(3) == 1:
            return
        self.bring(payment, payment.asked_minor)
        self._done(payment)
        self.tell(payment)

    def _done(self, payment: Payment) -> None:
        """A paid debit ends its order."""
        if payment.hold is not None and payment.state == "paid":
            self.orders[payment.hold].state = "completed"

    # ------------------------------------------------------------------ refunds and complaints

    async def refund(self, request: RefundRequest) -> Outcome:
        """A repeat is told as done where it is, else as under way."""
        trade = self._of_refund(request.debit)
        if trade is None:
            return NotFound()
        known = self.givings.get(request.key)
        if known is not None and known.state != "failed":
            return Succeeded(known.amount_minor, request.key) if known.state == "paid" else Accepted(request.key)
        if not trade.taken:
            return Rejected("ACQ.TRADE_STATUS_ERROR")
        code = self.refusal(trade, trade.taken[0], request.amount_minor)
        if code is not None:
            late = code == "REFUND_TOO_LATE"
            return Declined(False, "ACQ.TRADE_HAS_FINISHED") if late else Rejected("ACQ.REASON_TRADE_REFUND_FEE_ERR")
        if self.dice.odd(6):
            return Declined(True, "ACQ.SELLER_BALANCE_NOT_ENOUGH")
        made = self.give(request.key, trade, trade.taken[0], request.amount_minor)
        return Succeeded(made.amount_minor, request.key) if made.state == "paid" else Accepted(request.key)

    async def get_refund(self, refund: RefundRef) -> Outcome:
        """Without a state there is none, or it failed, or it is under way."""
        known = self.givings.get(refund.key)
        done = known is not None and known.state == "paid" and self._of_refund(refund.debit) is known.payment
        return Succeeded(known.amount_minor, refund.key) if done and known is not None else NotFound()

    def refund_outcome(self, giving: Giving) -> Outcome:
        """See Teller: as notifications tell it."""
        return Unknown("Alipay says it was refunded")

    def _of_refund(self, debit: DebitRef) -> Payment | None:
        if debit.provider_ref is not None:
            return next((one for one in self.payments.values() if one.ref == debit.provider_ref), None)
        return self._trade(self._payable(debit)[0])

    def dispute_status(self, held: Held) -> DisputeStatus:
        """See Teller."""
        key, named_by = self.named(held.payment)
        about = (held.payment.ref, held.kind, held.state, held.payment.asked_minor, CURRENCY, held.ref)
        return DisputeStatus(*about, None, None, None, key, named_by)


class ZhimaTeller(TradeTeller):
    """芝麻先享: a debit on the ride's order is collected by Alipay itself."""

    zhima = True

    async def debit(self, request: DebitRequest) -> Outcome:
        """Taken on; without an order it is the rider's to approve."""
        if request.hold is None:
            return await self.request_payment(request)
        order = self.orders.get(request.hold.key)
        if order is None or order.state == "refused":
            return Rejected("ORDER_NOT_EXIST")
        trade = self._trade(order.ref)
        if trade is not None and trade.state in ("paid", "closed"):
            return self._refused(trade)
        if trade is not None and trade.asked_minor != request.amount_minor:
            return Conflict("ACQ.CONTEXT_INCONSISTENT")
        if trade is not None:
            trade.state = "accepted"
            return Accepted(trade.ref)
        if order.state != "open":
            return Closed("ACQ.TRADE_HAS_CLOSE")
        if request.amount_minor > order.cap_minor:
            return CapExceeded(order.cap_minor)
        made = Payment(order.ref, request.key, request.amount_minor, self.now(), "accepted", hold=order.key)
        made.ref = self.number("T")
        self.payments[order.ref] = made
        if self.dice.odd(3):
            self.decide(made)
        return Accepted(made.ref)

    async def release_hold(self, hold: HoldRef) -> HoldAnswer:
        """Cancelled, unless a trade waits on it or was paid."""
        return self._ended(hold, "released")

    async def finish_hold(self, hold: HoldRef) -> HoldAnswer:
        """Done."""
        return self._ended(hold, "completed")

    def _ended(self, hold: HoldRef, state: Literal["released", "completed"]) -> HoldAnswer:
        order = self.orders.get(hold.key)
        if order is None:
            return NotFound()
        trade = self._trade(order.ref)
        waits = trade is not None and trade.state in ("accepted", "declined", "shown")
        if order.state == "open" and not waits:
            order.state = state
        return self.hold_status(order)


class PreauthTeller(TradeTeller):
    """Pre-authorisation: the rider confirms a freeze, we debit it, and try again."""

    async def debit(self, request: DebitRequest) -> Outcome:
        """Paid from the freeze; one that fails leaves its trade open."""
        if request.hold is None:
            return await self.request_payment(request)
        order, trade = self.orders.get(request.hold.key), self._trade(request.key)
        if order is None:
            return Declined(False, "AUTH_ORDER_NOT_EXIST")
        if order.state in ("pending", "released", "expired"):
            return Declined(False, "AUTH_CLOSED")
        if order.state == "open" and request.amount_minor > order.cap_minor:
            return CapExceeded(order.cap_minor)
        if trade is not None and trade.state in ("paid", "closed"):
            return self._refused(trade)
        if trade is not None and trade.asked_minor != request.amount_minor:
            return Conflict("ACQ.CONTEXT_INCONSISTENT")
        if order.state != "open":
            return Declined(False, "ACQ.AGREEMENT_NOT_EXIST")
        made = trade or Payment(request.key, request.key, request.amount_minor, self.now(), "declined", hold=order.key)
        made.ref, made.hold = made.ref or self.number("T"), order.key
        self.payments[request.key] = made
        roll = self.dice.roll(5)
        if self.declines or roll in (1, 2, 3):
            made.state = "declined"
            final = roll == 3 or (roll == 2 and request.attempt > 1)
            return Declined(not final, "ACQ.PAYMENT_FAIL" if roll != 1 else "ACQ.BUYER_BALANCE_NOT_ENOUGH")
        self.bring(made, made.asked_minor)
        self._done(made)
        self.tell(made)
        return Succeeded(made.paid_minor, made.ref)

    def hold_status(self, order: Order) -> HoldStatus:
        """See HoldsTeller: a string to confirm it by."""
        status = super().hold_status(order)
        return msgspec.structs.replace(status, action=STRING) if order.state == "pending" else status

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        """Of a string that nobody has opened Alipay knows nothing."""
        order = self.orders.get(hold.key)
        if order is not None and order.state == "pending" and self.dice.roll(2) == 1:
            return NotFound()
        return await super().get_hold(hold)

    def confirm(self, order: Order, *, refuses: bool = False) -> None:
        """See HoldsTeller: who does not want it lets it be."""
        if refuses:
            order.state = "expired"
            return
        super().confirm(order)
        self.notices.append(Notice("hold", order.key, self.hold_status(order)))
