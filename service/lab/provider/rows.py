"""What the provider's books hold: frozen rows, replaced as a whole, written to the journal as they are."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec


class Terms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How the provider treats one merchant account, so that one simulator behaves like any of the real ones.

    Amounts are minor units, `_s` are seconds of the provider's clock.
    """

    provider_retries: bool = False  # True: every debit is accepted first and decided by the provider, again and again.
    retry_s: tuple[int, ...] = (3600, 86_400)  # The provider's waits between its tries; the last one repeats.
    give_up_s: int | None = None  # An unpaid debit that can still be tried is closed after this; None: never.
    decide_s: float | None = None  # Accepted first, decided this much later; None: decided before the answer.
    confirm_agreement: bool = True  # The rider confirms at the action's url; False: active at once.
    hold_needed: bool = False
    confirm_hold: bool = False
    hold_life_s: int = 30 * 86_400
    holds_max: int | None = None  # Running holds of a rider.
    unpaid_max: int | None = None  # Unpaid debits of a rider, above which no hold is opened.
    cap_minor: int = 100_000  # The most one hold or debit may be, where the merchant asks for nothing lower.
    amount_min_minor: int = 1
    partial: bool = False  # Takes what the wallet has and waits for the rest.
    nudge: bool = False  # The merchant may have an accepted debit tried at once.
    ends_hold: bool = False  # A paid debit ends its hold by itself.
    further_debits: bool = True  # More than one debit on a hold.
    reduce_pending: bool = False  # An accepted debit can be lowered.
    reduce_declined: bool = False  # A declined debit can be tried again for less.
    close: bool = True
    new_key_after_decline: bool = True  # True: a declined key answers the same decline for ever.
    key_window_s: int | None = None  # How long a key is remembered; None: for ever. After it a key debits again.
    revoking_ends_debits: bool = False  # On a revoked agreement's holds nothing is debited any more either.
    forgets_keys: bool = False  # Ignores the keys of debits and refunds: sent twice, taken twice.
    refund_window_s: int | None = None
    refund_s: float = 0.0  # A refund is decided this much later.
    fee_per_mille: int = 0
    time_zone: str = "Asia/Shanghai"  # Of the statement's days.


class AskAgreement(msgspec.Struct, frozen=True, omit_defaults=True):
    """A merchant's request to sign an agreement with a rider."""

    key: str
    rider: str
    currency: str
    cap_minor: int | None = None
    return_url: str | None = None


class AskHold(msgspec.Struct, frozen=True, omit_defaults=True):
    """A merchant's request for a hold on an agreement, named by its key; on none where the rider confirms each hold."""

    key: str
    agreement: str
    currency: str
    cap_minor: int | None = None
    subject: str = ""


class AskDebit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A merchant's request to take money; agreement and hold are named by their keys.

    `ends_hold`: what is left of the hold is given up once the debit is paid.
    """

    key: str
    agreement: str
    amount_minor: int
    currency: str
    hold: str | None = None
    subject: str = ""
    ends_hold: bool = False


class AskRefund(msgspec.Struct, frozen=True, omit_defaults=True):
    """A merchant's request to give money back of a debit, named by its key."""

    key: str
    debit: str
    amount_minor: int
    reason: str = ""


