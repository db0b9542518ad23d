"""The calls of one merchant account under way in this process, so that claims and saves go on meanwhile.

A lane holds claims that are committed: some are being called, the rest wait their turn. A call that hangs keeps one
place of `concurrency` and nothing else. What waits too long for its turn, or is not to be called because the provider
said "too many", is answered here: it was provably never sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile

from service.adapters.clock import Clock
from service.adapters.providers.port import Provider
from service.billing.outcomes import Barred, Throttled
from service.flows.account_checks import UNWATCHED, Accounts
from service.flows.collection.calls import CALL_SECONDS, Answer, Claim, call, too_late

AHEAD = 4
"""How many claims may wait for each call that may be under way: a transaction then holds many of them."""
LOW = 3
"""So many claims waiting for each call, and more are made: they last while the next are being claimed."""
SAVING = timedelta(seconds=10)
"""What must be left of a lease, beside the call, for what it brings to be saved."""
PATIENCE = 0.05
"""Seconds that are waited for a first answer: then it is time to look for new claims."""
LINGER = 0.02
"""Seconds for which answers are waited for that could share a transaction."""
NOT_NOW = Throttled(timedelta(0))
BARRED_MAX = 4
"""So many answers in a row that calls of one kind are refused because of who asks, while the account is good: no more
of that kind are made before the time is over that they wait for."""


class Lane:
    """One account's calls; `concurrency` of them at once."""

    def __init__(
        self,
        account_no: int,
        provider: Provider,
        machine_now: Clock,
        concurrency: int,
        accounts: Accounts = UNWATCHED,
    ) -> None:
        self.account_no = account_no
        self._accounts = accounts
        self.quiet_until: datetime | None = None
        """Machine time before which the provider wants no calls."""
        self._provider = provider
        self._machine_now = machine_now
        self._concurrency = concurrency
        self._waiting: deque[Claim] = deque()
        self._calls: dict[asyncio.Task[Answer], tuple[Claim, float]] = {}
        """Under way, in the order they began: what is called, and when that takes too long (the loop's time)."""
        self._answers: list[Answer] = []
        self._error: BaseException | None = None
        self._stirred = asyncio.Event()
        self._barred: dict[str, tuple[int, datetime]] = {}
        """By kind of call: how many in a row were refused because of who asks, and until when the last one waits."""

    @property
    def room(self) -> int:
        """How many more debits may be claimed."""
        held = len(self._waiting) + len(self._calls) + len(self._answers)
        return max(self._concurrency * (1 + AHEAD) - held, 0)

    @property
    def busy(self) -> bool:
        """Whether anything was claimed whose outcome is not saved."""
        return bool(self._waiting or self._calls or self._answers)

    @property
    def hungry(self) -> bool:
        """Whether so few claims wait for their turn that more should be made."""
        return len(self._waiting) <= LOW * self._concurrency and self.room > 0 and not self.quiet

    @property
    def quiet(self) -> bool:
        """Whether the provider wants no calls now, or none of ours."""
        if not self._accounts.usable(self.account_no):
            return True
        return self.quiet_until is not None and self._machine_now() < self.quiet_until

    def add(self, claims: Sequence[Claim]) -> None:
        """Takes committed claims: they are called in their order."""
        self._waiting.extend(claims)
        self._fill()

    async def answered(self) -> Sequence[Answer]:
        """The answers that came, none if there were none for a while: more are waited for, but not for long.

        Raises what a call raised.
        """
        self._hurry()
        if self.busy and not self._answers and self._error is None:
            await self._stir(PATIENCE)
        if self._calls and 0 < len(self._answers) < self._concurrency:
            await self._stir(LINGER)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        answers, self._answers = self._answers, []
        return answers

    def give_back(self, answers: Sequence[Answer]) -> None:
        """Answers that could not be saved: they come again."""
        self._answers = [*answers, *self._answers]

    def close(self) -> None:
        """Ends the calls; what became of them is asked about when their leases are over."""
        self._waiting.clear()
        self._answers.clear()
        calls, self._calls = self._calls, {}
        for task in calls:
            task.cancel()

    def wind_up(self) -> None:
        """Begins no more calls."""
        while self._waiting:
            self._took(Answer(self._waiting.popleft(), NOT_NOW))

    async def _stir(self, seconds: float) -> None:
        self._stirred.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        except TimeoutError:
            return

    def _fill(self) -> None:
        """Begins calls while there is room at the provider; answers what is not to be called."""
        while self._waiting and len(self._calls) < self._concurrency:
            claim = self._waiting.popleft()
            late = claim.lease_until - self._machine_now() < SAVING + timedelta(seconds=CALL_SECONDS)
            if late or self.quiet or self._shut_until(claim.work.what) is not None:
                self._took(Answer(claim, self._not_now(claim.work.what)))
                continue
            task = asyncio.create_task(call(self._provider, claim))
            self._calls[task] = claim, asyncio.get_running_loop().time() + CALL_SECONDS
            task.add_done_callback(self._ended)

    def _hurry(self) -> None:
        """Gives up the calls that take too long: one look at the oldest, where each would need a timer of its own."""
        now = asyncio.get_running_loop().time()
        late = list(takewhile(lambda task: self._calls[task][1] <= now, self._calls))
        for task in late:
            claim, _ = self._calls.pop(task)
            task.cancel()
            self._took(too_late(self._provider, claim))
        if late:
            self._fill()

    def _shut_until(self, what: str) -> datetime | None:
        """Until when no calls of this kind are made, None where they are."""
        in_a_row, until = self._barred.get(what, (0, self._machine_now()))
        return until if in_a_row >= BARRED_MAX and self._machine_now() < until else None

    def _not_now(self, what: str) -> Throttled:
        """When it is asked for again what is not called now."""
        until = self._shut_until(what) or self.quiet_until
        return NOT_NOW if until is None else Throttled(max(until - self._machine_now(), timedelta(0)))

    def _mind(self, answer: Answer) -> None:
        """Keeps in mind what an answer says about the calls to come."""
        what, outcome = answer.claim.work.what, answer.outcome
        self._accounts.heard(self.account_no, outcome)
        if isinstance(outcome, Throttled):
            self.quiet_until = self._machine_now() + outcome.retry_after
        if not isinstance(outcome, Barred):
            self._barred.pop(what, None)
        elif self._accounts.usable(self.account_no):
            in_a_row, _ = self._barred.get(what, (0, None))
            self._barred[what] = in_a_row + 1, self._machine_now() + outcome.retry_after

    def _ended(self, task: asyncio.Task[Answer]) -> None:
        if self._calls.pop(task, None) is None or task.cancelled():
            return  # Given up before.
        error = task.exception()
        if error is not None:
            self._error = error
            self._stirred.set()
            return
        answer = task.result()
        self._mind(answer)
        self._took(answer)
        self._fill()

    def _took(self, answer: Answer) -> None:
        self._answers.append(answer)
        if len(self._answers) in (1, self._concurrency):
            self._stirred.set()
