"""The holds of a provider in memory (sim_teller): open at once, confirmed by the rider, refused, over."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from sim_teller import Order, Payment, Teller

from service.adapters.providers.port import DebitRef, DebitRequest, HoldRef, HoldRequest
from service.billing.agreements.standing import HoldAnswer, HoldStatus
from service.billing.outcomes import Conflict, NotFound, OpenUrl, Outcome

PAGE = OpenUrl("https://pay")
CONFIRMED_WITHIN = timedelta(minutes=15)


class HoldsTeller(Teller):
    """A provider of holds by our key; each of its faces has the rest of the port that histories call."""

    async def get_debit(self, debit: DebitRef) -> Outcome:
        """How a debit stands."""
        raise NotImplementedError

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """What the rider is given to pay."""
        raise NotImplementedError

    async def open_hold(self, request: HoldRequest) -> HoldAnswer:
        """Open at once, confirmed by the rider first, or refused."""
        known = self.orders.get(request.key)
        if known is not None and known.state != "refused":
            return self.hold_status(known)
        order = known or Order(
            request.key, self.number("H"), min(request.cap_minor, self.cap_minor), "open", self.now()
        )
        roll = 0 if known is not None and not known.retryable else self.dice.roll(8)
        order.state, order.code, order.retryable = "open", "", False
        if roll in (5, 6):
            order.state, order.code, order.retryable = "refused", "TOO_MANY_HOLDS", roll == 5
        elif self.capabilities.hold_confirmed_by_rider:
            order.state = "pending"
        self.orders[request.key] = order
        return self.hold_status(order)

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        """As it stands."""
        order = self.orders.get(hold.key)
        late = order is not None and self.now() > order.made_at + CONFIRMED_WITHIN and not self.declines
        if order is not None and order.state == "pending" and late:
            order.state = "expired"
        return NotFound() if order is None else self.hold_status(order)

    async def release_hold(self, hold: HoldRef) -> HoldAnswer:
        """Given up, unless something was or is being debited on it."""
        return self._end(hold, "released")

    async def finish_hold(self, hold: HoldRef) -> HoldAnswer:
        """Completed, unless something is being debited on it."""
        return self._end(hold, "completed")

    def hold_status(self, order: Order) -> HoldStatus:
        """How a hold stands."""
        action = PAGE if order.state == "pending" else None
        return HoldStatus(order.state, order.ref, order.cap_minor, None, action, order.code or None, order.retryable)

    def confirm(self, order: Order, *, refuses: bool = False) -> None:
        """The rider confirms a hold, or does not want it."""
        order.state, order.code, order.retryable = "open", "", False
        if refuses:
            order.state, order.code = "refused", "RIDER_REFUSED"

    def on_hold(self, key: str) -> list[Payment]:
        """What was asked for on a hold."""
        return [payment for payment in self.payments.values() if payment.hold == key]

    def _end(self, hold: HoldRef, state: Literal["released", "completed"]) -> HoldAnswer:
        order = self.orders.get(hold.key)
        if order is None:
            return NotFound()
        if order.state in ("pending", "open"):
            on_it = self.on_hold(hold.key)
            if any(payment.state == "accepted" for payment in on_it):
                return Conflict("DEBIT_NOT_FINAL")
            if state == "released" and any(payment.taken for payment in on_it):
                return Conflict("WRONG_STATE")
            order.state = state
        return self.hold_status(order)
