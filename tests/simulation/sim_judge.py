"""The oracle of one ride: sums that a child could do, over the provider's books and what our rules have written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sim_till import KEY, SESSION, Till

from service.billing.auditing.debits import check_debits
from service.billing.auditing.problems import Place
from service.billing.auditing.rows import AuditedDebits, StoredHold, StoredRefund, StoredTransfer
from service.billing.debits.lives import refund_digest
from service.billing.debits.refunds import UNPAID, RefundState
from service.billing.debits.state import FINAL, Debit, State
from service.billing.ledger import Account, Fact, account

CLEARING, RECEIVABLE = account(Account.CLEARING, 1), account(Account.RECEIVABLE, 1)


def wrongs(till: Till, *, left: bool) -> list[str]:
    """Everything that is wrong once all has come to rest; `left`: riders may be left to pay what they owe."""
    return [*_taken(till), *_owed(till), *_ledger(till), *_rest(till, left=left), *_refunds(till), *_audit(till)]


def meanwhile(till: Till) -> Iterator[str]:
    """What must be true at every moment: nothing is believed that the provider has not done."""
    there = till.teller.taken_by_key()
    for debit in till.debits.values():
        for key in {receipt.key for receipt in debit.receipts}:
            known = sum(receipt.amount_minor for receipt in debit.receipts if receipt.key == key)
            if known > there.get(key, 0):
                yield f"d{debit.ordinal}: {known} is believed of {key}, {there.get(key, 0)} was taken"
        sums = (debit.refunding_minor, debit.refunded_minor, debit.given_back_minor, debit.outside_minor)
        if min(sums) < 0 or debit.forgone_minor < debit.outside_minor:
            yield f"d{debit.ordinal} has less than nothing: {debit}"
        if debit.refunded_minor + debit.refunding_minor + debit.given_back_minor > debit.paid_minor:
            yield f"d{debit.ordinal}: more is given back than was paid"


def stands(till: Till) -> tuple[int, int]:
    """What the ride's debits have brought, given up and may still bring, less what went back; what of it is open."""
    debits = till.debits.values()
    kept = sum(debit.paid_minor - went_back(debit) + debit.forgone_minor for debit in debits)
    unpaid = sum(still_asked(debit) for debit in debits)
    return kept + unpaid, unpaid


def to_give_back(till: Till) -> int:
    """What of the rider's money is too much, and his provider would give back if he was asked now. A part of what can't
    be stopped goes back when that settles."""
    whole, _ = stands(till)
    teller = till.teller
    possible = 0
    for payment in teller.all_payments():
        for part in payment.taken:
            left = part.amount_minor - part.back_minor
            if left > 0 and teller.refusal(payment, part, left) is None:
                possible += left
    banks = sum(debit.disputed_minor for debit in till.debits.values())
    kept = sum(debit.paid_minor - went_back(debit) for debit in till.debits.values()) - banks
    later = sum(debit.paid_minor for debit in till.debits.values() if debit.state not in FINAL and debit.excess_minor)
    return max(min(whole - till.owed_minor, possible, kept - later), 0)


def went_back(debit: Debit) -> int:
    """What the rider has again of what was taken, however it came to him."""
    return debit.refunded_minor + debit.given_back_minor


def still_asked(debit: Debit) -> int:
    """What of a debit the rider is still asked for."""
    return 0 if debit.state in FINAL else max(debit.amount_minor - debit.paid_minor - debit.excess_minor, 0)


def _taken(till: Till) -> Iterator[str]:
    """Both sides say the same of each number."""
    there, here = till.teller.taken_by_key(), Counter[str]()
    for debit in till.debits.values():
        for receipt in debit.receipts:
            here[receipt.key] += receipt.amount_minor
    for key in sorted({*there, *here}):
        if there.get(key, 0) != here[key]:
            yield f"{key}: {there.get(key, 0)} was taken there, {here[key]} is known here"
    back = sum(debit.refunded_minor for debit in till.debits.values())
    if back != till.teller.back_minor():
        yield f"{till.teller.back_minor()} went back there, {back} here"
    banks = sum(debit.disputed_minor for debit in till.debits.values())
    if banks != till.teller.banks_minor():
        yield f"banks have {till.teller.banks_minor()} there, {banks} here"
    fees = sum(one.fee_minor for debit in till.debits.values() for one in debit.disputes)
    if fees != till.teller.fees_minor():
        yield f"fees of {till.teller.fees_minor()} there, {fees} here"


