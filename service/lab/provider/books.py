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
    Dispute,
    Entry,
    Hold,
    Kept,
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
        self.accounts_by_app_id: dict[str, Account] = {}
        self.accounts_by_mchid: dict[str, Account] = {}
        self.wallets: dict[tuple[str, str], Wallet] = {}
        self.agreements: dict[Key, Agreement] = {}
        self.agreements_by_number: dict[int, Agreement] = {}
        self.holds: dict[Key, Hold] = {}
        self.holds_by_number: dict[int, Hold] = {}
        self.running_holds: defaultdict[Key, set[str]] = defaultdict(set)  # By rider.
        self.debits: dict[Key, Debit] = {}
        self.debits_by_number: dict[int, Debit] = {}
        self.debits_of_hold: defaultdict[Key, set[int]] = defaultdict(set)
        self.unpaid_debits: defaultdict[Key, set[int]] = defaultdict(set)  # By rider.
        self.refunds: dict[Key, Refund] = {}
        self.refunds_by_number: dict[int, Refund] = {}
        self.refunds_of_debit: defaultdict[int, set[int]] = defaultdict(set)
        self.entries: list[Entry] = []
        self.moved: defaultdict[str, list[Entry]] = defaultdict(list)  # By the number of a debit or a refund.
        self.reports: dict[tuple[str, str, str], Report] = {}
        self.kept: dict[Key, Kept] = {}
        self.notices: dict[int, Notice] = {}  # Those still to be delivered.
        self.due: list[tuple[datetime, int, str]] = []  # (when, number, table): what the clock decides next
        self.due_notices: list[tuple[datetime, int]] = []
        self.before: dict[int, tuple[datetime, Row | None]] = {}  # When a row last changed, and what it was before.
        self.now: Callable[[], datetime] | None = None
        self.disputes: dict[int, Dispute] = {}
        self.disputes_of_debit: defaultdict[int, set[int]] = defaultdict(set)
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
        if self.now:
            self._remember(rows, self.now())
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

    def disputes_of(self, debit_number: int) -> Sequence[Dispute]:
        """What the rider disputed of a debit."""
        return [self.disputes[number] for number in sorted(self.disputes_of_debit.get(debit_number, ()))]

    def _remember(self, rows: Sequence[Row], now: datetime) -> None:
        """Keeps what stood there before, for queries that lag."""
        for row in rows:
            match row:
                case Agreement(number=number):
                    self.before[number] = (now, self.agreements_by_number.get(number))
                case Hold(number=number):
                    self.before[number] = (now, self.holds_by_number.get(number))
                case Debit(number=number):
                    self.before[number] = (now, self.debits_by_number.get(number))
                case Refund(number=number):
                    self.before[number] = (now, self.refunds_by_number.get(number))

    def _apply(self, row: Row) -> None:
        match row:
            case Debit():
                self._apply_debit(row)
            case Entry():
                self.entries.append(row)
                if row.what in ("debit", "refund"):
                    self.moved[row.ref].append(row)
            case Wallet():
                self.wallets[row.rider, row.currency] = row
                return
            case Hold():
                self._apply_hold(row)
            case Agreement():
                self.agreements[row.account_id, row.asked.key] = self.agreements_by_number[row.number] = row
            case Refund():
                self.refunds[row.account_id, row.asked.key] = self.refunds_by_number[row.number] = row
                self.refunds_of_debit[row.debit_number].add(row.number)
                self._schedule(row.next_at, row.number, "refund")
            case Notice():
                self._apply_notice(row)
            case Dispute():
                self.disputes[row.number] = row
                self.disputes_of_debit[row.debit_number].add(row.number)
            case Kept():
                self.kept[row.account_id, row.request] = row
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
        if known and known.alipay:
            self.accounts_by_app_id.pop(known.alipay.app_id, None)
        if known and known.wechatpay:
            self.accounts_by_mchid.pop(known.wechatpay.mchid, None)
        self.accounts[row.account_id] = row
        if row.api_key:
            self.accounts_by_api_key[row.api_key] = row
        if row.alipay:
            self.accounts_by_app_id[row.alipay.app_id] = row
        if row.wechatpay:
            self.accounts_by_mchid[row.wechatpay.mchid] = row

    def _apply_hold(self, row: Hold) -> None:
        known = self.holds_by_number.get(row.number)
        if known and known.rider != row.rider:  # Whoever confirms an offered hold is its rider.
            self.running_holds[known.account_id, known.rider].discard(known.asked.key)
        self.holds[row.account_id, row.asked.key] = self.holds_by_number[row.number] = row
        running = self.running_holds[row.account_id, row.rider]
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
        unpaid = self.unpaid_debits[row.account_id, row.rider]
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
