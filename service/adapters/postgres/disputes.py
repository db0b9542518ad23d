"""Disputes that providers only announced, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from service.adapters.postgres import Store
from service.adapters.postgres.agreements import AccountRow, account_row


class DisputeQuestion(msgspec.Struct, frozen=True):
    """A dispute to be asked about, by the provider's number of it; `asks` counts answers that told nothing."""

    account: AccountRow
    dispute_ref: str
    asks: int
    version: int
    created_at: datetime


class DisputeStore(Store):
    """What is to be asked about disputes."""

    async def announce(self, account_no: int, dispute_ref: str, now: datetime) -> None:
        """The dispute is to be asked about now."""
        await self.run("announce_dispute", account_no, dispute_ref, now)

    async def claim(
        self, account_no: int, now: datetime, machine_at: datetime, lease_until: datetime, limit: int
    ) -> Sequence[DisputeQuestion]:
        """Takes a lease on an account's questions that are due."""
        rows = await self.all("claim_dispute_questions", account_no, now, machine_at, lease_until, limit)
        return [
            DisputeQuestion(account_row(row), row["dispute_ref"], row["asks"], row["version"], row["created_at"])
            for row in rows
        ]

    async def later(self, question: DisputeQuestion, asks: int, due_at: datetime) -> None:
        """It is asked again at `due_at`."""
        named = (question.account.account_no, question.dispute_ref, question.version)
        await self.run("ask_dispute_later", *named, asks, due_at)

    async def forget(self, question: DisputeQuestion) -> None:
        """Nothing more is to be asked about it. Announced again meanwhile, it is asked about when the lease is over."""
        await self.run("forget_dispute_question", question.account.account_no, question.dispute_ref, question.version)
