"""What the books add up to: the oracle of the tests, of the auditor and of the demo."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec

from service.lab.provider.books import Books


class AccountSum(msgspec.Struct):
    """A merchant account in one currency; amounts in minor units. `charged_back_minor` is with riders' banks: while a
    chargeback is open, and for good when it was lost."""

    account_id: str
    currency: str
    debits: dict[str, int]  # By state.
    debits_paid: int  # Debits under which money moved.
    paid_minor: int
    refunded_minor: int
    charged_back_minor: int
    fees_minor: int
    open_holds: int


class BooksSummary(msgspec.Struct):
    """`problems` is empty while the books explain themselves."""

    wallets: int
    agreements: dict[str, int]
    holds: dict[str, int]
    accounts: list[AccountSum]
    notices_waiting: int
    problems: list[str]


class DebitLine(msgspec.Struct):
    """A debit for comparison with what the merchant believes."""

    key: str
    ref: str
    agreement: str
    hold: str | None
    rider: str
    subject: str
    currency: str
    state: str
    amount_minor: int
    paid_minor: int
    refunded_minor: int
    charged_back_minor: int
    payments: int  # Movements to the merchant.


def summarize(books: Books) -> BooksSummary:
    """Adds everything up."""
    sums: dict[tuple[str, str], AccountSum] = {}

    def of(account_id: str, currency: str) -> AccountSum:
        return sums.setdefault((account_id, currency), AccountSum(account_id, currency, {}, 0, 0, 0, 0, 0, 0))

    for debit in books.debits_by_number.values():
        total = of(debit.account_id, debit.asked.currency)
        total.debits[debit.state] = total.debits.get(debit.state, 0) + 1
        total.debits_paid += debit.paid_minor > 0
        total.paid_minor += debit.paid_minor
        total.refunded_minor += debit.refunded_minor
        total.charged_back_minor += charged_back_minor(books, debit.number)
    for entry in books.entries:
        if entry.what == "fee":
            of(entry.account_id, entry.currency).fees_minor += entry.amount_minor
    for hold in books.holds.values():
        of(hold.account_id, hold.asked.currency).open_holds += hold.state == "open"
    return BooksSummary(
        wallets=len(books.wallets),
        agreements=dict(Counter(agreement.state for agreement in books.agreements.values())),
        holds=dict(Counter(hold.state for hold in books.holds.values())),
        accounts=[sums[at] for at in sorted(sums)],
        notices_waiting=len(books.notices),
        problems=problems(books),
    )


def debit_lines(books: Books, account_id: str | None) -> list[DebitLine]:
    """Every debit, of one merchant account or of all."""
    payments = Counter(entry.ref for entry in books.entries if entry.what == "debit")
    return [
        DebitLine(
            debit.asked.key,
            debit.ref,
            debit.asked.agreement,
            debit.asked.hold,
            debit.rider,
            debit.asked.subject,
            debit.asked.currency,
            debit.state,
            debit.amount_minor,
            debit.paid_minor,
            debit.refunded_minor,
            charged_back_minor(books, debit.number),
            payments[debit.ref],
        )
        for debit in books.debits_by_number.values()
        if account_id in (None, debit.account_id)
    ]


def charged_back_minor(books: Books, debit_number: int) -> int:
    """What the rider's bank has of a debit."""
    held = (one for one in books.disputes_of(debit_number) if one.kind == "chargeback" and one.state != "won")
    return sum(one.amount_minor for one in held)


def problems(books: Books) -> list[str]:
    """What does not add up: wallets against the ledger, debits and refunds against their entries."""
    balances: defaultdict[tuple[str, str], int] = defaultdict(int)
    moved: defaultdict[str, int] = defaultdict(int)
    for entry in books.entries:
        balances[entry.payer, entry.currency] -= entry.amount_minor
        balances[entry.payee, entry.currency] += entry.amount_minor
        if entry.what != "fee":
            moved[entry.ref] += -entry.amount_minor if entry.what == "refund_returned" else entry.amount_minor
    found = []
    for (rider, currency), wallet in books.wallets.items():
        booked = balances[f"wallet:{rider}", currency]
        if booked != wallet.balance_minor:
            found.append(f"wallet {rider} {currency} has {wallet.balance_minor}, its entries say {booked}")
    for debit in books.debits_by_number.values():
        if moved[debit.ref] != debit.paid_minor:
            found.append(f"debit {debit.ref} says {debit.paid_minor} paid, its entries say {moved[debit.ref]}")
        if not debit.refunded_minor <= debit.paid_minor <= debit.amount_minor:
            found.append(f"debit {debit.ref}: refunded, paid, amount are out of order")
    for refund in books.refunds_by_number.values():
        expected = refund.asked.amount_minor if refund.state == "paid" else 0
        if moved[refund.ref] != expected:
            found.append(f"refund {refund.ref} is {refund.state}, its entries say {moved[refund.ref]}")
    for dispute in books.disputes.values():
        # A chargeback's money goes to the bank, and from there to whoever was right.
        moves = 0 if dispute.kind == "complaint" else 1 if dispute.state == "open" else 2
        if moved[dispute.ref] != moves * dispute.amount_minor:
            found.append(f"dispute {dispute.ref} is {dispute.state}, its entries say {moved[dispute.ref]}")
    return found
