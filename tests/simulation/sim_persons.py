"""What people do to one ride's debits: what it owes, what they wish, what somebody looks up (sim_acts)."""

from __future__ import annotations

from collections.abc import Callable

from sim_held import HoldsTeller
from sim_news import News
from sim_teller import Dice
from sim_till import Till

from service.billing.debits.events import (
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    GivenBack,
    ImpossibleEventError,
    OperatorDecided,
    PaidElsewhere,
    RefundDecided,
    RefundRefusedError,
    Resumed,
    RetryAsked,
    Suspended,
)
from service.billing.debits.obligations import owed_back_minor
from service.billing.debits.refunds import RefundState
from service.billing.debits.state import Debit, State, waits_for_hold
from service.billing.debits.unanswered import unanswered

NO = (ImpossibleEventError, RefundRefusedError)
"""What people are told when they ask for what can't be."""
AMOUNTS = (1000, 0, 400, 700, 1300, 1, 150, 2000, 1001, 999)


class Persons:
    """Support, riders, operators. What they say of money is what the provider's books say."""

    till: Till
    teller: HoldsTeller
    news: News

    def owe(self, dice: Dice) -> None:
        """What the ride owes is another amount."""
        self.till.owe(AMOUNTS[dice.roll(len(AMOUNTS))])

    def want(self, dice: Dice) -> None:
        """The rider wants to pay."""
        self._wish(dice, lambda debit: self.news.want_payment(debit.ordinal, dice))

    def suspend(self, dice: Dice) -> None:
        """Support stops a debit."""
        self._happens(dice, lambda _: Suspended("s"))

    def resume(self, dice: Dice) -> None:
        """Support lets it go on."""
        self._happens(dice, lambda debit: Resumed() if debit.suspended else None)

    def retry(self, dice: Dice) -> None:
        """Somebody does not want to wait."""
        self._happens(dice, lambda _: RetryAsked())

    def elsewhere(self, dice: Dice) -> None:
        """It was paid outside."""
        self._happens(dice, lambda _: PaidElsewhere("cash"))

    def judge(self, dice: Dice) -> None:
        """Somebody looks into the provider's books and says what became of a debit, or of a refund."""
        manual = [one for one in self.till.refunds.values() if one.state is RefundState.MANUAL]
        if manual:
            refund = manual[dice.roll(len(manual))]
            decision = self.refund_decision(refund.provider_key, again=dice.roll(2) == 1)
            if decision is not None:
                self.till.decide_refund((refund.ordinal, refund.refund_ordinal), decision)
            return
        self._happens(dice, lambda debit: self.decision(debit, dice))

    def again(self, _: Dice) -> None:
        """Refunds that did not come are begun anew."""
        if self.till.debits:
            self.till.refund_again()

    def hand(self, dice: Dice) -> None:
        """Money is handed to the rider: what a debit has of his that its ride does not owe, a part of it, or more; that
        it owes less may have been decided a moment before."""
        if dice.roll(2) == 1:
            self.till.owe(max(self.till.owed_minor - AMOUNTS[dice.roll(len(AMOUNTS))], 0))
        some = [debit for debit in self.till.debits.values() if debit.paid_minor + debit.outside_minor]
        if not some:
            return
        debit = some[-1 - dice.roll(len(some))]
        all_of_it = owed_back_minor(self.till.owed_minor, list(self.till.debits.values()), debit)
        try:
            self.hand_back(debit, (all_of_it, (all_of_it + 1) // 2, all_of_it + 1)[dice.roll(3)] or 1)
        except NO as refused:
            self.till.reached["told no", type(refused).__name__] += 1

    def hand_back(self, debit: Debit, amount_minor: int) -> None:
        """What the rider has left of what he paid is never less than the ride owes."""
        self.till.given_back(debit.ordinal, GivenBack(amount_minor, "cash"))
        debits = self.till.debits.values()
        back = sum(one.refunded_minor + one.refunding_minor + one.given_back_minor for one in debits)
        kept = sum(one.paid_minor + one.outside_minor for one in debits) - back
        assert kept >= self.till.owed_minor, f"{kept} is kept of what he paid, {self.till.owed_minor} owed"

    def letter(self, dice: Dice) -> None:
        """A letter: the rider complains, or his bank has taken money of which no notification was heard yet."""
        self._happens(dice, lambda debit: self._letter(debit, dice))

    def _letter(self, debit: Debit, dice: Dice) -> DebitEvent | None:
        if debit.dispute in ("complaint", "chargeback"):
            by_hand = [one for one in debit.disputes if one.state == "opened" and one.ref is None]
            complaint = debit.dispute == "complaint" and bool(by_hand)
            return DisputeClosed("resolved") if complaint else None
        if dice.roll(2) == 0:
            return DisputeOpened("complaint")
        known = {one.ref for one in debit.disputes}
        keys = {receipt.key for receipt in debit.receipts} | {debit.provider_key}
        own = [held for held in self.teller.disputes if held.kind == "chargeback" and held.payment.key in keys]
        unheard = [held for held in own if held.ref not in known]
        named = None not in {one.ref for one in debit.disputes if one.kind == "chargeback"}
        able = self.teller.capabilities.dispute == "chargeback"
        return DisputeOpened("chargeback") if able and named and [one.state for one in unheard] == ["opened"] else None

    def decision(self, debit: Debit, dice: Dice) -> OperatorDecided | None:
        """What the provider's books say of a debit that is manual, or of which he says nothing himself; None: it must
        wait, or is no matter of theirs."""
        if debit.state is not State.MANUAL and not unanswered(debit):
            return None
        there = [one for one in self.teller.all_payments() if one.key == debit.provider_key]
        taken = sum(one.paid_minor for one in there)
        known = sum(one.amount_minor for one in debit.receipts if one.key == debit.provider_key)
        if any(one.state == "accepted" for one in there):
            kept = self.till.now < there[-1].made_at + self.teller.capabilities.same_key_window
            return OperatorDecided("submit_again", "it is collected there") if kept and not taken else None
        if taken == debit.asked_minor and taken > known and debit.attempts:
            ref = next(one.ref or one.taken[0].ref for one in there if one.taken)
            return OperatorDecided("settled", "it is paid there", ref)
        if taken != known:
            return None
        return OperatorDecided(
            "submit_again" if dice.roll(2) == 1 and not taken else "cancel", "nothing is taken there"
        )

    def refund_decision(self, key: str, *, again: bool) -> RefundDecided | None:
        """The same of a refund."""
        giving = self.teller.givings.get(key)
        if giving is not None and giving.state == "paid":
            return RefundDecided("given_back", "by the books", giving.amount_minor, giving.ref)
        if giving is not None and giving.state in ("pending", "abnormal"):
            return None
        return RefundDecided("submit_again" if again else "cancel", "by the books")

    def _happens(self, dice: Dice, event: Callable[[Debit], DebitEvent | None]) -> None:
        def wish(debit: Debit) -> None:
            wanted = event(debit)
            if wanted is not None:
                self.till.happen(debit.ordinal, wanted)

        self._wish(dice, wish)

    def _wish(self, dice: Dice, wish: Callable[[Debit], object]) -> None:
        debits = sorted(self.till.debits)
        if not debits:
            return
        try:
            wish(self.till.debits[debits[-1 - dice.roll(len(debits))]])
        except NO as refused:
            self.till.reached["told no", type(refused).__name__] += 1


def wants_rider(debit: Debit) -> bool:
    """Whether nothing goes on before its rider does something."""
    return debit.state is State.NEEDS_RIDER and not waits_for_hold(debit)
