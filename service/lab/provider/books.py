"""The provider's books: every row by its keys, the money in the wallets, and a ledger that must explain them."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime

from service.lab.provider.journal import Journal
from service.lab.provider.rows import (
    Account,
    Agreement,
    ClockSet,
    Debit,
    Entry,
    Hold,
    Notice,
    Refund,
    Report,
    Row,
    Wallet,
)

Key = tuple[str, str]  # (merchant account, the merchant's key)


class Books:
    """All rows in memory, changed only by `put`, which writes them to the journal first."""

    def __init__(self, journal: Journal | None, wallet_balance_minor: int) -> None:
        self.wallet_balance_minor = wallet_balance_minor
        self.clock: ClockSet | None = None
        self.accounts: dict[str, Account] = {}
        self.accounts_by_api_key: dict[str, Account] = {}
        self.wallets: dict[tuple[str, str], Wallet] = {}
        self.agreements: dict[Key, Agreement] = {}
        self.holds: dict[Key, Hold] = {}
        self.running_holds: defaultdict[Key, set[str]] = defaultdict(set)
        self.debits: dict[Key, Debit] = {}
        self.debits_by_number: dict[int, Debit] = {}
        self.debits_of_hold: defaultdict[Key, set[int]] = defaultdict(set)
        self.unpaid_debits: defaultdict[Key, set[int]] = defaultdict(set)
        self.refunds: dict[Key, Refund] = {}
        self.refunds_by_number: dict[int, Refund] = {}
        self.refunds_of_debit: defaultdict[int, set[int]] = defaultdict(set)
        self.entries: list[Entry] = []
        self.reports: dict[tuple[str, str, str], Report] = {}
        self.notices: dict[int, Notice] = {}  # Those still to be delivered.
        self.due: list[tuple[datetime, int, str]] = []  # (when, number, table): what the clock decides next
        self.due_notices: list[tuple[datetime, int]] = []
        self.notice_of: Callable[[Row], Notice | None] = lambda _: None
        self._number = 0
        self._journal = journal
        for rows in journal.read() if journal else ():
            for row in rows:
                self._apply(row)

    def close(self) -> None:
        """Closes the journal."""
        if self._journal:
            self._journal.close()

    def next_number(self) -> int:
        """A number nothing in these books has had; it goes up."""
        self._number += 1
        return self._number

    def put(self, *rows: Row) -> None:
        """Keeps rows as they are now, with the notices they are worth, all or none: to the journal, then in memory."""
        notices = [notice for row in rows if (notice := self.notice_of(row))]
        if notices:
            rows = (*rows, *notices)
        if self._journal:
            self._journal.append(rows)
        for row in rows:
            self._apply(row)

    def wallet(self, rider: str, currency: str) -> Wallet:
        """The rider's wallet as it is; a rider never seen before has the usual balance (see `opening`)."""
        return self.wallets.get((rider, currency)) or Wallet(rider, currency, self.wallet_balance_minor)

    def opening(self, rider: str, currency: str, now: datetime) -> Sequence[Row]:
        """The rows that open a rider's wallet, none if it is open: its money comes from outside, by an entry."""
        if (rider, currency) in self.wallets:
            return ()
        wallet = self.wallet(rider, currency)
        if not wallet.balance_minor:
            return (wallet,)
        what = ("opening", "", rider, "", "outside", f"wallet:{rider}", wallet.balance_minor, currency, now)
        return (wallet, Entry(self.next_number(), *what))

    def _apply(self, row: Row) -> None:
        match row:
            case Debit():
                self._apply_debit(row)
            case Entry():
                self.entries.append(row)
            case Wallet():
                self.wallets[row.rider, row.currency] = row
                return
            case Hold():
                self._apply_hold(row)
            case Agreement():
                self.agreements[row.account_id, row.asked.key] = row
            case Refund():
                self.refunds[row.account_id, row.asked.key] = self.refunds_by_number[row.number] = row
                self.refunds_of_debit[row.debit_number].add(row.number)
                self._schedule(row.next_at, row.number, "refund")
            case Notice():
                self._apply_notice(row)
            case Report():
                self.reports[row.account_id, row.debit, row.kind] = row
            case Account():
                self._apply_account(row)
                return
            case ClockSet():
                self.clock = row
                return
        self._number = max(self._number, row.number)

    def _apply_account(self, row: Account) -> None:
        known = self.accounts.get(row.account_id)
        if known:
            self.accounts_by_api_key.pop(known.api_key, None)
        self.accounts[row.account_id] = self.accounts_by_api_key[row.api_key] = row

    def _apply_hold(self, row: Hold) -> None:
        self.holds[row.account_id, row.asked.key] = row
        running = self.running_holds[row.account_id, row.asked.agreement]
        if row.state in ("open", "pending"):
            running.add(row.asked.key)
        else:
            running.discard(row.asked.key)

    def _apply_debit(self, row: Debit) -> None:
        self.debits_by_number[row.number] = row
        newest = self.debits.get((row.account_id, row.asked.key))
        if newest is None or newest.number <= row.number:  # A forgotten key was used again for another debit.
            self.debits[row.account_id, row.asked.key] = row
        if row.asked.hold:
            self.debits_of_hold[row.account_id, row.asked.hold].add(row.number)
        unpaid = self.unpaid_debits[row.account_id, row.asked.agreement]
        if row.state in ("accepted", "declined"):
            unpaid.add(row.number)
        else:
            unpaid.discard(row.number)
        self._schedule(row.next_at, row.number, "debit")

    def _apply_notice(self, row: Notice) -> None:
        if row.next_at is None:
            self.notices.pop(row.number, None)
        else:
            self.notices[row.number] = row
            heapq.heappush(self.due_notices, (row.next_at, row.number))

    def _schedule(self, at: datetime | None, number: int, table: str) -> None:
        if at is not None:
            heapq.heappush(self.due, (at, number, table))
