"""What can happen to a debit, and what follows from that: the words of `service.billing.debits`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from service.billing.debits.state import Debit, DisputeKind, DisputeResult, Receipt, Record
from service.billing.outcomes import Outcome


class Due(msgspec.Struct, frozen=True):
    """`due_at` has come, and one process has taken the debit."""


class LeaseOver(msgspec.Struct, frozen=True):
    """The process that had taken the debit did not come back."""


class Submitted(msgspec.Struct, frozen=True):
    """The provider's answer to the submission under `key`, within the lease."""

    key: str
    outcome: Outcome


class Queried(msgspec.Struct, frozen=True):
    """The provider's answer to a question about `key`, within the lease."""

    key: str
    outcome: Outcome


class LowerAnswered(msgspec.Struct, frozen=True):
    """The provider's answer to lowering or closing `key`, within the lease."""

    key: str
    outcome: Outcome


class Notified(msgspec.Struct, frozen=True):
    """A verified notification, or any answer that came after its lease: money counts, all else only makes us ask."""

    key: str
    outcome: Outcome


class PaymentWanted(msgspec.Struct, frozen=True):
    """The rider wants to pay now: said before the provider is asked what he has to do."""


class PaymentAnswered(msgspec.Struct, frozen=True):
    """What the provider gives the rider to do, to pay `key`."""

    key: str
    outcome: Outcome


class CloseAnswered(msgspec.Struct, frozen=True):
    """The provider's answer to closing `key`, the number that the rider was given."""

    key: str
    outcome: Outcome


class NudgeAnswered(msgspec.Struct, frozen=True):
    """The provider's answer to a nudge."""

    outcome: Outcome


class ReportAnswered(msgspec.Struct, frozen=True):
    """The provider's answer to being told how the rider kept the agreement."""

    record: Record
    outcome: Outcome


class RetryAsked(msgspec.Struct, frozen=True):
    """Somebody does not want to wait for the calendar: tried, nudged or asked about now."""


class PolicyDue(msgspec.Struct, frozen=True):
    """`policy_at` has come: overdue, then written off."""


class OwedChanged(msgspec.Struct, frozen=True):
    """The ride's obligations leave `amount_minor` to this debit; 0: nothing is owed any more."""

    amount_minor: int


class PaidElsewhere(msgspec.Struct, frozen=True):
    """The operator says that he has been paid outside."""

    reason: str


class GivenBack(msgspec.Struct, frozen=True):
    """The operator says that he has given so much back outside: in cash, by a transfer; or in the provider's console,
    by a `refund` of that number."""

    amount_minor: int
    reason: str
    refund: str | None = None


class GivenBackFailed(msgspec.Struct, frozen=True):
    """A `refund` of the provider's console, which was booked as given back, has come to nothing there."""

    amount_minor: int
    refund: str


class OperatorDecided(msgspec.Struct, frozen=True):
    """The way out of MANUAL; `settled` means that the provider took the whole amount under the present key."""

    decision: Literal["settled", "submit_again", "cancel"]
    reason: str
    provider_ref: str | None = None


class RefundDecided(msgspec.Struct, frozen=True):
    """The way out of a refund's MANUAL. `given_back`: the provider's books say that `amount_minor` was (None: all of
    it); `submit_again` under the same key, or `cancel`: nothing was."""

    decision: Literal["given_back", "submit_again", "cancel"]
    reason: str
    amount_minor: int | None = None
    provider_ref: str | None = None


class Suspended(msgspec.Struct, frozen=True):
    """Support stops a debit before it is taken."""

    reason: str


class Resumed(msgspec.Struct, frozen=True):
    """Support lets a suspended debit go on."""


class Told(msgspec.Struct, frozen=True):
    """What a provider tells of a dispute: his number of it, as of when, and what he has taken for it from us and not
    given back, where he says any of these; `over`: whether he says that it has ended."""

    ref: str | None = None
    at: datetime | None = None
    moved_minor: int | None = None
    over: bool = False


