"""Double entry: the transfers of every fact that moves money or says that it is owed (collection.md, the ledger).

A transfer moves a positive amount from a credit account to a debit account, so that imbalance can't be written. An
account is `kind * 10**15 + number`; what the number counts is the kind's.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from service.billing.events import AdjustmentKind

KIND = 10**15
"""Room for the numbers of one kind of account."""


class Account(IntEnum):
    """The kinds of accounts, each with what its number is."""

    RECEIVABLE = 1
    """By agreement: what riders owe."""
    REVENUE = 2
    """By tariff."""
    TAX = 3
    """By operator: tax payable."""
    CLEARING = 4
    """By merchant account: what the provider holds for the operator."""
    FEES = 5
    """By merchant account: what the provider keeps."""
    REFUNDS = 6
    """By operator: given back of charges that stand, because something was wrong."""
    WRITE_OFFS = 7
    """By operator: given up, less what came after all."""
    WAIVED = 8
    """By operator: too little for a debit."""
    ELSEWHERE = 9
    """By operator: paid to the operator outside, less what he gave back there."""
    CHARGEBACKS = 10
    """By operator: taken back by banks."""
    EXTRAS = 11
    """By operator: extra charges (damage, fines, tolls)."""
    GOODWILL = 12
    """By operator: forgone of charges that were right."""
    OPENING = 13
    """By operator: debts that another system had billed; their revenue and their tax stand in its books."""


class Fact(IntEnum):
    """What a transfer's ordinal counts depends on the fact; both are part of its primary key."""

    CHARGE = 1
    """The revision of the ride that charged, corrected, adjusted or voided."""
    SETTLEMENT = 2
    """The transition of the debit, as all facts of a debit: debit ordinal * 1,000,000 + transition."""
    REFUND = 3
    """Debit ordinal * 1,000,000 + number of the refund."""
    WRITE_OFF = 4
    RECOVERY = 5
    ELSEWHERE = 6
    WAIVER = 7
    CHARGEBACK = 8
    CHARGEBACK_WON = 9
    WRITE_OFF_BACK = 10
    WAIVER_BACK = 11
    DISPUTE_FEE = 12
    DISPUTE_FEE_BACK = 13
    REFUND_BACK = 14
    """The same number as its refund's."""
    ELSEWHERE_BACK = 15
    """Given back outside of what was paid there."""
    GIVEN_BACK = 16
    """Given back outside of what a provider has taken."""
    GIVEN_BACK_THERE = 17
    """Given back by the provider, and nobody here had ordered it."""
    GIVEN_BACK_FAILED = 18
    """And that came to nothing."""


OF_REFUNDS = frozenset({Fact.REFUND, Fact.REFUND_BACK})
"""Facts that are counted by refunds, and not by their debit's transitions."""


class Transfer(NamedTuple):
    """`amount_minor` > 0 moves from `credit_account` to `debit_account`."""

    debit_account: int
    credit_account: int
    amount_minor: int
    currency: str


def account(kind: Account, number: int) -> int:
    """The account of a kind with a number."""
    return kind * KIND + number


def account_name(account_no: int) -> str:
    """`receivable:17`; raises ValueError for what is no account."""
    kind, number = divmod(account_no, KIND)
    return f"{Account(kind).name.lower()}:{number}"


def charge_transfers(
    agreement_no: int, tariff_no: int, operator_no: int, amount_minor: int, tax_minor: int, currency: str
) -> tuple[Transfer, ...]:
    """A charge, or the signed difference of a correction: the part that is tax goes beside the revenue.

    Both amounts are signed; a negative one runs in the other direction; nothing is posted for 0.
    """
    receivable = _RECEIVABLE + agreement_no
    net_minor = amount_minor - tax_minor
    if not tax_minor:
        if net_minor > 0:
            return (Transfer(receivable, _REVENUE + tariff_no, net_minor, currency),)
        return () if not net_minor else (Transfer(_REVENUE + tariff_no, receivable, -net_minor, currency),)
    return (
        *_signed(receivable, _REVENUE + tariff_no, net_minor, currency),
        *_signed(receivable, _TAX + operator_no, tax_minor, currency),
    )


