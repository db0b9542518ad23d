"""One call at the face: who calls, when, about which row of the books."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from service.lab.provider.desk import Desk
from service.lab.provider.refusals import RefusedError, unknown
from service.lab.provider.rows import Account, Agreement, Debit, Hold, Kept, Refund, Row, WeChatMerchant
from service.lab.provider.wechatpay.wire import openid

Answer = dict[str, Any]
Shown = TypeVar("Shown", Agreement, Hold, Debit, Refund)


class Visit(msgspec.Struct, frozen=True):
    """A merchant's call that was let in; `now` is the provider's clock, `lag_s` how old a copy a query is shown."""

    desk: Desk
    account: Account
    now: datetime
    lag_s: float = 0.0

    @property
    def merchant(self) -> WeChatMerchant:
        """Who calls."""
        assert self.account.wechatpay is not None
        return self.account.wechatpay

    def under(self, **terms: Any) -> Account:
        """The account under the terms that a product has by itself."""
        return replace(self.account, terms=replace(self.account.terms, **terms))

    def check(self, appid: str | None, service_id: str | None) -> None:
        """Raises RefusedError unless both are the merchant's own (None: not asked for here)."""
        if appid not in (None, self.merchant.appid):
            raise RefusedError(400, "271302149", "the appid is not bound to the mchid")
        if service_id not in (None, self.merchant.service_id):
            raise RefusedError(403, "268503786", "the service_id is not this merchant's")

    def seen(self, row: Shown) -> Shown:
        """The row as a query sees it; RefusedError when the copy it is shown does not have it yet."""
        return self.desk.seen(row, self.lag_s, self.now)

    def agreement(self, code: str) -> Agreement:
        """The permission of an authorization_code; RefusedError."""
        found = self.desk.books.agreements.get((self.account.account_id, code))
        if found is None:
            raise unknown("permission")
        return found

    def code_of(self, whose: str) -> str:
        """The authorization_code by which the rider of an openid gave his permission last, "" if he never did."""
        return str((self.kept(f"openid/{whose}") or {}).get("authorization_code", ""))

    def rider_of(self, whose: str) -> str:
        """The rider of an openid; one who is not known yet is called by it."""
        return str((self.kept(f"openid/{whose}") or {}).get("rider", whose))

    def openid_of(self, rider: str) -> str:
        """The rider's openid in the merchant's app."""
        return openid(rider, self.merchant.appid)

    def unpaid_orders(self, rider: str) -> int:
        """How many completed orders of a rider wait to be paid; payments he approves himself are none."""
        books = self.desk.books
        numbers = books.unpaid_debits.get((self.account.account_id, rider), ())
        return sum(books.debits_by_number[number].asked.hold is not None for number in numbers)

    def debit(self, key: str) -> Debit | None:
        """The debit of an order, or a transaction, by the merchant's number."""
        return self.desk.books.debits.get((self.account.account_id, key))

    def kept(self, request: str) -> Answer | None:
        """What was kept under a name."""
        known = self.desk.books.kept.get((self.account.account_id, request))
        return msgspec.json.decode(known.answer) if known else None

    def keep(self, request: str, told: Answer, *rows: Row) -> Answer:
        """Keeps what the core has no room for under a name, together with rows."""
        books = self.desk.books
        text = msgspec.json.encode(told).decode()
        books.put(*rows, Kept(books.next_number(), self.account.account_id, request, text))
        return told