class DisputeOpened(msgspec.Struct, frozen=True):
    """The rider complains at the provider, or his bank takes the money back: `amount_minor` of it, or all.

    `fee_minor` is all that the provider keeps for it so far, where he tells. `told` is None when a person says it.
    """

    kind: DisputeKind
    amount_minor: int | None = None
    fee_minor: int | None = None
    told: Told | None = None


class DisputeClosed(msgspec.Struct, frozen=True):
    """How a dispute ended, seen from the operator; the rest as in `DisputeOpened`."""

    result: DisputeResult
    fee_minor: int | None = None
    told: Told | None = None


class RefundAsked(msgspec.Struct, frozen=True):
    """Money is to be given back; `because` is what support has said of it, for those who work here."""

    amount_minor: int
    reason: str
    because: str | None = None


class RefundEnded(msgspec.Struct, frozen=True):
    """A refund against the receipt of `key`, and of that the payment `provider_ref`, is final."""

    key: str
    amount_minor: int
    succeeded: bool
    provider_ref: str | None = None


class RefundReturned(msgspec.Struct, frozen=True):
    """A refund that had succeeded has come back to the provider."""

    key: str
    amount_minor: int
    provider_ref: str | None = None


DebitEvent = (
    Due
    | LeaseOver
    | Submitted
    | Queried
    | LowerAnswered
    | Notified
    | RetryAsked
    | PaymentWanted
    | PaymentAnswered
    | CloseAnswered
    | NudgeAnswered
    | ReportAnswered
    | PolicyDue
    | OwedChanged
    | PaidElsewhere
    | GivenBack
    | GivenBackFailed
    | OperatorDecided
    | Suspended
    | Resumed
    | DisputeOpened
    | DisputeClosed
    | RefundAsked
    | RefundEnded
    | RefundReturned
)

# -------------------------------------------------------------------- effects


class Call(msgspec.Struct, frozen=True):
    """Call the provider, once the debit is committed."""

    what: Literal["submit", "query", "lower", "close", "nudge", "report"]


class Post(msgspec.Struct, frozen=True):
    """A fact for the ledger."""

    fact: Literal[
        "settlement",
        "recovery",
        "elsewhere",
        "elsewhere_back",
        "given_back",
        "given_back_there",
        "given_back_failed",
        "waiver",
        "waiver_back",
        "write_off",
        "write_off_back",
        "chargeback",
        "chargeback_won",
        "dispute_fee",
        "dispute_fee_back",
    ]
    amount_minor: int


class Publish(msgspec.Struct, frozen=True):
    """A fact for `rental.billing`."""

    fact: Literal[
        "debit.submitted",
        "debit.settled",
        "debit.declined",
        "debit.needs_rider",
        "debit.overdue",
        "debit.written_off",
        "dispute.opened",
        "dispute.closed",
        "reminder.due",
        "reminder.overdue",
        "reminder.report_notice",
        "performance.reported",
    ]
    at: datetime | None = None
    """What is announced: the next attempt, or the report."""


class StartRefund(msgspec.Struct, frozen=True):
    """Open the debit's refund number `ordinal` against one receipt; `refused`: why it can't be asked for at all;
    `because`: what support has said of it."""

    ordinal: int
    receipt: Receipt
    amount_minor: int
    reason: str
    refused: str | None = None
    because: str | None = None


class NetAgain(msgspec.Struct, frozen=True):
    """The ride's obligations are to be netted once more, now that this debit's fate is known."""


class OpenHold(msgspec.Struct, frozen=True):
    """The ride needs a hold: its number `ordinal`, from 0, and for no more than `amount_minor` (None: than its cap)."""

    ordinal: int
    amount_minor: int | None = None


Effect = Call | Post | Publish | StartRefund | NetAgain | OpenHold


class ImpossibleEventError(Exception):
    """This can't be done to a debit in this state; the message says both."""

    def __init__(self, debit: Debit, event: DebitEvent) -> None:
        self.debit = debit
        super().__init__(f"{type(event).__name__} is not possible for a debit that is {debit.state}")


class RefundRefusedError(Exception):
    """More than was paid, or during a chargeback; the message says which."""
