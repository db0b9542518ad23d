"""Wrong credentials are found at the start: each merchant account's provider is asked before anything is sent to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from service.adapters.postgres.agreements import AccountRow, OwnedAccount
from service.adapters.providers import Providers
from service.flows.account_checks import Finding, account_name, check_accounts
from service.telemetry import ACCOUNT_USABLE, logger
from service.web.health import Health

if TYPE_CHECKING:
    from service.wiring import Process

LOG = logger("accounts")
AGAIN_SECONDS = 15.0
"""How soon an account that was refused, or whose provider was silent, is asked about again."""
LOOK_SECONDS = 1.0


class AccountWatch:
    """What each account's provider said. An account that is refused is named in the log, in a metric and in `/readyz`,
    which stays as it is: the others go on. It is asked about again until it is good."""

    def __init__(self, providers: Providers, health: Health) -> None:
        self._providers = providers
        self._health = health
        self._asked: dict[int, _Asked] = {}

    def usable(self, owned: OwnedAccount) -> bool:
        """Whether the account, with the settings it has now, was asked about and not refused."""
        asked = self._asked.get(owned.account.account_no)
        return asked is not None and asked.account == owned.account and asked.finding.verdict != "refused"

    def due(self, owned: OwnedAccount) -> bool:
        """Whether it is time to ask about the account: never asked with the settings it has now, or not good then."""
        asked = self._asked.get(owned.account.account_no)
        if asked is None or asked.account != owned.account:
            return True
        return asked.finding.verdict != "good" and time.monotonic() >= asked.at + AGAIN_SECONDS

    async def look(self, accounts: Sequence[OwnedAccount]) -> list[Finding]:
        """Asks about every account whose time it is."""
        asking = [owned for owned in accounts if self.due(owned)]
        findings = await check_accounts(self._providers, asking)
        for owned, finding in zip(asking, findings, strict=True):
            self._note(owned, finding)
        self._tell()
        return findings

    def forget(self, account_no: int) -> None:
        """An account was removed: nothing is said of it any more."""
        asked = self._asked.pop(account_no, None)
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
            await self.look([owned])
            if account() == owned and self.usable(owned):
                return True
            await process.pause(LOOK_SECONDS)
        return False

    async def run(self, process: Process, accounts: Callable[[], Sequence[OwnedAccount]]) -> None:
        """Looks again and again until the process is told to stop; what it saw and is not there any more is
        forgotten."""
        seen: set[int] = set()
        while not process.stopping.is_set():
            present = accounts()
            numbers = {owned.account.account_no for owned in present}
            for account_no in seen - numbers:
                self.forget(account_no)
            seen = numbers
            await self.look(present)
            await process.pause(LOOK_SECONDS)

    def _tell(self) -> None:
        refused = (asked.finding.name for asked in self._asked.values() if asked.finding.verdict == "refused")
        self._health.refused_accounts = sorted(refused)

    def _note(self, owned: OwnedAccount, finding: Finding) -> None:
        before = self._asked.get(owned.account.account_no)
        self._asked[owned.account.account_no] = _Asked(owned.account, finding, time.monotonic())
        ACCOUNT_USABLE.labels(finding.name).set(finding.verdict != "refused")
        if before is not None and before.finding == finding:
            return
        told = {"account": account_name(owned), "provider": finding.provider, "says": finding.says}
        if finding.verdict == "refused":
            LOG.error("merchant account is refused: its debits wait, the others go on", **told)
        elif finding.verdict == "silent":
            LOG.warning("a provider does not answer", **told)
        elif before is not None:
            LOG.info("merchant account is good again", **told)


class _Asked(msgspec.Struct, frozen=True):
    """What an account was when it was asked about, what was found, and when by the machine's monotonic clock."""

    account: AccountRow
    finding: Finding
    at: float
