"""News of disputes about debits whose provider number is not known here yet, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from service.adapters.postgres import Store
from service.adapters.providers.port import DisputeStatus


class Unheard(msgspec.Struct, frozen=True):
    """A dispute that was told of a debit that nobody knew; `asks` counts how often it was looked for since."""

    status: DisputeStatus
    asks: int
    created_at: datetime


class UnheardStore(Store):
    """What is told of disputes before their debits are known."""

    async def keep(self, account_no: int, status: DisputeStatus, now: datetime) -> None:
        """Keeps what was told, to be told again; how a dispute ended is not forgotten for older news of it."""
        said = msgspec.json.encode(status).decode()
        name, kind, dispute_ref = _named(status)
        about = (name, kind, status.state, said, now, dispute_ref)
        await self.run("keep_unheard", account_no, *about, status.told_at or now)

    async def due(self, account_no: int, now: datetime, unheard_max: int) -> Sequence[Unheard]:
        """What is to be told again, locked until commit."""
        rows = await self.all("unheard_due", account_no, now, unheard_max)
        return [Unheard(_STATUS.decode(row["status"]), row["asks"], row["created_at"]) for row in rows]

    async def later(self, account_no: int, status: DisputeStatus, due_at: datetime) -> None:
        """Its debit is not known yet."""
        await self.run("unheard_later", account_no, *_named(status), due_at)

    async def forget(self, account_no: int, status: DisputeStatus) -> None:
        """It is heard, or nobody will ever know it."""
        await self.run("forget_unheard", account_no, *_named(status))


def _named(status: DisputeStatus) -> tuple[str, str, str]:
    """What is kept once: what its debit is called, by us if the provider says so (that never changes, and he may come
    to have a number of his own); its kind, and the dispute's number."""
    return status.key or status.debit_ref, status.kind, status.provider_ref or ""


_STATUS = msgspec.json.Decoder(DisputeStatus)
