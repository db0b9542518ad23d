"""Agreements for replayed trips, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from service.adapters.postgres.operators import KnownOperator
from service.adapters.postgres.rides import RideStore

ACCOUNT = "replay"
NO_PROVIDER = "http://127.0.0.1:9"
"""Where nobody answers (the discard port): a replay's account is stopped, and no debit is ever submitted to it."""


class ReplayStore(RideStore):
    """What a replay puts there before its events."""

    async def ensure_agreements(
        self, operator: KnownOperator, ids: Sequence[str], keys: Sequence[str], currency: str, now: datetime
    ) -> None:
        """Makes the account, riders and active agreements that are not there; `keys` are the provider's."""
        number = operator.operator_no
        await self.run("ensure_replay_account", number, ACCOUNT, NO_PROVIDER, now)
        await self.run("stop_replay_account", number, ACCOUNT, now)
        await self.run("ensure_replay_riders", number, list(ids))
        settled = (currency, operator.time_zone, now)
        await self.run("ensure_replay_agreements", number, ACCOUNT, list(ids), list(keys), *settled)
