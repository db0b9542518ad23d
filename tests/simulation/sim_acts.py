"""What can happen in one ride's history, act by act; each takes what it leaves to chance from its own draws."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from sim_news import News
from sim_ordered import Ordered
from sim_persons import Persons
from sim_teller import Dice, Giving, Held, Payment
from sim_till import Till

from service.billing.outcomes import BARRED_FOR, Barred, Conflict, Declined, Outcome, Rejected, Throttled, Unknown
from service.flows.collection.calls import CALL_SECONDS, Answer, Claim

FAULTS = (Rejected("PARAM_ERROR"), Unknown("code NOBODY_LISTED"), Conflict("OTHER"), Declined(True, "BALANCE_SHORT"))
WAITS = tuple(
    timedelta(seconds=seconds)
    for seconds in (1, 5, 30, 61, 600, 3600, 21_600, 86_400, 259_200, 864_000, 3_456_000, 17_280_000)
)


class Flight(msgspec.Struct):
    """A call under way, or whose answer nobody has kept yet."""

    claim: Claim
    begun_at: datetime
    outcome: Outcome | None = None


class Acts(Persons):
    """A till, its provider and everybody who acts on them."""

    def __init__(self, till: Till, ordered: Ordered, news: News) -> None:
        self.till = till
        self.teller = till.teller
        self.ordered = ordered
        self.news = news
        self.flights: list[Flight] = []

    def play(self, what: str, dice: Dice) -> None:
        """One act."""
        self.till.now += timedelta(milliseconds=1)
        self.teller.dice = dice
        assert what in ACTS
        getattr(self, what)(dice)

    # ------------------------------------------------------------------ the service at work

    def go(self, dice: Dice) -> None:
        """What is due is claimed, the provider called, his answer kept; or something goes wrong on the way."""
        due = self.till.due()
        if not due:
            return
        for claim in self.till.claim(due[dice.roll(len(due))]):
            self._answered(claim, dice.roll(10), dice)

    def on(self, dice: Dice) -> None:
        """Time passes until something is to be asked of the provider, and it is."""
        if not self.till.due():
            at = self.next_at(policies=False)
            if at is not None:
                self._until(at)
        self.go(dice)

    def _answered(self, claim: Claim, fate: int, dice: Dice) -> None:
        self.teller.dice = dice
        match fate:
            case 1:  # The answer is lost.
                self.till.call(claim)
                self.till.save(Answer(claim, Unknown("no answer in time")))
            case 2:  # It never arrives.
                self.till.save(Answer(claim, Unknown("no answer in time")))
            case 3:
                self.till.save(Answer(claim, Throttled(timedelta(seconds=2))))
            case 4:  # The process dies before the call, or after it.
                return
            case 5:
                self.till.call(claim)
            case 6:  # The answer is kept later.
                self.flights.append(Flight(claim, self.till.now, self.till.call(claim)))
            case 7:
                self.flights.append(Flight(claim, self.till.now))
            case 8:
                self.till.save(Answer(claim, Barred(BARRED_FOR, "UNAUTHORIZED")))
            case _:
                self.till.save(Answer(claim, self.till.call(claim)))

    def land(self, dice: Dice) -> None:
        """A call that is under way is made."""
        waiting = [one for one in self.flights if one.outcome is None]
        if waiting:
            one = waiting[dice.roll(len(waiting))]
            one.outcome = self.till.call(one.claim)

    def keep(self, dice: Dice) -> None:
        """An answer that came is kept."""
        answered = [one for one in self.flights if one.outcome is not None]
        if answered:
            one = answered[dice.roll(len(answered))]
            self.flights.remove(one)
            assert one.outcome is not None
            self.till.save(Answer(one.claim, one.outcome))

    def die(self, dice: Dice) -> None:
        """A call or an answer is nobody's any more."""
        if self.flights:
            self.flights.pop(dice.roll(len(self.flights)))

    def policy(self, dice: Dice) -> None:
        """The calendar's round: what it wants of the provider is called, or the process dies."""
        self.news.hear_unheard()
        for ordinal in self.till.policies():
            for claim in self.till.policy(ordinal):
                fate = dice.roll(5)
                outcome = self.till.call(claim) if fate != 2 else None
                if fate != 3:
                    kept = Unknown("no answer in time") if fate in (1, 2) or outcome is None else outcome
                    self.till.save(Answer(claim, kept))

    def hold(self, dice: Dice) -> None:
        """The hold's round."""
        self.ordered.step(dice, early=dice.odd(4))

    def wait(self, dice: Dice) -> None:
        """Time passes."""
        self._until(self.till.now + WAITS[dice.roll(len(WAITS))])

    def next(self, dice: Dice) -> None:
        """Time passes until the next thing is due."""
        at = self.next_at(policies=dice.roll(3) != 1)
        if at is not None:
            self._until(max(at, self.till.now))

    def age(self, dice: Dice) -> None:
        """A season passes in which the calendar alone is at work."""
        for _ in range(6):
            at = min((one.policy_at for one in self.till.debits.values() if one.policy_at is not None), default=None)
            if at is None:
                return
            self._until(at)
            self.policy(dice)

    def next_at(self, *, policies: bool = True) -> datetime | None:
        """When the next thing is due."""
        till, found = self.till, list[datetime]()
        for key, due_at in till.due_at():
            lease = till.leases.get(key)
            found.append(max(due_at, lease) if lease is not None else due_at)
        if policies:
            found += [one.policy_at for one in till.debits.values() if one.policy_at is not None]
        hold = self.ordered.hold
        if hold is not None and hold.due_at is not None:
            found.append(hold.due_at)
        found += [one.due_at for one in self.news.unheard.values()]
        return min(found, default=None)

    def _until(self, at: datetime) -> None:
        """Who waits for an answer gives up; a process that stands still goes on with it later."""
        self.till.now = max(at, self.till.now).astimezone(UTC)
        limit = timedelta(seconds=CALL_SECONDS)
        self.flights = [one for one in self.flights if one.outcome is not None or at - one.begun_at < limit]

    # ------------------------------------------------------------------ the provider and his notifications

    def tell(self, dice: Dice) -> None:
        """A notification arrives, in any order, perhaps once more later."""
        notices = self.teller.notices
        if notices:
            at = dice.roll(len(notices))
            notice = notices[at]
            if self.news.hear(notice, dice) and dice.roll(4) != 1:
                notices.remove(notice)

    def lose(self, dice: Dice) -> None:
        """A notification is lost."""
        if self.teller.notices:
            self.teller.notices.pop(dice.roll(len(self.teller.notices)))

    def decide(self, dice: Dice) -> None:
        """The provider decides what it has accepted: a debit, a refund."""
        pending = [one for one in self.teller.givings.values() if one.state in ("pending", "abnormal")]
        waiting: list[Payment | Giving] = [*self.teller.undecided(), *pending]
        if waiting:
            one = waiting[dice.roll(len(waiting))]
            if isinstance(one, Payment):
                self.teller.decide(one)
            else:
                self.teller.decide_refund(one)

    def pay(self, dice: Dice) -> None:
        """The rider pays what he was shown."""
        payable = self.teller.payable()
        if payable:
            self.teller.rider_pays(payable[dice.roll(len(payable))])

    def confirm(self, dice: Dice) -> None:
        """The rider confirms a hold, which is told."""
        for order in self.teller.orders.values():
            if order.state == "pending":
                self.teller.confirm(order, refuses=dice.roll(4) == 1)
                if dice.roll(2) == 0:
                    self.ordered.step(Dice(), early=True)
                return

    def come_back(self, dice: Dice) -> None:
        """A refund comes back."""
        paid = self.teller.returnable() if self.teller.refunds_return else []
        if paid:
            self.teller.come_back(paid[dice.roll(len(paid))])

    def bank(self, dice: Dice) -> None:
        """A bank takes a payment back, or a part of it, or ends what it began; a rider complains."""
        teller, able = self.teller, self.teller.capabilities
        running = [held for held in teller.disputes if held.state == "opened"]
        if running and dice.roll(2) == 0:
            self.end(running[dice.roll(len(running))], dice)
            return
        paid = [one for one in teller.all_payments() if teller.left_minor(one) > 0]
        if not paid:
            return
        payment = paid[dice.roll(len(paid))]
        if able.dispute == "chargeback" and dice.roll(4) != 3:
            left = teller.left_minor(payment)
            teller.dispute(payment, "chargeback", (left, (left + 1) // 2, 1)[dice.roll(3)])
        else:
            teller.dispute(payment, "complaint", payment.asked_minor)

    def end(self, held: Held, dice: Dice) -> None:
        """A dispute ends."""
        if held.kind == "complaint":
            self.teller.end_dispute(held, "resolved")
        else:
            self.teller.end_dispute(held, "won" if dice.roll(2) == 0 else "lost")

    def fault(self, dice: Dice) -> None:
        """The provider refuses whatever would move money, in words that are listed or not; or that is put right."""
        self.teller.fault = FAULTS[dice.roll(len(FAULTS))] if self.teller.fault is None else None

    def mute(self, dice: Dice) -> None:
        """For five days the provider says nothing that anybody has listed; people may look into his books then."""
        self.teller.fault = FAULTS[1]
        for _ in range(10):
            self._until(self.till.now + timedelta(hours=12))
            for key in self.till.due():
                self.till.now += timedelta(milliseconds=1)
                for claim in self.till.claim(key):
                    self.till.save(Answer(claim, self.till.call(claim)))
        if dice.roll(3) == 1:
            self.judge(dice)
        self.teller.fault = None

    def platform(self, dice: Dice) -> None:
        """The operator's own people end something at the provider's own desk, and nobody is told."""
        self.teller.at_desk(dice)

    def revoke(self, _: Dice) -> None:
        """The rider has ended his agreement."""
        self.teller.revoked = True


ACTS: tuple[str, ...] = (
    *("go", "on", "land", "keep", "die", "policy", "hold", "wait", "next", "age"),
    *("tell", "lose", "decide", "pay", "confirm", "come_back", "bank", "fault", "mute", "revoke", "platform"),
    *("owe", "want", "suspend", "resume", "retry", "elsewhere", "judge", "again", "letter", "hand"),
)
"""The names of all acts."""
