"""A provider of one ride's payments in memory, which is honest: what it says is what its own books say at that moment.

It knows nothing of our rules. `Teller` keeps the books (what was taken under which number, given back, charged back)
and tells of every change; how a product behaves is said by its faces (sim_cards, sim_stripe, sim_score, sim_trades).
What is by chance is drawn from the dice of the act that is played: 0 is what goes well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from service.adapters.providers.port import DisputeStatus, MerchantAccount, NamedBy
from service.billing.agreements.standing import HoldStatus
from service.billing.capabilities import Capabilities
from service.billing.outcomes import Outcome

PaymentState = Literal["idle", "accepted", "declined", "shown", "paid", "closed"]
RefundState = Literal["pending", "abnormal", "paid", "failed", "returned"]
CURRENCY = "CNY"


class Dice:
    """What chance gives to one act; what is not written is 0."""

    def __init__(self, draws: Sequence[int] = ()) -> None:
        self._draws = list(reversed(draws))

    def roll(self, sides: int) -> int:
        """One of so many sides."""
        return self._draws.pop() % sides if self._draws and sides else 0

    def odd(self, one_in: int) -> bool:
        """Whether what is seldom happens."""
        return self.roll(one_in) == one_in - 1


class Taken(msgspec.Struct):
    """A payment of a rider's; `back_minor` is given back or being given back."""

    ref: str
    amount_minor: int
    at: datetime
    back_minor: int = 0


class Payment(msgspec.Struct):
    """What is collected under one number: at most `asked_minor`.

    idle: nothing was tried · accepted: the provider goes on by itself · declined: it may be tried again or paid by its
    rider · shown: the rider alone can pay it. `until`: when what the rider was shown is void.
    """

    number: str
    key: str
    asked_minor: int
    made_at: datetime
    state: PaymentState = "idle"
    code: str = ""
    ref: str = ""
    taken: list[Taken] = []
    hold: str | None = None
    until: datetime | None = None
    shown: bool = False
    final: bool = False

    @property
    def paid_minor(self) -> int:
        """All that was taken."""
        return sum(one.amount_minor for one in self.taken)

    @property
    def back_minor(self) -> int:
        """All that was given back, or is being given back."""
        return sum(one.back_minor for one in self.taken)


class Giving(msgspec.Struct):
    """A refund by its key."""

    key: str
    payment: Payment
    part: Taken
    amount_minor: int
    ref: str
    made_at: datetime
    state: RefundState = "pending"
    code: str = ""
    final: bool = False


class Held(msgspec.Struct):
    """A dispute; a chargeback's money is with the bank while it is open, and for good when it is lost."""

    ref: str
    payment: Payment
    kind: Literal["complaint", "chargeback"]
    amount_minor: int
    at: datetime
    state: Literal["opened", "won", "lost", "resolved"] = "opened"
    fee_minor: int = 0

    @property
    def stands(self) -> bool:
        """Whether a bank has the money."""
        return self.kind == "chargeback" and self.state in ("opened", "lost")


class Order(msgspec.Struct):
    """A hold by our key."""

    key: str
    ref: str
    cap_minor: int
    state: Literal["pending", "open", "refused", "completed", "released", "expired"]
    made_at: datetime
    code: str = ""
    retryable: bool = False


class Notice(msgspec.Struct, frozen=True):
    """What a notification says, as of when it was sent."""

    about: Literal["debit", "refund", "hold", "dispute"]
    key: str
    told: Outcome | HoldStatus | DisputeStatus
    named_by: NamedBy = "key"

    def line(self) -> str:
        """In short."""
        return f"{self.about} {self.key[-6:]} {msgspec.structs.asdict(self.told)}"


