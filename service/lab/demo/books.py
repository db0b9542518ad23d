"""What each provider's own books say was taken and given back: the other opinion about every payment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import asyncpg
import msgspec

from service.lab.demo.merchants import NAMES, PROVIDERS, Places
from service.lab.localstripe import Books
from service.lab.provider.oracle import DebitLine

CLEARING = 4
"""The first digit of an account's number (service.billing.ledger)."""
KEY = "farebox_key"
"""Of what Farebox made at Stripe: the key of its debit."""


class Taken(msgspec.Struct, frozen=True):
    """A debit at a provider. `names`: what may say whose it is, our key of the debit first, or of its hold. `payments`:
    how often money moved to the merchant. Minor units."""

    account_id: str
    names: tuple[str, ...]
    amount_minor: int
    paid_minor: int
    refunded_minor: int
    payments: int


class AccountLine(msgspec.Struct, frozen=True):
    """A merchant account in both books: ours beside the provider's (`their_*`). Amounts are minor units."""

    account_id: str
    name: str
    agreements: int
    holds: int
    settled: int
    their_settled: int
    net_minor: int
    their_net_minor: int
    refunds: int
    refunded_minor: int
    their_refunded_minor: int
    heard: int

    @property
    def disagreements(self) -> list[str]:
        """What is not the same in both books, in words."""
        pairs = {
            "debits settled": (self.settled, self.their_settled),
            "minor units taken, less what was given back": (self.net_minor, self.their_net_minor),
            "minor units given back": (self.refunded_minor, self.their_refunded_minor),
        }
        return [
            f"{self.name}: {ours} {what} here, {theirs} in the provider's books"
            for what, (ours, theirs) in pairs.items()
            if ours != theirs
        ]


async def read_books(places: Places) -> list[Taken]:
    """Every debit under which money may have moved, at every provider."""
    async with aiohttp.ClientSession() as session:
        found: list[Taken] = []
        for account_id in (name for name, provider in PROVIDERS.items() if provider != "stripe"):
            found += [_line(account_id, line) for line in await _of_account(session, places, account_id)]
        return found + await _at_stripe(session, places)


async def _of_account(session: aiohttp.ClientSession, places: Places, account_id: str) -> list[DebitLine]:
    async with session.get(f"{places.provider}/books/debits", params={"account": account_id}) as answer:
        answer.raise_for_status()
        return msgspec.json.decode(await answer.read(), type=list[DebitLine])


def _line(account_id: str, line: DebitLine) -> Taken:
    names = (line.key, line.key[:-2] if line.key[-2:-1] == "_" else line.key, line.hold or line.key)
    return Taken(account_id, names, line.amount_minor, line.paid_minor, line.refunded_minor, line.payments)


async def _at_stripe(session: aiohttp.ClientSession, places: Places) -> list[Taken]:
    """Payments by their charges: what a card was really debited."""
    books = Books(places.cards, session)
    keys = {payment["id"]: payment["metadata"].get(KEY, "") for payment in await books.list_all("payment_intents")}
    return [
        Taken("stripe", (keys.get(charge["payment_intent"], ""),), charge["amount"], *_moved(charge))
        for charge in await books.list_all("charges")
    ]


def _moved(charge: dict[str, Any]) -> tuple[int, int, int]:
    paid = charge["amount"] if charge["paid"] and charge["captured"] else 0
    return paid, charge["amount_refunded"], int(paid > 0)


async def compare(connection: asyncpg.Connection[asyncpg.Record], taken: Iterable[Taken]) -> list[AccountLine]:
    """Each merchant account in both books."""
    rows = await connection.fetch(_OURS, CLEARING)
    theirs: Mapping[str, Counter[str]] = {row["account_id"]: Counter() for row in rows}
    for debit in taken:
        sums = theirs[debit.account_id]
        sums["settled"] += debit.paid_minor >= debit.amount_minor > 0
        sums["paid"] += debit.paid_minor
        sums["refunded"] += debit.refunded_minor
    return [
        AccountLine(
            account_id=row["account_id"],
            name=NAMES[row["account_id"]],
            agreements=row["agreements"],
            holds=row["holds"],
            settled=row["settled"],
            their_settled=theirs[row["account_id"]]["settled"],
            net_minor=row["net"],
            their_net_minor=theirs[row["account_id"]]["paid"] - theirs[row["account_id"]]["refunded"],
            refunds=row["refunds"],
            refunded_minor=row["refunded"],
            their_refunded_minor=theirs[row["account_id"]]["refunded"],
            heard=row["heard"],
        )
        for row in rows
    ]


_OURS = (
    "SELECT m.account_id,"
    " (SELECT count(*) FROM agreement a WHERE a.account_no = m.account_no AND a.state = 'active') AS agreements,"
    " (SELECT count(*) FROM hold h WHERE h.account_no = m.account_no AND h.provider_ref IS NOT NULL) AS holds,"
    " (SELECT count(*) FROM debit d WHERE d.account_no = m.account_no AND d.state = 'settled') AS settled,"
    " (SELECT coalesce(sum(t.amount), 0)::bigint FROM ("
    "   SELECT debit_account AS account, amount_minor AS amount FROM transfer"
    "   UNION ALL SELECT credit_account, -amount_minor FROM transfer) t"
    "  WHERE t.account = $1 * 1000000000000000 + m.account_no) AS net,"
    " (SELECT count(*) FROM refund r WHERE r.account_no = m.account_no AND r.state = 'succeeded') AS refunds,"
    " (SELECT coalesce(sum(r.amount_minor), 0)::bigint FROM refund r"
    "  WHERE r.account_no = m.account_no AND r.state = 'succeeded') AS refunded,"
    " (SELECT coalesce(sum(n.times), 0)::bigint FROM notification n WHERE n.account_no = m.account_no) AS heard"
    " FROM merchant_account m ORDER BY m.account_no"
)
