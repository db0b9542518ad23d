"""What tells one face's notifications from another's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from service.lab.provider.books import Books
from service.lab.provider.desk import Desk
from service.lab.provider.rows import Account, Agreement, Debit, Dispute, Hold, Notice, Refund, Row

Told = Agreement | Hold | Debit | Refund | Dispute
"""Rows whose changes a merchant may be told."""


class Letter(msgspec.Struct, frozen=True):
    """A notification as it goes out: signed."""

    headers: dict[str, str]
    body: bytes


class Face(Protocol):
    """One face's way of telling merchants what happened."""

    @property
    def retry_s(self) -> tuple[int, ...]:
        """Waits after each attempt that was not taken, seconds of the provider's clock; then it is given up."""

    def notice(self, desk: Desk, account: Account, row: Told, before: Told | None) -> Notice | None:
        """What the change of a row is worth telling, to be kept with it; None: nothing."""

    def letter(self, account: Account, notice: Notice, now: datetime, *, skew_s: float = 0.0) -> Letter:
        """The notification, signed now; `skew_s`: its time is so many seconds off."""

    def tampered(self, letter: Letter) -> Letter:
        """The same with its body changed after it was signed."""

    def strange(self, notice: Notice) -> Notice:
        """The same with a state that nobody listed."""

    def taken(self, status: int, body: bytes) -> bool:
        """Whether the merchant's answer means that it need not come again."""


def before(books: Books, row: Told) -> Told | None:
    """What stands in the books where this row is about to be put."""
    tables: Mapping[type, Mapping[int, Told]] = {
        Agreement: books.agreements_by_number,
        Hold: books.holds_by_number,
        Debit: books.debits_by_number,
        Refund: books.refunds_by_number,
        Dispute: books.disputes,
    }
    return tables[type(row)].get(row.number)


def changed(row: Told, known: Told | None) -> bool:
    """Whether a row's state, or what was paid of it, is new."""
    if known is None:
        return True
    amounts = ("paid_minor", "freed_minor")
    return row.state != known.state or any(getattr(row, name, 0) != getattr(known, name, 0) for name in amounts)


def notices_of(desk: Desk, faces: Mapping[str, Face]) -> Callable[[Row], Notice | None]:
    """What tells whether a row that is about to be kept is worth a notification."""

    def notice_of(row: Row) -> Notice | None:
        if not isinstance(row, Told):
            return None
        account = desk.books.accounts[row.account_id]
        known = before(desk.books, row)
        return faces[account.face].notice(desk, account, row, known) if changed(row, known) else None

    return notice_of
