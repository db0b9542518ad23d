"""Fakes of what is not ours: a payment provider with its own books, honest but for what it is told to do wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from msgspec.structs import replace

from service.adapters.providers.port import (
    DebitRef,
    DebitRequest,
    HoldRef,
    HoldRequest,
    MerchantAccount,
    RefundRef,
    RefundRequest,
)
from service.billing.agreements.standing import HoldAnswer, HoldStatus
from service.billing.capabilities import Capabilities
from service.billing.outcomes import (
    BARRED_FOR,
    Accepted,
    AlreadyDone,
    Barred,
    Closed,
    Conflict,
    Declined,
    NeedsRider,
    NotFound,
    OpenUrl,
    Outcome,
    Postponed,
    Succeeded,
    Throttled,
    Unknown,
)

Fault = Literal[
    "lost_before", "lost_after", "killed_before", "killed_after", "throttled", "postponed", "short", "accepted", "slow"
]

THROTTLE = timedelta(seconds=30)
ODD = Unknown("code NEVER_HEARD")


class KilledError(BaseException):
    """The process dies here; nothing catches it, as nothing catches a SIGKILL."""


class FakeProvider:
    """Takes money once per key, remembers everything. `faults` are used up one by one, by key, else by "*".

    lost: the answer is lost, before or after the money moved · killed: our process dies then · short: no balance ·
    accepted: pending until `collect` · slow: waits for `gate`. `conflicts` are refunds' keys that stand for others,
    `forbidden` the calls that we are not permitted; with `stand_still` refunds go no further; while it is
    `mute` it answers questions in words that nobody has listed.
    """

    def __init__(self, account_no: int, capabilities: Capabilities | None = None) -> None:
        self.account = MerchantAccount(account_no, "main", "fake", "http://provider.invalid", {})
        self.capabilities = capabilities or Capabilities()
        self.taken: dict[str, int] = {}
        self.asked: dict[str, DebitRequest] = {}
        self.pending: dict[str, int] = {}
        self.given_back: dict[str, int] = {}
        self.given: dict[str, int] = {}
        self.records: dict[str, str] = {}
        self.conflicts: set[str] = set()
        self.forbidden: set[str] = set()
        self.stand_still = False
        self.mute = False
        self.come_back: set[str] = set()
        self.holds: dict[str, HoldStatus] = {}
        self.next_hold: HoldAnswer = HoldStatus("open", "hold-ref", 100_000)
        self.calls: list[tuple[str, str]] = []
        self.faults: dict[str, list[Fault]] = {}
        self.gate = asyncio.Event()
        self.on_call: Callable[[str, str], None] = lambda _what, _key: None

    async def debit(self, request: DebitRequest) -> Outcome:
        self._called("debit", request.key)
        if "debit" in self.forbidden:
            return Barred(BARRED_FOR, "PERMISSION_MISSING")
        fault = self._fault(request.key)
        request = replace(request, attempt=1, provider_ref=None)  # They say how often, not what.
        if request.key in self.asked and self.asked[request.key] != request:
            return Conflict("OTHER_PARAMETERS")
        early = await self._early(fault)
        if early is not None:
            return early
        if fault == "short":
            return Declined(retryable=True, code="BALANCE_NOT_ENOUGH")
        self.asked[request.key] = request
        if fault == "accepted":
            self.pending[request.key] = request.amount_minor
            return Accepted(f"ref-{request.key}")
        self.taken.setdefault(request.key, request.amount_minor)
        return self._late(fault, Succeeded(self.taken[request.key], f"ref-{request.key}"))

    async def get_debit(self, debit: DebitRef) -> Outcome:
        self._called("get_debit", debit.key)
        if self.mute:
            return ODD
        if debit.key in self.taken:
            return Succeeded(self.taken[debit.key], f"ref-{debit.key}")
        return Accepted(f"ref-{debit.key}") if debit.key in self.pending else NotFound()

    async def close_debit(self, debit: DebitRef) -> Outcome:
        self._called("close_debit", debit.key)
        if debit.key in self.taken:
            return AlreadyDone()
        self.pending.pop(debit.key, None)
        self.given.pop(debit.key, None)
        return Closed()

    async def settle_elsewhere(self, debit: DebitRef, _paid_at: datetime) -> Outcome:
        return await self.close_debit(debit)

    async def request_payment(self, request: DebitRequest) -> Outcome:
        self._called("request_payment", request.key)
        early = await self._early(self._fault(request.key))
        if early is not None:
            return early
        if request.key in self.taken:
            return AlreadyDone()
        self.given[request.key] = request.amount_minor
        return NeedsRider("RIDER_MUST_PAY", OpenUrl(f"https://pay.invalid/{request.key}"))

    def rider_pays(self, key: str) -> None:
        """The rider does what he was given to do; KeyError where the number is closed."""
        self.taken[key] = self.given.pop(key)

    async def nudge_debit(self, debit: DebitRef) -> Outcome:
        self._called("nudge_debit", debit.key)
        return AlreadyDone() if debit.key in self.taken else Accepted()

    async def report_performance(self, debit: DebitRef, record: Literal["completed", "violated"], key: str) -> Outcome:
        self._called("report_performance", key)
        fault = self._fault("report")
        self.records.setdefault(key, f"{debit.key} {record}")
        return self._late(fault, Accepted())

    async def get_hold(self, hold: HoldRef) -> HoldAnswer:
        self._called("get_hold", hold.key)
        return self.holds.get(hold.key, NotFound())

    async def open_hold(self, request: HoldRequest) -> HoldAnswer:
        self._called("open_hold", request.key)
        if isinstance(self.next_hold, HoldStatus):
            self.holds[request.key] = self.next_hold
        return self.next_hold

    async def release_hold(self, hold: HoldRef) -> HoldAnswer:
        self._called("release_hold", hold.key)
        self.holds[hold.key] = HoldStatus("released", hold.provider_ref)
        return self.holds[hold.key]

    async def finish_hold(self, hold: HoldRef) -> HoldAnswer:
        self._called("finish_hold", hold.key)
        self.holds[hold.key] = HoldStatus("completed", hold.provider_ref)
        return self.holds[hold.key]

    async def refund(self, request: RefundRequest) -> Outcome:
        self._called("refund", request.key)
        fault = self._fault(request.key)
        early = await self._early(fault)
        if early is not None:
            return early
        if fault == "short":
            return Declined(retryable=True, code="SELLER_BALANCE_NOT_ENOUGH")
        if request.key in self.conflicts:
            return Conflict("OTHER_PARAMETERS")
        assert self.taken[request.debit.key] >= self.given_back.get(request.key, 0)
        self.given_back.setdefault(request.key, request.amount_minor)
        if self.stand_still:
            return Accepted(f"ref-{request.key}")
        return self._late(fault, Succeeded(self.given_back[request.key], f"ref-{request.key}"))

    async def get_refund(self, refund: RefundRef) -> Outcome:
        self._called("get_refund", refund.key)
        if self.mute:
            return ODD
        if self.stand_still:
            return Accepted(f"ref-{refund.key}", "ABNORMAL")
        if refund.key in self.come_back:
            return Declined(False, "expired_or_canceled_card")
        if refund.key in self.given_back:
            return Succeeded(self.given_back[refund.key], f"ref-{refund.key}")
        return NotFound()

    def collect(self, key: str) -> None:
        """The provider's own retry has worked."""
        self.taken[key] = self.pending.pop(key)

    def _called(self, what: str, key: str) -> None:
        self.calls.append((what, key))
        self.on_call(what, key)

    def _fault(self, key: str) -> Fault | None:
        waiting = self.faults.get(key) or self.faults.get("*")
        return waiting.pop(0) if waiting else None

    async def _early(self, fault: Fault | None) -> Outcome | None:
        if fault == "killed_before":
            raise KilledError
        if fault == "slow":
            await self.gate.wait()
        if fault == "throttled":
            return Throttled(THROTTLE)
        if fault == "postponed":
            return Postponed(THROTTLE)
        return Unknown("lost before") if fault == "lost_before" else None

    def _late(self, fault: Fault | None, outcome: Outcome) -> Outcome:
        if fault == "killed_after":
            raise KilledError
        return Unknown("lost after") if fault == "lost_after" else outcome
