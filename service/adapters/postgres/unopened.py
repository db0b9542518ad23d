"""What riders may still open of holds that were given up, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from service.adapters.postgres.agreements import AccountRow, AgreementStore, account_row


class Unopened(msgspec.Struct, frozen=True):
    """The key of a hold that was given up, taken until `lease_until`, with its account."""

    provider_key: str
    given_up_at: datetime
    lease_until: datetime
    account: AccountRow


class UnopenedStore(AgreementStore):
    """Keys of holds that their riders may still open."""

    async def leave_unopened(self, provider_key: str, account_no: int, now: datetime, due_at: datetime) -> None:
        """A hold is given up whose rider may still open what he was given."""
        await self.run("leave_unopened", provider_key, account_no, now, due_at)

    async def wake_unopened(self, provider_key: str, account_no: int, now: datetime) -> bool:
        """There is news of it; False where nothing of that key is left unopened."""
        return bool(await self.run("wake_unopened", provider_key, account_no, now))

    async def claim_unopened(
        self, account_no: int, now: datetime, machine_at: datetime, lease_until: datetime, limit: int
    ) -> Sequence[Unopened]:
        """Takes a lease on what of an account is to be looked for."""
        rows = await self.all("claim_unopened", account_no, now, machine_at, lease_until, limit)
        taken = sorted(rows, key=lambda row: str(row["provider_key"]))
        return [
            Unopened(row["provider_key"], row["given_up_at"], row["lease_until"], account_row(row)) for row in taken
        ]

    async def unopened_later(self, left: Unopened, due_at: datetime) -> None:
        """It is not over; nothing changes where it was told of while it was looked for."""
        await self.run("unopened_later", left.provider_key, left.account.account_no, left.lease_until, due_at)

    async def forget_unopened(self, left: Unopened) -> None:
        """It is over at its provider."""
        await self.run("forget_unopened", left.provider_key, left.account.account_no)