def adjustment_transfers(
    kind: AdjustmentKind, agreement_no: int, operator_no: int, amount_minor: int, tax_minor: int, currency: str
) -> tuple[Transfer, ...]:
    """What extra charges and debts brought over (positive), goodwill or refunds (negative) of a ride changed by, beside
    its fare.

    Each kind has an account of its own, so that revenue stays what rides were charged; the part that is tax goes where
    the fare's does. Both amounts are signed; nothing is posted for 0.
    """
    receivable = account(Account.RECEIVABLE, agreement_no)
    return (
        *_signed(receivable, account(_ADJUSTING[kind], operator_no), amount_minor - tax_minor, currency),
        *_signed(receivable, _TAX + operator_no, tax_minor, currency),
    )


def settlement_transfers(agreement_no: int, account_no: int, amount_minor: int, currency: str) -> tuple[Transfer, ...]:
    """The provider has money of the rider's: taken, or come back after it was given back."""
    return (Transfer(_CLEARING + account_no, _RECEIVABLE + agreement_no, amount_minor, currency),)


def refund_transfers(agreement_no: int, account_no: int, amount_minor: int, currency: str) -> tuple[Transfer, ...]:
    """The provider has given money back."""
    return (Transfer(_RECEIVABLE + agreement_no, _CLEARING + account_no, amount_minor, currency),)


def forgone_transfers(
    fact: Fact, agreement_no: int, operator_no: int, amount_minor: int, currency: str
) -> tuple[Transfer, ...]:
    """Something is no longer asked of the rider: written off, waived, paid elsewhere; the _BACK facts reverse that, and
    what the operator gives back outside is his as what he is paid there."""
    receivable, given_up = account(Account.RECEIVABLE, agreement_no), account(_FORGONE[fact], operator_no)
    if fact in (Fact.WRITE_OFF_BACK, Fact.WAIVER_BACK, Fact.ELSEWHERE_BACK, Fact.GIVEN_BACK):
        return (Transfer(receivable, given_up, amount_minor, currency),)
    return (Transfer(given_up, receivable, amount_minor, currency),)


def recovery_transfers(operator_no: int, account_no: int, amount_minor: int, currency: str) -> tuple[Transfer, ...]:
    """Money came for a debt that was written off."""
    return (Transfer(_CLEARING + account_no, account(Account.WRITE_OFFS, operator_no), amount_minor, currency),)


def chargeback_transfers(
    operator_no: int, account_no: int, amount_minor: int, currency: str, *, won: bool
) -> tuple[Transfer, ...]:
    """A bank has taken money back, or returned it."""
    lost, held = account(Account.CHARGEBACKS, operator_no), _CLEARING + account_no
    return (Transfer(held, lost, amount_minor, currency) if won else Transfer(lost, held, amount_minor, currency),)


def fee_transfers(account_no: int, amount_minor: int, currency: str, *, back: bool) -> tuple[Transfer, ...]:
    """The provider has kept a fee of what it holds, or given it back."""
    fees, held = account(Account.FEES, account_no), _CLEARING + account_no
    return (Transfer(held, fees, amount_minor, currency) if back else Transfer(fees, held, amount_minor, currency),)


_RECEIVABLE = account(Account.RECEIVABLE, 0)
_REVENUE = account(Account.REVENUE, 0)
_TAX = account(Account.TAX, 0)
_CLEARING = account(Account.CLEARING, 0)
_ADJUSTING: dict[AdjustmentKind, Account] = {
    "extra": Account.EXTRAS,
    "goodwill": Account.GOODWILL,
    "refund": Account.REFUNDS,
    "opening": Account.OPENING,
}
_FORGONE = {
    Fact.WRITE_OFF: Account.WRITE_OFFS,
    Fact.WAIVER: Account.WAIVED,
    Fact.ELSEWHERE: Account.ELSEWHERE,
    Fact.WRITE_OFF_BACK: Account.WRITE_OFFS,
    Fact.WAIVER_BACK: Account.WAIVED,
    Fact.ELSEWHERE_BACK: Account.ELSEWHERE,
    Fact.GIVEN_BACK: Account.ELSEWHERE,
}


def _signed(debit_account: int, credit_account: int, amount_minor: int, currency: str) -> tuple[Transfer, ...]:
    if not amount_minor:
        return ()
    if amount_minor < 0:
        return (Transfer(credit_account, debit_account, -amount_minor, currency),)
    return (Transfer(debit_account, credit_account, amount_minor, currency),)