class AlipayMerchant(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Who a merchant is at the Alipay face: `public_key` (PEM, or bare base64) checks what he signed.

    `certificates`: his app is in certificate mode (公钥证书).
    """

    app_id: str
    public_key: str
    seller_id: str = "2088000000000001"
    certificates: bool = False


class WeChatMerchant(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Who a merchant is at the WeChat Pay face: `public_key` (PEM, or bare base64) of the certificate `serial_no`
    checks what he signed, `apiv3_key` (32 bytes) is what he decrypts with.

    `public_key_mode`: answers are signed under a PUB_KEY_ID_... and there are no certificates to fetch.
    """

    mchid: str
    appid: str
    service_id: str
    serial_no: str
    public_key: str
    apiv3_key: str
    public_key_mode: bool = False


class Account(msgspec.Struct, frozen=True, omit_defaults=True, tag="account"):
    """A merchant account: which face it talks to, its key to the door, its terms, where notifications go.

    `api_key` and `notify_secret` are the sandbox's; `keys` are the provider's own private keys (PEM) at the faces that
    sign, the newest first: it signs; `authority` issues their certificates at the Alipay face.
    """

    account_id: str
    api_key: str = ""
    terms: Terms = Terms()
    notify_url: str | None = None
    notify_secret: str = ""
    face: Literal["sandbox", "alipay", "wechatpay"] = "sandbox"
    alipay: AlipayMerchant | None = None
    wechatpay: WeChatMerchant | None = None
    keys: tuple[str, ...] = ()
    authority: str = ""


class Wallet(msgspec.Struct, frozen=True, omit_defaults=True, tag="wallet"):
    """A rider's money in one currency."""

    rider: str
    currency: str
    balance_minor: int


class Agreement(msgspec.Struct, frozen=True, omit_defaults=True, tag="agreement"):
    """state: pending, active, refused, revoked, expired."""

    number: int
    account_id: str
    asked: AskAgreement
    cap_minor: int
    state: str
    created_at: datetime
    code: str | None = None
    valid_until: datetime | None = None
    updated_at: datetime | None = None

    @property
    def ref(self) -> str:
        """The provider's own number of it."""
        return f"AG{self.number:010d}"


class Hold(msgspec.Struct, frozen=True, omit_defaults=True, tag="hold"):
    """state: pending (the rider must confirm), open, refused, expired, finished, released. `freed_minor`: given up."""

    number: int
    account_id: str
    asked: AskHold
    rider: str
    cap_minor: int
    state: str
    created_at: datetime
    expires_at: datetime
    code: str | None = None
    freed_minor: int = 0
    notify_url: str | None = None

    @property
    def ref(self) -> str:
        """The provider's own number of it."""
        return f"HO{self.number:010d}"


class Debit(msgspec.Struct, frozen=True, omit_defaults=True, tag="debit"):
    """state: accepted (not decided, or partly paid), paid, declined, closed. tries: how often it was decided.

    `retries`: who tries again, the provider by himself or the merchant. `next_at`: when an accepted one is tried next,
    or when a declined one is closed. `paid_at`: of the last payment.
    """

    number: int
    account_id: str
    asked: AskDebit
    rider: str
    amount_minor: int
    state: str
    created_at: datetime
    updated_at: datetime
    paid_minor: int = 0
    refunded_minor: int = 0
    code: str | None = None
    tries: int = 0
    next_at: datetime | None = None
    retries: bool = False
    paid_at: datetime | None = None
    notify_url: str | None = None

    @property
    def ref(self) -> str:
        """The provider's own number of it."""
        return f"DE{self.number:010d}"


class Refund(msgspec.Struct, frozen=True, omit_defaults=True, tag="refund"):
    """state: pending, paid, failed."""

    number: int
    account_id: str
    asked: AskRefund
    debit_number: int
    currency: str
    state: str
    created_at: datetime
    code: str | None = None
    next_at: datetime | None = None

    @property
    def ref(self) -> str:
        """The provider's own number of it."""
        return f"RE{self.number:010d}"


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, tag="entry"):
    """One movement of money: what, of which object, from which book account to which. Never changed."""

    number: int
    what: str
    account_id: str
    key: str
    ref: str
    payer: str
    payee: str
    amount_minor: int
    currency: str
    at: datetime


class Report(msgspec.Struct, frozen=True, omit_defaults=True, tag="report"):
    """What a merchant reported about a rider's way of paying: kept or broken."""

    number: int
    account_id: str
    debit: str
    kind: str
    at: datetime


class Dispute(msgspec.Struct, frozen=True, omit_defaults=True, tag="dispute"):
    """What a rider holds against a debit. A complaint leaves the money where it is; a chargeback takes it at its
    opening, and gives it back when the merchant wins.

    kind: complaint, chargeback. state: open, resolved, won, lost.
    """

    number: int
    account_id: str
    debit_number: int
    kind: str
    state: str
    amount_minor: int
    currency: str
    created_at: datetime

    @property
    def ref(self) -> str:
        """The provider's own number of it."""
        return f"DI{self.number:010d}"


class Kept(msgspec.Struct, frozen=True, omit_defaults=True, tag="kept"):
    """A merchant's request number that was answered: asked again it gets the same answer."""

    number: int
    account_id: str
    request: str
    answer: str


class Notice(msgspec.Struct, frozen=True, omit_defaults=True, tag="notice"):
    """A notification on its way, as its face writes it; next_at is None when it was taken or given up."""

    number: int
    account_id: str
    key: str
    body: str
    attempts: int = 0
    next_at: datetime | None = None
    delivered: bool = False
    url: str | None = None


class ClockSet(msgspec.Struct, frozen=True, tag="clock"):
    """The provider's clock was set: at `set_at` of the machine's it showed `shows`, and runs `speed` times as fast."""

    set_at: datetime
    shows: datetime
    speed: float


Row = ClockSet | Account | Wallet | Agreement | Hold | Debit | Refund | Dispute | Entry | Report | Kept | Notice
