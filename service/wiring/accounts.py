"""Wrong credentials are found: each merchant account's provider is asked before anything is sent to it, and again as
soon as one of its answers says that it does not accept us any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from service.adapters.postgres.agreements import AccountRow, OwnedAccount
from service.adapters.providers import Providers
from service.billing.outcomes import Barred
from service.flows.account_checks import AT_ONCE, Finding, account_name, check, in_words
from service.telemetry import ACCOUNT_USABLE, logger
from service.web.health import Health

if TYPE_CHECKING:
    from service.wiring import Process

LOG = logger("accounts")
AGAIN_SECONDS = 15.0
"""How soon an account that was refused, or whose provider was silent, is asked about again."""
DOUBTED_SECONDS = 180.0
"""So long after the last call that was refused because of who asks, although the credentials are good, the account is
called limited: what was refused is sent again each minute (`outcomes.BARRED_FOR`)."""
LOOK_SECONDS = 1.0


class AccountWatch:
    """What each account's provider said. An account that is refused is named in the log, in a metric and in `/readyz`,
    which stays as it is: the others go on. It is asked about again until it is good.

    An answer that says that we are not accepted makes the account unusable until its provider was asked. Where he finds
    the credentials good, only calls like that one are refused (a permission is missing): the account is limited, which
    is told in the same way, and all else goes on.
    """

    def __init__(self, providers: Providers, health: Health, seconds: Callable[[], float] = time.monotonic) -> None:
        """`seconds` only grow."""
        self._providers = providers
        self._health = health
        self._seconds = seconds
        self._asked: dict[int, _Asked] = {}
        self._doubts: dict[int, _Doubt] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    def usable(self, account_no: int) -> bool:
        """See `account_checks.Accounts`. One that was never asked about may be called; one in doubt whose provider
        does not say whether he accepts us, again after a while: his next answer to a call tells it."""
        doubt = self._doubts.get(account_no)
        if self.refused(account_no):
            return False
        return doubt is None or doubt.checked or self._seconds() >= doubt.at + DOUBTED_SECONDS

    def refused(self, account_no: int) -> bool:
        """See `account_checks.Accounts`."""
        asked = self._asked.get(account_no)
        return asked is not None and asked.finding.verdict == "refused"

    def heard(self, account_no: int, answer: object) -> None:
        """See `account_checks.Accounts`. What was said before, and found to be about some calls alone, is no news."""
        if isinstance(answer, Barred):
            known, says = self._doubts.get(account_no), in_words(answer)
            checked = known is not None and known.checked and known.says == says
            self._doubts[account_no] = _Doubt(says, self._seconds(), checked)

    def due(self, owned: OwnedAccount) -> bool:
        """Whether it is time to ask about the account: never asked with the settings it has now, in doubt since, or
        not good then."""
        asked, doubt = self._asked.get(owned.account.account_no), self._doubts.get(owned.account.account_no)
        if asked is None or asked.account != owned.account:
            return True
        if doubt is not None and not doubt.checked and doubt.at >= asked.at:
            return True
        return asked.finding.verdict != "good" and self._seconds() >= asked.at + AGAIN_SECONDS

    async def look(self, owned: OwnedAccount) -> None:
        """Asks about an account, if it is time."""
        async with self._room:
            if self.due(owned):
                began = self._seconds()
                self._note(owned, await check(self._providers, owned), began)
                self._tell()

    def forget(self, account_no: int) -> None:
        """An account was removed: nothing is said of it any more."""
        asked = self._asked.pop(account_no, None)
        self._doubts.pop(account_no, None)
        if asked is not None:
            ACCOUNT_USABLE.remove(asked.finding.name)
            self._tell()

    async def until_usable(self, process: Process, account: Callable[[], OwnedAccount | None]) -> bool:
        """Waits until the account was asked about and not refused; False when told to stop before, and where it was
        removed (`account` says None), which is forgotten."""
        seen: OwnedAccount | None = None
        while not process.stopping.is_set():
            owned = account()
            if owned is None:
                if seen is not None:
                    self.forget(seen.account.account_no)
                return False
            seen = owned
            await self.look(owned)
            if account() == owned and self.usable(owned.account.account_no):
                return True
            await process.pause(LOOK_SECONDS)
        return False

    async def run(self, process: Process, accounts: Callable[[], Sequence[OwnedAccount]]) -> None:
        """Looks again and again until the process is told to stop, at each account beside the others; what it saw and
        is not there any more is forgotten."""
        looking: dict[int, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while not process.stopping.is_set():
                present = {owned.account.account_no: owned for owned in accounts()}
                for account_no in looking.keys() - present.keys():
                    looking.pop(account_no).cancel()
                    self.forget(account_no)
                for account_no, owned in present.items():
                    if account_no not in looking or looking[account_no].done():
                        looking[account_no] = tasks.create_task(self.look(owned))
                await process.pause(LOOK_SECONDS)
            for task in looking.values():
                task.cancel()

    def _tell(self) -> None:
        verdicts = ("refused", "limited")
        refused = (asked.finding.name for asked in self._asked.values() if asked.finding.verdict in verdicts)
        self._health.refused_accounts = sorted(refused)

    def _note(self, owned: OwnedAccount, finding: Finding, began: float) -> None:
        """Keeps what was found by a check that began at `began`."""
        number = owned.account.account_no
        before, finding = self._asked.get(number), self._weighed(number, finding, began)
        self._asked[number] = _Asked(owned.account, finding, began)
        ACCOUNT_USABLE.labels(finding.name).set(finding.verdict in ("good", "silent"))
        if before is not None and before.finding == finding:
            return
        told = {"account": account_name(owned), "provider": finding.provider, "says": finding.says}
        if finding.verdict == "refused":
            LOG.error("merchant account is refused: its debits wait, the others go on", **told)
        elif finding.verdict == "limited":
            LOG.error("merchant account is not permitted some calls: they wait, all else goes on", **told)
        elif finding.verdict == "silent":
            LOG.warning("a provider does not answer", **told)
        elif before is not None:
            LOG.info("merchant account is good again", **told)

    def _weighed(self, account_no: int, finding: Finding, began: float) -> Finding:
        """What was found, beside what calls were answered: a refusal explains it, good credentials do not."""
        doubt = self._doubts.get(account_no)
        if doubt is None or finding.verdict == "silent" or (doubt.at > began and not doubt.checked):
            return finding
        if finding.verdict == "refused" or began >= doubt.at + DOUBTED_SECONDS:
            del self._doubts[account_no]
            return finding
        self._doubts[account_no] = replace(doubt, checked=True)
        return replace(finding, verdict="limited", says=doubt.says)


class _Asked(msgspec.Struct, frozen=True):
    """What an account was when it was asked about, what was found, and when by the machine's monotonic clock."""

    account: AccountRow
    finding: Finding
    at: float


class _Doubt(msgspec.Struct, frozen=True):
    """What the last call was answered that was refused because of who asks, when by the machine's monotonic clock, and
    whether the account was asked about since and found good."""

    says: str
    at: float
    checked: bool = False
