"""Refunds of our payments that nobody here ordered, in PostgreSQL."""

from __future__ import annotations

from datetime import datetime

import msgspec

from service.adapters.postgres import Store


class UnorderedRefund(msgspec.Struct, frozen=True):
    """What a provider says was given back of a debit, and nobody here ordered; `amount_minor` None: not how much."""

    ride_no: int
    ordinal: int
    session_id: str
    refund_ref: str
    payment_ref: str
    amount_minor: int | None
    currency: str
    told_at: datetime


class UnorderedStore(Store):
    """What was told of them, until a person has booked it."""

    async def keep(
        self,
        account_no: int,
        refund_ref: str,
        debit: tuple[int, int],
        payment_ref: str,
        amount_minor: int | None,
        now: datetime,
    ) -> bool:
        """Keeps that a payment of the debit was given back by nobody here; False: it is known."""
        about = (account_no, refund_ref, *debit, payment_ref, amount_minor, now)
        return bool(await self.run("keep_unordered_refund", *about))

    async def book(
        self, account_no: int, refund_ref: str, debit: tuple[int, int], amount_minor: int, now: datetime
    ) -> bool:
        """Whether so much was told to be given back of the debit by that refund, and nobody has booked it yet."""
        about = (account_no, refund_ref, *debit, amount_minor, now)
        return bool(await self.run("book_unordered_refund", *about))

    async def fail(
        self, account_no: int, refund_ref: str, debit: tuple[int, int], payment_ref: str, now: datetime
    ) -> int:
        """It has come to nothing; returns how much of it was booked: none when it was told again."""
        row = await self.one("fail_unordered_refund", account_no, refund_ref, *debit, payment_ref, now)
        return 0 if row is None else int(row["booked_minor"])

    async def of_operator(self, operator_no: int, limit: int) -> list[UnorderedRefund]:
        """What was given back of an operator's payments by nobody here, and is not booked, the oldest first."""
        return [UnorderedRefund(**dict(row)) for row in await self.all("unordered_refunds", operator_no, limit)]