class Teller:
    """The books of one account; what differs between products is in its faces.

    `declines`: nothing can be collected any more (the rider is poor); `fault`: with what is answered whatever would
    move money, which is not done, until people have put it right; `cap_minor`: the most that one order or debit may
    come to here.
    """

    def __init__(self, capabilities: Capabilities, now: Callable[[], datetime]) -> None:
        self.account = MerchantAccount(1, "till", "sandbox", "", {})
        self.capabilities = capabilities
        self.now = now
        self.dice = Dice()
        self.payments: dict[str, Payment] = {}
        self.old: list[Payment] = []
        self.givings: dict[str, Giving] = {}
        self.disputes: list[Held] = []
        self.orders: dict[str, Order] = {}
        self.notices: list[Notice] = []
        self.reports: dict[str, str] = {}
        self.revoked = False
        self.declines = False
        self.fault: Outcome | None = None
        self.cap_minor = 100_000
        self._numbers = 0

    @property
    def refunds_return(self) -> bool:
        """Whether what was given back may come back."""
        return False

    # ------------------------------------------------------------------ what a product says in its own way

    def outcome(self, payment: Payment) -> Outcome:
        """How a payment stands, as an answer says it."""
        raise NotImplementedError

    def named(self, payment: Payment) -> tuple[str, NamedBy]:
        """How a notification names a payment."""
        return payment.key, "key"

    def refund_outcome(self, giving: Giving) -> Outcome:
        """How a refund stands."""
        raise NotImplementedError

    def payable(self) -> list[Payment]:
        """What its rider could pay at this moment, by what he was shown."""
        return [one for one in self.payments.values() if one.state in ("accepted", "declined", "shown") and one.shown]

    def undecided(self) -> list[Payment]:
        """What the provider may decide by itself at any moment."""
        return [one for one in self.payments.values() if one.state == "accepted"]

    def decide(self, payment: Payment) -> None:
        """The provider collects, declines, gives up."""
        raise NotImplementedError

    def at_desk(self, dice: Dice) -> None:
        """What the merchant's own people end there, where they can."""

    # ------------------------------------------------------------------ money

    def number(self, kind: str) -> str:
        """A number of the provider's own."""
        self._numbers += 1
        return f"{kind}{self._numbers:04d}"

    def all_payments(self) -> list[Payment]:
        """Those under a number that was used twice, too."""
        return [*self.old, *self.payments.values()]

    def bring(self, payment: Payment, amount_minor: int) -> None:
        """Money of the rider's reaches the merchant."""
        assert 0 < amount_minor <= payment.asked_minor - payment.paid_minor, "the model takes more than was asked for"
        payment.taken.append(Taken(self.number("P"), amount_minor, self.now()))
        if payment.paid_minor == payment.asked_minor:
            payment.state, payment.code = "paid", ""

    def rider_pays(self, payment: Payment) -> None:
        """He pays what is left."""
        self.bring(payment, payment.asked_minor - payment.paid_minor)
        self.tell(payment)

    def tell(self, payment: Payment) -> None:
        """Sends a notification of how a payment stands."""
        self.notices.append(Notice("debit", self.named(payment)[0], self.outcome(payment), self.named(payment)[1]))

    def taken_by_key(self) -> dict[str, int]:
        """All that was ever taken, by our keys."""
        sums: dict[str, int] = {}
        for payment in self.all_payments():
            sums[payment.key] = sums.get(payment.key, 0) + payment.paid_minor
        return {key: amount for key, amount in sums.items() if amount}

    def taken_minor(self) -> int:
        """All that was ever taken."""
        return sum(payment.paid_minor for payment in self.all_payments())

    def back_minor(self) -> int:
        """All that the rider was given back, and has."""
        return sum(giving.amount_minor for giving in self.givings.values() if giving.state == "paid")

    def banks_minor(self) -> int:
        """What banks have."""
        return sum(held.amount_minor for held in self.disputes if held.stands)

    def fees_minor(self) -> int:
        """What the provider keeps for disputes."""
        return sum(held.fee_minor for held in self.disputes)

    # ------------------------------------------------------------------ refunds

    def refusal(self, payment: Payment, part: Taken | None, amount_minor: int) -> str | None:
        """Why a refund can't be made at all."""
        window = self.capabilities.refund_window
        if any(held.payment is payment and held.stands for held in self.disputes):
            return "REFUND_DISPUTED"
        if part is None or amount_minor > part.amount_minor - part.back_minor:
            return "REFUND_TOO_MUCH"
        return "REFUND_TOO_LATE" if window is not None and self.now() > part.at + window else None

    def give(self, key: str, payment: Payment, part: Taken, amount_minor: int) -> Giving:
        """A refund begins: done at once, later, or in vain."""
        known = self.givings.get(key)
        made = known or Giving(key, payment, part, amount_minor, self.number("R"), self.now())
        made.state, made.code = "pending", ""
        part.back_minor += amount_minor
        self.givings[key] = made
        if self.dice.roll(3) != 1:
            self.decide_refund(made)
        return made

    def decide_refund(self, giving: Giving) -> None:
        """What becomes of a refund that is under way."""
        roll = self.dice.roll(8)
        if roll in (5, 6) and giving.state == "pending":
            self._refund_fails(giving, final=roll == 6)
        else:
            giving.state = "paid"
        self.notices.append(Notice("refund", giving.key, self.refund_outcome(giving)))

    def _refund_fails(self, giving: Giving, *, final: bool) -> None:
        giving.state, giving.code, giving.final = "failed", "ACCOUNT_CLOSED" if final else "BALANCE_SHORT", final
        giving.part.back_minor -= giving.amount_minor

    def come_back(self, giving: Giving) -> None:
        """The rider's bank does not take what he was given."""
        giving.state, giving.code, giving.final = "returned", "REFUND_RETURNED", True
        giving.part.back_minor -= giving.amount_minor
        self.notices.append(Notice("refund", giving.key, self.refund_outcome(giving)))

    def returnable(self) -> list[Giving]:
        """Refunds that may still come back: cards', within thirty days."""
        since = self.now() - timedelta(days=30)
        return [one for one in self.givings.values() if one.state == "paid" and one.made_at > since]

    # ------------------------------------------------------------------ disputes

    def left_minor(self, payment: Payment) -> int:
        """What a bank could still take of a payment."""
        banks = sum(held.amount_minor for held in self.disputes if held.payment is payment and held.stands)
        return payment.paid_minor - payment.back_minor - banks

    def dispute(self, payment: Payment, kind: Literal["complaint", "chargeback"], amount_minor: int) -> Held:
        """A rider or his bank objects."""
        held = Held(self.number("D"), payment, kind, amount_minor, self.now())
        self.disputes.append(held)
        self.tell_dispute(held)
        return held

    def end_dispute(self, held: Held, state: Literal["won", "lost", "resolved"]) -> None:
        """It is over, or its end is reversed."""
        held.state, held.at = state, self.now()
        self.tell_dispute(held)

    def tell_dispute(self, held: Held) -> None:
        """Sends a notification of how a dispute stands."""
        self.notices.append(Notice("dispute", held.ref, self.dispute_status(held)))

    def dispute_status(self, held: Held) -> DisputeStatus:
        """How a dispute stands, named by the provider's number of its payment."""
        ref = held.payment.ref or (held.payment.taken[0].ref if held.payment.taken else "")
        return DisputeStatus(ref, held.kind, held.state, held.amount_minor, CURRENCY, held.ref)

    def tell_again(self) -> None:
        """What nobody else asks about is told once more."""
        for held in self.disputes:
            self.tell_dispute(held)
        for giving in self.givings.values():
            if giving.state == "returned":
                self.notices.append(Notice("refund", giving.key, self.refund_outcome(giving)))
