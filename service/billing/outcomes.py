"""What a provider can have answered: the only things the life of a debit looks at (collection.md, the port)."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec

BARRED_FOR = timedelta(minutes=1)
"""How long a call waits that was refused because of who asks; its account is asked about meanwhile."""
NOT_ACCEPTED = "account_not_accepted"
"""Why a hold or a debit waits: the provider does not accept the merchant account now, which is for whoever runs the
service to put right; it is asked for then, as long as it is wanted."""


class SignString(msgspec.Struct, frozen=True, tag="sign_string", tag_field="kind"):
    """The rider's app hands this string to the Alipay SDK."""

    order_string: str


class MiniProgram(msgspec.Struct, frozen=True, tag="mini_program", tag_field="kind"):
    """The rider's app opens this WeChat mini program."""

    app_id: str
    path: str
    extra_data: dict[str, str] = {}


class ClientSecret(msgspec.Struct, frozen=True, tag="client_secret", tag_field="kind"):
    """The rider's app confirms with Stripe by this secret."""

    client_secret: str


class OpenUrl(msgspec.Struct, frozen=True, tag="url", tag_field="kind"):
    """The rider opens this page (sandbox)."""

    url: str


RiderAction = SignString | MiniProgram | ClientSecret | OpenUrl
"""Something a rider must do: a typed action, never just a link."""


class Accepted(msgspec.Struct, frozen=True, tag=True):
    """The provider has taken the request; whether money moves is not known yet. `code`: it goes no further there until
    somebody acts, and this is why."""

    provider_ref: str | None = None
    code: str = ""


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """Nothing has moved: what the key stands for now has a number at the provider, to be stored before it is called
    again with it."""

    provider_ref: str


class Part(msgspec.Struct, frozen=True):
    """One of the payments that a key was collected with: each gives back by itself, and never more than it took."""

    provider_ref: str
    amount_minor: int


class Succeeded(msgspec.Struct, frozen=True, tag=True):
    """Money moved: `amount_minor` is all that was taken under this key so far, so that saying it twice adds nothing.

    For a refund it is all that was given back under its key. `parts`: the payments that it was taken with, where the
    provider gives back by payment; they sum to it. `last`: he says that no more will come under this key, where he
    collects in parts.
    """

    amount_minor: int
    provider_ref: str | None = None
    parts: tuple[Part, ...] = ()
    last: bool = False


class Declined(msgspec.Struct, frozen=True, tag=True):
    """Definitely not executed, for a reason on the rider's side; `retryable` where waiting may help."""

    retryable: bool
    code: str
    message: str = ""


class Closed(msgspec.Struct, frozen=True, tag=True):
    """What the key stands for is closed at the provider: no money will move under it any more.

    `ended`: why, where nobody can pay it under any other number either: it is known there as paid in another way, or as
    cancelled by the merchant. We may have said so ourselves, or his own people.
    """

    code: str = ""
    ended: Literal["paid", "cancelled"] | None = None


class NotFound(msgspec.Struct, frozen=True, tag=True):
    """The provider knows nothing under this key; right after a lost answer that proves nothing."""


class NeedsRider(msgspec.Struct, frozen=True, tag=True):
    """Not executed until the rider does something; `advice` is what, in our words, where there is no action."""

    code: str
    action: RiderAction | None = None
    advice: str = ""


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """Definitely not executed, and it is our fault: what this call asks for, or how (not who asks: `Barred`)."""

    code: str
    message: str = ""


class CapExceeded(msgspec.Struct, frozen=True, tag=True):
    """Not executed: more than the order or agreement allows; `cap_minor` where the provider says how much it does."""

    cap_minor: int | None = None


class Conflict(msgspec.Struct, frozen=True, tag=True):
    """The key is known with other parameters."""

    code: str


class AlreadyDone(msgspec.Struct, frozen=True, tag=True):
    """The provider says this was done before, without saying what: ask."""


class Postponed(msgspec.Struct, frozen=True, tag=True):
    """Provably not executed: this call again after `retry_after`, under the same key; the account's others go on."""

    retry_after: timedelta


class Barred(Postponed, frozen=True, tag=True):
    """Provably not executed: our credentials, signature, certificate or permission are not accepted, or the account as
    a whole. Nobody but its operator can mend that, so it is no attempt of the rider's and nothing for a person to
    decide: the call waits under its key, and the account is asked about at once."""

    code: str
    message: str = ""


class Throttled(Postponed, frozen=True, tag=True):
    """Provably not executed: too many calls of the account; this one and all others again after `retry_after`."""


class Unreachable(Throttled, frozen=True, tag=True):
    """Provably not sent: there is no way to the provider's address now; `reason` says whether it is his name, his
    certificate or the connection. It waits as one that was turned away does."""

    reason: str


class Unknown(msgspec.Struct, frozen=True, tag=True):
    """The call may have executed: timeout, server error, an answer that can't be believed."""

    reason: str


Outcome = (
    Accepted
    | Prepared
    | Succeeded
    | Declined
    | Closed
    | NotFound
    | NeedsRider
    | Rejected
    | CapExceeded
    | Conflict
    | AlreadyDone
    | Postponed
    | Barred
    | Throttled
    | Unknown
)
