"""The provider port: everything the service asks of a payment provider, and everything it can be told (collection.md).

One account of one provider is one `Provider`. No method raises for what a provider or the network does: trouble is an
`Outcome`. Every key was derived and stored before the call (`service.billing.keys`); amounts are minor units of the
currency beside them; instants are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from service.billing.agreements.standing import AgreementAnswer, HoldAnswer
from service.billing.capabilities import Capabilities
from service.billing.debits.state import DisputeKind, DisputeResult
from service.billing.outcomes import Outcome


class MerchantAccount(msgspec.Struct, frozen=True):
    """An operator's account at a provider, as the installation knows it. `settings` name secrets, never hold them
    (but for the sandbox)."""

    account_no: int
    account_id: str
    provider: str
    base_url: str
    settings: dict[str, Any]


class AgreementRequest(msgspec.Struct, frozen=True):
    """Sign an agreement: `rider` is our opaque reference; `cap_minor` None asks for what the contract says."""

    key: str
    rider: str
    currency: str
    cap_minor: int | None = None
    language: str | None = None
    return_url: str | None = None


class AgreementRef(msgspec.Struct, frozen=True):
    """An agreement by our key, and by the provider's number once it is known."""

    key: str
    provider_ref: str | None = None


class HoldRequest(msgspec.Struct, frozen=True):
    """Open an order with a cap, before the ride. The rider is shown `subject`, or of it `title` alone, where an order
    has a word for what he uses; `vehicle_id` is the operator's."""

    key: str
    agreement: AgreementRef
    cap_minor: int
    currency: str
    subject: str
    requested_at: datetime
    vehicle_id: str | None = None
    title: str = ""


class HoldRef(msgspec.Struct, frozen=True):
    """A hold by our key, by the provider's number once it is known, and where it is asked for again or lowered, for
    which vehicle and under which title it was opened."""

    key: str
    provider_ref: str | None = None
    vehicle_id: str | None = None
    title: str = ""


class DebitItem(msgspec.Struct, frozen=True):
    """A line that the provider shows to the rider; items sum to the debit's amount."""

    name: str
    amount_minor: int
    description: str = ""


class DebitRequest(msgspec.Struct, frozen=True):
    """Take money, on a hold where the account needs one. The same key is always sent with the same content.

    `provider_ref` is what a Prepared answer said; `attempt` counts the definite declines so far, from 1: it tells one
    try under the key from the next where the provider remembers each call. `beside` is the ride's hold where the debit
    goes through none: it may tell who the rider is. `payable_until`, of what the rider is given to pay: from then on
    something else may be tried, so that it must be void.
    """

    key: str
    agreement: AgreementRef
    amount_minor: int
    currency: str
    subject: str
    hold: HoldRef | None = None
    provider_ref: str | None = None
    attempt: int = 1
    started_at: datetime | None = None
    ended_at: datetime | None = None
    items: tuple[DebitItem, ...] = ()
    beside: HoldRef | None = None
    payable_until: datetime | None = None


class DebitRef(msgspec.Struct, frozen=True):
    """A debit that was asked for: its key, and what it was asked with. `handed_out`: its rider was given something to
    pay it with, and the time that he has for that is not over."""

    key: str
    amount_minor: int
    currency: str
    provider_ref: str | None = None
    agreement: AgreementRef | None = None
    hold: HoldRef | None = None
    handed_out: bool = False


class RefundRequest(msgspec.Struct, frozen=True):
    """Give money back of a debit; the key refunds once."""

    key: str
    debit: DebitRef
    amount_minor: int
    currency: str
    reason: str


class RefundRef(msgspec.Struct, frozen=True):
    """A refund that was asked for."""

    key: str
    debit: DebitRef
    provider_ref: str | None = None


class StatementRow(msgspec.Struct, frozen=True):
    """One movement of the provider's statement; `amount_minor` is positive for both kinds."""

    kind: Literal["debit", "refund"]
    key: str
    provider_ref: str
    amount_minor: int
    fee_minor: int
    currency: str
    occurred_at: datetime


class Statement(msgspec.Struct, frozen=True, tag=True):
    """Everything the provider booked on one of its civil days."""

    day: date
    rows: tuple[StatementRow, ...]


StatementAnswer: TypeAlias = Statement | Outcome
NamedBy: TypeAlias = Literal["key", "hold", "hold_ref"]
"""How a provider names a debit by what we have asked for: by its key, or by the order that it goes through (that hold's
key, or his own number of the hold)."""


class Ack(msgspec.Struct, frozen=True):
    """What a notification is answered with once its content is safe."""

    status: int
    content_type: str
    body: bytes


class DisputeStatus(msgspec.Struct, frozen=True, tag=True):
    """A dispute about a debit, which is named as the provider does: by his own number of it ("" where he tells none, as
    of what nothing was paid of yet), by ours (`key`, "" where he tells none; `named_by` as a Notification's), or by
    both: then either finds it.

    A complaint leaves the money where it is, a chargeback takes it at its opening; how it ended is seen from the
    operator. `amount_minor` is what is disputed, `moved_minor` (of `currency`) what the provider has taken for it and
    not given back, `fee_minor` (of `fee_currency`) all that he keeps for it so far, None where he does not tell.
    `told_at` is as of when he tells it, by his clock, where he says so.
    """

    debit_ref: str
    kind: DisputeKind
    state: Literal["opened"] | DisputeResult
    amount_minor: int
    currency: str
    provider_ref: str | None = None
    fee_minor: int | None = None
    fee_currency: str | None = None
    told_at: datetime | None = None
    key: str = ""
    named_by: NamedBy = "key"
    moved_minor: int | None = None


