"""A history is played: its acts, then all is healed and comes to rest, then the oracle looks (sim_judge)."""

from __future__ import annotations

import traceback
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
from sim_acts import Acts
from sim_judge import meanwhile, still_asked, to_give_back, wrongs
from sim_news import News
from sim_ordered import Ordered
from sim_persons import NO, wants_rider
from sim_plot import KINDS, Plot
from sim_teller import Dice
from sim_till import Till

from service.billing.debits.dunning import Calendar
from service.billing.debits.events import DisputeClosed, Resumed
from service.billing.debits.obligations import owed_back_minor
from service.billing.debits.refunds import UNPAID, RefundState
from service.billing.debits.state import FINAL, UNSURE, State
from service.billing.debits.truth import left_open
from service.flows.collection.calls import Answer

ROUNDS_MAX = 3000
WANTED_EVERY = timedelta(hours=1)
"""How often a rider asks once more to pay."""
PRESSED_MAX = 5
"""How often people begin what is owed back anew."""


RAISED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, *NO)
"""What a bug of ours raises, in the rules or in what plays them."""


class Failure(msgspec.Struct):
    """A history that went wrong, and how."""

    seed: int
    kind: str
    wrongs: list[str]
    story: list[str]


class WrongError(Exception):
    """Something is not as it must be."""

    def __init__(self, wrongs: list[str]) -> None:
        super().__init__("; ".join(wrongs))
        self.wrongs = wrongs


def play(plot: Plot, *, told: bool = False) -> tuple[Failure | None, Counter[tuple[str, str]]]:
    """Plays a history; what is wrong with it, if anything is, and what it has reached."""
    show = Show(plot, told=told)
    try:
        show.run()
    except WrongError as error:
        return Failure(plot.seed, plot.kind, error.wrongs, show.till.told or []), show.till.reached
    except RAISED as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        trace = traceback.format_exc().splitlines() if told else []
        wrong = f"{type(error).__name__} at {place.filename.rpartition('/')[2]}:{place.lineno}: {error}"
        return Failure(plot.seed, plot.kind, [wrong, *trace], show.till.told or []), show.till.reached
    return None, show.till.reached