def _owed(till: Till) -> Iterator[str]:
    """The rider has paid what he owes, no less and no more. Nothing is netted while a person is to decide."""
    if any(debit.state is State.MANUAL for debit in till.debits.values()):
        return
    whole, unpaid = stands(till)
    least = till.teller.capabilities.debit_min_minor  # Of less nobody is asked.
    if till.owed_minor - whole >= least:
        yield f"owes {till.owed_minor}: only {whole} is paid, given up or still asked for (open: {unpaid})"
    if unpaid and whole > till.owed_minor:
        yield f"owes {till.owed_minor}: {whole} with {unpaid} that is still asked for"
    if whole > till.owed_minor and to_give_back(till):
        yield f"owes {till.owed_minor}: {to_give_back(till)} of {whole} could be given back, and nobody does"


def _ledger(till: Till) -> Iterator[str]:
    balances = Counter[int]()
    for one in till.posted:
        balances[one.transfer.debit_account] += one.transfer.amount_minor
        balances[one.transfer.credit_account] -= one.transfer.amount_minor
    teller = till.teller
    wanted = teller.taken_minor() - teller.back_minor() - teller.banks_minor() - teller.fees_minor()
    if balances[CLEARING] != wanted:
        yield f"the ledger's clearing says {balances[CLEARING]}, the provider {wanted}"
    debits = till.debits.values()
    covered = sum(debit.paid_minor - went_back(debit) + debit.forgone_minor for debit in debits)
    if -balances[RECEIVABLE] != covered:
        yield f"the ledger's receivable says {-balances[RECEIVABLE]} is covered, the debits {covered}"


def _rest(till: Till, *, left: bool) -> Iterator[str]:
    """Nobody was forgotten."""
    for debit in till.debits.values():
        looked_at = debit.policy_at is not None or (debit.due_at is not None and not still_asked(debit))
        if debit.state in FINAL or (debit.state is State.NEEDS_RIDER and debit.reason and looked_at):
            continue
        waits = any(one.state == "accepted" for one in till.teller.payments.values())
        pending = debit.state is State.PENDING and (left or not still_asked(debit))
        if waits and (pending or debit.state is State.MANUAL):
            continue
        yield f"d{debit.ordinal} is forgotten: {debit.state}, {debit.reason}, due {debit.due_at}"
    for refund in till.refunds.values():
        if refund.state not in (RefundState.SUCCEEDED, *UNPAID):
            yield f"r{refund.ordinal}-{refund.refund_ordinal} is forgotten: {refund.state} {refund.code}"


def _refunds(till: Till) -> Iterator[str]:
    """What went back is known by its key."""
    known = {refund.provider_key: refund for refund in till.refunds.values()}
    for key, giving in till.teller.givings.items():
        refund = known.get(key)
        if refund is None:
            yield f"a refund {key} that nobody knows"
        elif (giving.state == "paid") != (refund.state is RefundState.SUCCEEDED):
            yield f"r{refund.ordinal}-{refund.refund_ordinal} is {refund.state} here, {giving.state} there"


def _audit(till: Till) -> Iterator[str]:
    """The service's own audit finds nothing either."""
    transfers = [
        StoredTransfer(1, one.fact, one.ordinal, one.line, one.slot, one.operator_no, *one.transfer, at)
        for one, at in zip(till.posted, till.posted_at, strict=True)
        if one.fact != Fact.CHARGE
    ]
    refunds = [StoredRefund(1, refund, refund_digest(refund)) for _, refund in sorted(till.refunds.items())]
    hold = till.opened_hold()
    holds = [] if hold is None else [StoredHold(1, *hold)]
    debits = [debit for _, debit in sorted(till.debits.items())]
    lives = sorted(till.lives, key=lambda row: (row.ordinal, row.transition))
    rows = AuditedDebits(debits, lives, refunds, (), holds)
    for problem in check_debits(Place("op", SESSION, 1), KEY, rows, transfers, till.owed_minor):
        yield f"audit: {problem.line()}"
