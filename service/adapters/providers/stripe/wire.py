"""Stripe's JSON, as far as it is read: identifiers, states, amounts, codes and our own metadata.

Names, addresses, e-mail addresses and card numbers that Stripe may send along are not fields here: they are dropped
while decoding. Field names and states: docs.stripe.com/api (PaymentIntent, SetupIntent, Refund, Dispute, Event,
BalanceTransaction), API version `settings.API_VERSION`.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import msgspec

from service.billing.instants import LAST

T = TypeVar("T")
Units = Annotated[int, msgspec.Meta(ge=-(10**15), le=10**15)]
"""An amount in Stripe's units: what is larger is no amount, and adding up stays within 64 bits."""
Seconds = Annotated[int, msgspec.Meta(ge=0, le=int(LAST.timestamp()))]
"""An instant in seconds since 1970."""

KEY = "farebox_key"
"""Metadata of a PaymentIntent that is a debit, of a Refund, a SetupIntent, a Customer: our key."""
HOLD = "farebox_hold"
"""Metadata of a PaymentIntent that is a hold: the hold's key. Captured, it carries the debit's `KEY` too."""


def our_key(metadata: dict[str, str] | None) -> str | None:
    """The key that we have written on a refund or a setup; they may have no metadata at all (docs.stripe.com/api)."""
    return (metadata or {}).get(KEY)


class ErrorBody(msgspec.Struct, frozen=True):
    """Why a call was refused, or the last attempt at a payment."""

    type: str = ""
    code: str | None = None
    decline_code: str | None = None
    advice_code: str | None = None
    message: str | None = None
    payment_intent: Intent | None = None


class Capturing(msgspec.Struct, frozen=True):
    """Until when an authorised card payment can be captured, in seconds since 1970."""

    capture_before: Seconds | None = None


class MethodDetails(msgspec.Struct, frozen=True):
    """What is particular to a card."""

    card: Capturing | None = None


class Charge(msgspec.Struct, frozen=True):
    """The charge of a PaymentIntent, expanded."""

    id: str
    payment_method_details: MethodDetails | None = None


class Intent(msgspec.Struct, frozen=True):
    """A PaymentIntent: amounts in Stripe's units (`amounts`), the currency in small letters."""

    id: str
    status: str
    amount: Units
    currency: str
    amount_received: Units | None = None
    amount_capturable: Units | None = None
    capture_method: str | None = None
    client_secret: str | None = None
    metadata: dict[str, str] = {}
    last_payment_error: ErrorBody | None = None
    cancellation_reason: str | None = None
    latest_charge: Charge | str | None = None


class Customer(msgspec.Struct, frozen=True):
    """A customer: nothing of him but his number."""

    id: str


class Card(msgspec.Struct, frozen=True):
    """How long a card is valid: to the end of that month."""

    exp_month: int
    exp_year: int


class Method(msgspec.Struct, frozen=True):
    """A PaymentMethod; `customer` is None once it is detached."""

    id: str
    customer: str | None = None
    card: Card | None = None


class Setup(msgspec.Struct, frozen=True):
    """A SetupIntent."""

    id: str
    status: str
    customer: str | None = None
    client_secret: str | None = None
    payment_method: Method | str | None = None
    metadata: dict[str, str] | None = None
    last_setup_error: ErrorBody | None = None
    cancellation_reason: str | None = None


class Refund(msgspec.Struct, frozen=True):
    """A refund. Without a `balance_transaction` nothing of it was ever on the account's balance."""

    id: str
    amount: Units
    currency: str
    status: str | None = None
    failure_reason: str | None = None
    metadata: dict[str, str] | None = None
    payment_intent: str | None = None
    reason: str | None = None
    balance_transaction: Any = ""


class Moved(msgspec.Struct, frozen=True):
    """What a dispute has taken from the account's balance (below 0), or given back to it. `fee` is Stripe's for it
    (below 0: given back), in the currency of the payout."""

    amount: Units
    fee: Units = 0
    currency: str | None = None


class Dispute(msgspec.Struct, frozen=True):
    """A dispute: it names the payment, never our key."""

    id: str
    status: str
    amount: Units
    currency: str
    payment_intent: str | None = None
    balance_transactions: tuple[Moved, ...] | None = None


class Source(msgspec.Struct, frozen=True):
    """What a balance transaction is about, expanded: a charge, a refund, or something that is not ours."""

    id: str
    object: str
    amount: Units | None = None
    amount_captured: Units | None = None
    currency: str | None = None
    metadata: dict[str, str] | None = None
    payment_intent: Intent | str | None = None


class Movement(msgspec.Struct, frozen=True):
    """A balance transaction, in the currency that the account is paid out in."""

    id: str
    type: str
    amount: Units
    fee: Units
    currency: str
    created: Seconds
    source: Source | str | None = None


class Balance(msgspec.Struct, frozen=True):
    """The account's balance: only whether the key is a live one."""

    livemode: bool


class Named(msgspec.Struct, frozen=True):
    """Anything that has a number."""

    id: str


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A page of a list; what follows begins after the last one's id."""

    data: list[T]
    has_more: bool = False


class Problem(msgspec.Struct, frozen=True):
    """The body of every refusal."""

    error: ErrorBody


class EventData(msgspec.Struct, frozen=True):
    """The object of an event, whose shape goes by its `object`."""

    object: msgspec.Raw


class Money(msgspec.Struct, frozen=True):
    """In which currency anything is; disputes may be in the bank's."""

    currency: str | None = None


class Event(msgspec.Struct, frozen=True):
    """What a webhook brings."""

    id: str
    type: str
    data: EventData
    livemode: bool = False
    created: Seconds | None = None


class Refused(msgspec.Struct, frozen=True):
    """A call that was answered with a refusal, and what was called."""

    status: int
    error: ErrorBody
    call: str


INTENT = msgspec.json.Decoder(Intent)
CUSTOMER = msgspec.json.Decoder(Customer)
SETUP = msgspec.json.Decoder(Setup)
METHOD = msgspec.json.Decoder(Method)
REFUND = msgspec.json.Decoder(Refund)
DISPUTE = msgspec.json.Decoder(Dispute)
REFUNDS = msgspec.json.Decoder(Page[Refund])
INTENTS = msgspec.json.Decoder(Page[Intent])
MOVEMENTS = msgspec.json.Decoder(Page[Movement])
BALANCE = msgspec.json.Decoder(Balance)
NAMED = msgspec.json.Decoder(Named)
ANYTHING = msgspec.json.Decoder(Page[Named])
PROBLEM = msgspec.json.Decoder(Problem)
MONEY = msgspec.json.Decoder(Money)
EVENT = msgspec.json.Decoder(Event)
