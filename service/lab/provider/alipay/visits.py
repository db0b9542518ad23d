"""One call at the gateway: who calls, when, about which row of the books."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from service.lab.provider.alipay.wire import row_number
from service.lab.provider.desk import Desk
from service.lab.provider.refusals import RefusedError, unknown
from service.lab.provider.rows import Account, Agreement, Debit, Hold, Kept, Refund, Row

Answer = dict[str, Any]
Shown = TypeVar("Shown", Agreement, Hold, Debit, Refund)


class Visit(msgspec.Struct, frozen=True):
    """A merchant's call that was let in; `now` is the provider's clock, `lag_s` how old a copy a query is shown."""

    desk: Desk
    account: Account
    now: datetime
    notify_url: str | None = None
    lag_s: float = 0.0

    def under(self, **terms: Any) -> Account:
        """The account under the terms that a product has by itself."""
        return replace(self.account, terms=replace(self.account.terms, **terms))

    def agreement(self, number: str | None, key: str | None) -> Agreement:
        """An agreement by the provider's number or the merchant's; RefusedError."""
        books, who = self.desk.books, self.account.account_id
        found = books.agreements_by_number.get(row_number(number)) if number else books.agreements.get((who, key or ""))
        if found is None or found.account_id != who:
            raise RefusedError(404, "NO_AGREEMENT", "the agreement does not exist")
        return found

    def hold(self, number: str | None, key: str | None) -> Hold:
        """An order or authorisation by the provider's number or the merchant's; RefusedError."""
        books, who = self.desk.books, self.account.account_id
        found = books.holds_by_number.get(row_number(number)) if number else books.holds.get((who, key or ""))
        if found is None or found.account_id != who:
            raise unknown("order")
        return found

    def trade(self, number: str | None, key: str | None) -> Debit:
        """A trade by the provider's number or the merchant's; RefusedError."""
        books, who = self.desk.books, self.account.account_id
        found = books.debits_by_number.get(row_number(number)) if number else books.debits.get((who, key or ""))
        if found is None or found.account_id != who:
            raise unknown("trade")
        return found

    def seen(self, row: Shown) -> Shown:
        """The row as a query sees it; RefusedError when the copy it is shown does not have it yet."""
        return self.desk.seen(row, self.lag_s, self.now)

    def kept(self, request: str) -> Answer | None:
        """What this request number was answered before."""
        known = self.desk.books.kept.get((self.account.account_id, request))
        return msgspec.json.decode(known.answer) if known else None

    def keep(self, request: str, answer: Answer, *rows: Row) -> Answer:
        """Remembers the answer to a request number, together with what it did."""
        books = self.desk.books
        text = msgspec.json.encode(answer).decode()
        books.put(*rows, Kept(books.next_number(), self.account.account_id, request, text))
        return answer