class Show:
    """A history while it is played."""

    def __init__(self, plot: Plot, *, told: bool) -> None:
        kind = KINDS[plot.kind]
        calendar = Calendar(debit_delay=plot.delay, write_off_days=plot.write_off_days)
        self.plot = plot
        self.till = Till(calendar, plot.cap_minor)
        self.till.teller = kind.make(kind.capabilities, lambda: self.till.now)
        self.till.teller.cap_minor = plot.their_cap_minor
        if told:
            self.till.told = []
        self.ordered = Ordered(self.till, plot.cap_minor)
        self.news = News(self.till, self.ordered)
        self.acts = Acts(self.till, self.ordered, self.news)
        self.pressed = 0
        self.wanted_at: dict[int, datetime] = {}

    def run(self) -> None:
        """From the beginning to rest. Raises WrongError."""
        self._tell(str(msgspec.structs.replace(self.plot, acts=())))
        if self.plot.held:
            self.ordered.before_the_ride()
        self.till.owe(self.plot.owed_minor)
        for act in self.plot.acts:
            self._tell(f"{act.what} {' '.join(map(str, act.draws))}".rstrip())
            self.acts.play(act.what, Dice(act.draws))
            if wrong := list(meanwhile(self.till)):
                raise WrongError(wrong)
        self._tell("all is healed")
        self.heal()
        self.settle()
        if wrong := wrongs(self.till, left=self.plot.ending == "left"):
            raise WrongError(wrong)

    def heal(self) -> None:
        """Nothing goes wrong any more; what is under way is kept, or was never made."""
        acts, teller = self.acts, self.till.teller
        acts.flights = [one for one in acts.flights if one.outcome is not None]
        while acts.flights:
            acts.keep(Dice())
        teller.declines = self.plot.ending == "years"
        teller.revoked, teller.fault = False, None
        for order in teller.orders.values():
            order.retryable = True
        self.hear_all()
        teller.tell_again()

    def settle(self) -> None:
        """Everything that is due is done, until nothing is."""
        for number in range(ROUNDS_MAX):
            busy = self._work()
            if wrong := list(meanwhile(self.till)):
                raise WrongError(wrong)
            if busy:
                continue
            if self._people():
                continue
            at = self.acts.next_at()
            if at is None or self._at_rest():
                return
            self.till.now = max(at, self.till.now).astimezone(UTC) + timedelta(milliseconds=1)
            self._tell(f"next, round {number}")
        raise WrongError([f"not at rest after {ROUNDS_MAX} rounds"])

    def hear_all(self) -> bool:
        """All notifications arrive."""
        notices = self.till.teller.notices
        heard = bool(notices)
        while notices:
            self.till.now += timedelta(milliseconds=1)
            self.news.hear(notices.pop(0), Dice())
        return heard

    def _work(self) -> bool:
        """Whatever is due now."""
        till, teller = self.till, self.till.teller
        teller.dice = Dice()
        busy = self.hear_all()
        for payment in teller.undecided():
            if not (teller.declines and teller.capabilities.provider_retries):
                teller.decide(payment)
                busy = True
        for giving in list(teller.givings.values()):
            if giving.state in ("pending", "abnormal"):
                teller.decide_refund(giving)
                busy = True
        for order in teller.orders.values():
            if order.state == "pending" and not teller.declines:
                teller.confirm(order)
                self.ordered.step(Dice(), early=True)
                busy = True
        for key in till.due():
            till.now += timedelta(milliseconds=1)
            for claim in till.claim(key):
                till.save(Answer(claim, till.call(claim)))
            busy = True
        if till.policies() or any(one.due_at <= till.now for one in self.news.unheard.values()):
            self.acts.policy(Dice())
            busy = True
        if self.ordered.due():
            self.ordered.step(Dice(), seldom=teller.declines)
            busy = True
        return busy

    def _people(self) -> bool:
        """Who looks after what waits for people; whether anything was done."""
        till, done = self.till, False
        for held in till.teller.disputes:
            if held.state == "opened":
                self._tell(f"{held.kind} {held.ref} ends")
                self.acts.end(held, Dice((self.plot.seed // 7 % 2,)))
                done = True
        for ordinal in sorted(till.debits):
            done = self._look_after(ordinal) or done
        for key, refund in list(till.refunds.items()):
            if refund.state is RefundState.MANUAL:
                decision = self.acts.refund_decision(refund.provider_key, again=False)
                done = (decision is not None and till.decide_refund(key, decision)) or done
        states = {one.state for one in till.refunds.values()}
        over = states <= {RefundState.SUCCEEDED, *UNPAID} and not states.isdisjoint(UNPAID)
        over = over and not any(one.state in UNSURE or one.lowering_to is not None for one in till.debits.values())
        if not done and self.plot.seed % 3 == 0:
            done = self._hand_back()
        if not done and over and to_give_back(till) and self.pressed < PRESSED_MAX:
            self.pressed += 1
            self._tell("refund again")
            done = till.refund_again()
        return done

    def _hand_back(self) -> bool:
        """In some shops the rider is handed whatever is owed back and on no way to him."""
        debits = list(self.till.debits.values())
        for debit in debits:
            amount_minor = owed_back_minor(self.till.owed_minor, debits, debit)
            if amount_minor:
                self._tell(f"{amount_minor} of d{debit.ordinal} are handed back")
                self.acts.hand_back(debit, amount_minor)
                return True
        return False

    def _look_after(self, ordinal: int) -> bool:
        till, debit = self.till, self.till.debits[ordinal]
        try:
            if debit.suspended:
                till.happen(ordinal, Resumed())
                return True
            if any(one.state == "opened" and one.ref is None for one in debit.disputes):
                by_hand = debit.dispute == "complaint"
                if by_hand:
                    till.happen(ordinal, DisputeClosed("resolved"))
                return by_hand
            decision = self.acts.decision(debit, Dice())
            if decision is not None:
                till.happen(ordinal, decision)
                return True
            again = till.now >= self.wanted_at.get(ordinal, till.now - WANTED_EVERY) + WANTED_EVERY
            if self.plot.ending == "paid" and wants_rider(debit) and again:
                self.wanted_at[ordinal] = till.now
                wanted = self.news.want_payment(ordinal, Dice())
                for payment in till.teller.payable():
                    till.teller.rider_pays(payment)
                return wanted
        except NO as refused:
            self._tell(f"    d{ordinal}: {refused}")
        return False

    def _at_rest(self) -> bool:
        """Whether all that is still to come is the calendar's, or a question about the known, asked seldom."""
        till = self.till
        if any(one.due_at is not None for one in till.refunds.values()) or self.news.unheard:
            return False
        known = sum(debit.paid_minor for debit in till.debits.values()) == till.teller.taken_minor()
        for debit in till.debits.values():
            quiet = known and debit.lowering_to is None and debit.doubted_minor is None
            waits = debit.state is State.NEEDS_RIDER and self.plot.ending != "years"
            collected = any(one.state == "accepted" for one in till.teller.payments.values())
            waits = waits or (debit.state is State.NEEDS_RIDER and not still_asked(debit))
            waits = waits or (debit.state is State.PENDING and not still_asked(debit) and collected)
            if debit.due_at is not None and not (quiet and (left_open(debit) or waits)):
                return False
            if debit.policy_at is not None and self.plot.ending == "years" and debit.state not in FINAL:
                return False
        return True

    def _tell(self, line: str) -> None:
        if self.till.told is not None:
            ago = self.till.ago()
            self.till.told.append(f"+{ago.days}d{ago.seconds // 3600:02}:{ago.seconds % 3600 // 60:02} {line}")


def table(reached: Counter[tuple[str, str]]) -> str:
    """What was reached: events and answers by the state in which they came."""
    states = sorted({state for state, _ in reached})
    lines = []
    for state in states:
        counts = sorted((what, count) for (at, what), count in reached.items() if at == state)
        lines.append(f"{state}: " + ", ".join(f"{what} {count}" for what, count in counts))
    return "\n".join(lines)