DisputeAnswer: TypeAlias = tuple[DisputeStatus, ...] | Outcome
"""What a dispute is about, a status for each debit that it names; or why that can't be told."""


class Listening(msgspec.Struct, frozen=True, tag=True):
    """The address at which a provider tells what no call names one for: now, and `before` we asked (None: at none).
    `url` None: he has no such thing that a call could register."""

    url: str | None = None
    before: str | None = None


class Notification(msgspec.Struct, frozen=True, tag=True):
    """A notification whose signature and time are good: what it is about and how that stands, to be acknowledged by
    `ack` after the commit. It may be old or repeated; amount and state are checked against what we know.

    `key` is our key of what it is about, or names the order that a debit goes through (`named_by`), or is one of the
    provider's numbers of an agreement that has several ("agreement_ref"). With a `dispute` all that counts is what that
    says: `key` is its `debit_ref`, the `answer` is Unknown. About a "dispute" that is only announced, `key` is the
    provider's number of it, for `get_dispute`. `payment` is the provider's number of the payment that a refund gives
    back of: the refund may be nobody's here.
    """

    notification_id: str
    about: Literal["agreement", "hold", "debit", "refund", "dispute"]
    key: str
    answer: AgreementAnswer | HoldAnswer
    ack: Ack
    named_by: NamedBy | Literal["agreement_ref"] = "key"
    dispute: DisputeStatus | None = None
    payment: str | None = None


class BadNotification(msgspec.Struct, frozen=True, tag=True):
    """A notification that is not believed; `ack` is how it is refused."""

    reason: str
    ack: Ack


class Provider(Protocol):
    """One account of one provider."""

    @property
    def account(self) -> MerchantAccount:
        """The account this provider was opened for."""

    @property
    def capabilities(self) -> Capabilities:
        """What this account can do: the rules look only at this."""

    async def check(self) -> Outcome | None:
        """A call that moves nothing: None when credentials and settings are good, else what is wrong."""

    async def begin_agreement(self, request: AgreementRequest) -> AgreementAnswer:
        """Asks for an agreement; again with the same key gives the same one."""

    async def get_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """How the agreement stands."""

    async def revoke_agreement(self, agreement: AgreementRef) -> AgreementAnswer:
        """Ends the agreement; one that was ended before is answered as revoked."""

    async def open_hold(self, request: HoldRequest) -> HoldAnswer:
        """Opens a hold; again with the same key gives the same one."""

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        """How the hold stands."""

    async def release_hold(self, hold: HoldRef) -> HoldAnswer:
        """Gives up a hold on which nothing was debited; `unopened` where its rider may still make it."""

    async def finish_hold(self, hold: HoldRef) -> HoldAnswer:
        """Completes a hold whose debits are final: no debit is possible after it."""

    async def debit(self, request: DebitRequest) -> Outcome:
        """Takes money. Prepared: nothing has moved, call again with the number it says once that is stored."""

    async def get_debit(self, debit: DebitRef) -> Outcome:
        """What became of a debit, the only truth about an unknown one; a query that failed is Unknown."""

    async def reduce_debit(self, debit: DebitRef, amount_minor: int) -> Outcome:
        """Lowers an unpaid debit to `amount_minor`; Closed when nothing is left."""

    async def settle_elsewhere(self, debit: DebitRef, paid_at: datetime) -> Outcome:
        """Tells the provider that the rider paid in another way: Closed, or AlreadyDone when the debit was paid."""

    async def close_debit(self, debit: DebitRef) -> Outcome:
        """Stops an unpaid debit: Closed, or AlreadyDone when it was paid."""

    async def nudge_debit(self, debit: DebitRef) -> Outcome:
        """Asks a provider that retries by itself to try an accepted debit now: Accepted, AlreadyDone, or Rejected where
        it has no such call."""

    async def request_payment(self, request: DebitRequest) -> Outcome:
        """Lets the rider pay now: NeedsRider with what he must do, or AlreadyDone. The key is that of the unpaid debit,
        or a new one for what he must approve."""

    async def refund(self, request: RefundRequest) -> Outcome:
        """Gives money back: Succeeded with all that was given back under the key, or Accepted."""

    async def get_refund(self, refund: RefundRef) -> Outcome:
        """What became of a refund."""

    async def get_dispute(self, number: str) -> DisputeAnswer:
        """What a dispute is about, by the provider's number of it, and how it stands; Rejected where the provider tells
        all of it by itself."""

    async def listen(self, *, replace: bool) -> Listening | Outcome:
        """Registers the account's address for what no call names one for; another one that stands there is left, unless
        it is to be replaced."""

    async def report_performance(self, debit: DebitRef, record: Literal["completed", "violated"], key: str) -> Outcome:
        """Reports how the rider paid, where that is the merchant's: Accepted when it is known to the provider."""

    def parse_notification(
        self, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Notification | BadNotification:
        """Reads and verifies a notification; `now` is the machine's clock. Header names are lower-case."""

    async def statement(self, day: date) -> StatementAnswer:
        """The provider's statement of one of its civil days."""

    async def close(self) -> None:
        """Closes what the provider holds open."""
