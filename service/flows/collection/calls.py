"""One call to a provider: what was claimed becomes a request, what comes back an event."""

from __future__ import annotations

import time
from datetime import datetime
from functools import cache
from typing import Any

import msgspec

from service.adapters.postgres.collection import DebitRow
from service.adapters.providers.port import (
    AgreementRef,
    DebitItem,
    DebitRef,
    DebitRequest,
    HoldRef,
    Provider,
    RefundRef,
    RefundRequest,
)
from service.billing.debits.answers import ends_when_lowered
from service.billing.debits.collecting import Work
from service.billing.debits.content import sent_items
from service.billing.debits.events import (
    CloseAnswered,
    DebitEvent,
    LowerAnswered,
    Notified,
    NudgeAnswered,
    Queried,
    ReportAnswered,
    Submitted,
)
from service.billing.debits.money import receipt_of
from service.billing.debits.refunds import Refund, RefundEvent, withheld
from service.billing.debits.state import Debit, State, payable
from service.billing.keys import provider_key
from service.billing.outcomes import Outcome, Unknown
from service.telemetry import PROVIDER_SECONDS, logger

LOG = logger("collection")
CALL_SECONDS = 20.0
"""How long a provider may take before its answer counts as lost (machine's clock)."""


class Claim(msgspec.Struct, frozen=True):
    """A call that this process may make until its lease is over; `row` is the debit as it was when it was claimed."""

    work: Work
    row: DebitRow
    lease_until: datetime


class Answer(msgspec.Struct, frozen=True):
    """What a claim's call brought."""

    claim: Claim
    outcome: Outcome


async def call(provider: Provider, claim: Claim) -> Answer:
    """Makes the call, for as long as it takes. One that trips over a bug of ours may have moved money: it is asked."""
    began = time.perf_counter()
    try:
        answer = Answer(claim, await _ask(provider, claim))
    except Exception as error:
        LOG.exception("a call trips: our error", account=provider.account.account_id, what=claim.work.what)
        answer = Answer(claim, Unknown(f"our error: {type(error).__name__}"))
    _observe(provider.account.account_id, claim.work.what, type(answer.outcome), time.perf_counter() - began)
    return answer


def too_late(provider: Provider, claim: Claim) -> Answer:
    """No answer in time: the money may have moved."""
    _observe(provider.account.account_id, claim.work.what, Unknown, CALL_SECONDS)
    return Answer(claim, Unknown("no answer in time"))


def _observe(account_id: str, what: str, outcome: type, seconds: float) -> None:
    _labelled(account_id, what, outcome).observe(seconds)


@cache
def _labelled(account_id: str, what: str, outcome: type) -> Any:
    """Looking a metric's labels up costs more than what is measured by them."""
    return PROVIDER_SECONDS.labels(account_id, what, outcome.__name__)


def debit_event(answer: Answer, *, ours: bool) -> DebitEvent:
    """The answer as something that happens to its debit; after the lease (`ours` is False) it is but a rumour."""
    key, outcome = answer.claim.work.debit.provider_key, answer.outcome
    match answer.claim.work.what:
        case "nudge":
            return NudgeAnswered(outcome)
        case "report":
            record = answer.claim.work.debit.record
            assert record is not None
            return ReportAnswered(record, outcome)
        case _ if not ours:
            return Notified(key, outcome)
        case "submit":
            return Submitted(key, outcome)
        case "lower":
            return LowerAnswered(key, outcome)
        case "close":
            return CloseAnswered(key, outcome)
        case _:
            return Queried(key, outcome)


def refund_event(answer: Answer, refund: Refund, *, ours: bool) -> RefundEvent:
    """The answer as something that happens to its refund."""
    if not ours:
        return Notified(refund.provider_key, answer.outcome)
    event = Submitted if answer.claim.work.what == "refund" else Queried
    return event(refund.provider_key, answer.outcome)


async def _ask(provider: Provider, claim: Claim) -> Outcome:
    debit, refund = claim.work.debit, claim.work.refund
    match claim.work.what:
        case "submit":
            return await provider.debit(debit_request(provider, claim.row, debit))
        case "query" if debit.state is State.UNKNOWN and provider.capabilities.same_key_is_query:
            return await provider.debit(debit_request(provider, claim.row, debit))
        case "query":
            return await provider.get_debit(debit_ref(provider, claim.row, debit))
        case "lower":
            return await _lower(provider, claim, debit)
        case "close":
            return await provider.close_debit(debit_ref(provider, claim.row, debit))
        case "nudge":
            return await provider.nudge_debit(debit_ref(provider, claim.row, debit))
        case "report":
            assert debit.record is not None
            key = provider_key(debit.session_key.bytes, f"report {debit.record}", debit.ordinal)
            return await provider.report_performance(debit_ref(provider, claim.row, debit), debit.record, key)
        case "refund":
            assert refund is not None
            if (instead := withheld(debit)) is not None:
                return instead
            paid = _paid_ref(provider, claim, debit, refund)
            request = RefundRequest(refund.provider_key, paid, refund.amount_minor, refund.currency, refund.told)
            return await provider.refund(request)
        case "query_refund":
            assert refund is not None
            paid = _paid_ref(provider, claim, debit, refund)
            return await provider.get_refund(RefundRef(refund.provider_key, paid, refund.provider_ref))


async def _lower(provider: Provider, claim: Claim, debit: Debit) -> Outcome:
    assert debit.lowering_to is not None
    ref = debit_ref(provider, claim.row, debit)
    if debit.state is State.SETTLED_ELSEWHERE:
        assert debit.settled_at is not None
        return await provider.settle_elsewhere(ref, debit.settled_at)
    if debit.lowering_to <= debit.paid_minor and not ends_when_lowered(debit, provider.capabilities):
        return await provider.close_debit(ref)
    lowered_to = max(debit.lowering_to, debit.paid_minor)
    return await provider.reduce_debit(ref, debit.asked_minor - (debit.amount_minor - lowered_to))


def debit_request(provider: Provider, row: DebitRow, debit: Debit) -> DebitRequest:
    """The same for the same key, always: nothing in it may depend on when it is sent."""
    return DebitRequest(
        key=debit.provider_key,
        agreement=_agreement(row),
        amount_minor=debit.asked_minor,
        currency=debit.currency,
        subject=debit.subject,
        hold=_hold(provider, row, debit),
        provider_ref=debit.provider_ref,
        attempt=max(debit.attempts, 1),
        started_at=debit.started_at,
        ended_at=debit.ended_at,
        items=tuple(DebitItem(item.name, item.amount_minor, item.description) for item in sent_items(debit)),
        beside=None if debit.attempts else _ride_hold(provider, row),
    )


def debit_ref(provider: Provider, row: DebitRow, debit: Debit) -> DebitRef:
    """What a provider is asked about a debit with; `due_at` is when it was claimed."""
    agreement, hold = _agreement(row), _hold(provider, row, debit)
    ref = debit.provider_ref
    his = debit.due_at is not None and payable(debit, debit.due_at)
    return DebitRef(debit.provider_key, debit.asked_minor, debit.currency, ref, agreement, hold, his)


def _paid_ref(provider: Provider, claim: Claim, debit: Debit, refund: Refund) -> DebitRef:
    """The payment that a refund gives back, which need not be under the debit's present key."""
    receipt = receipt_of(debit.receipts, refund.debit_key, refund.debit_ref)
    taken = receipt.amount_minor if receipt else 0
    agreement, hold = _agreement(claim.row), _hold(provider, claim.row, debit)
    return DebitRef(refund.debit_key, taken, refund.currency, refund.debit_ref, agreement, hold)


def _agreement(row: DebitRow) -> AgreementRef:
    return AgreementRef(row.agreement_key, row.agreement_ref)


def _hold(provider: Provider, row: DebitRow, debit: Debit) -> HoldRef | None:
    """The order that the debit goes through; what the rider approves himself (we never try it) goes through none."""
    return _ride_hold(provider, row) if debit.attempts else None


def _ride_hold(provider: Provider, row: DebitRow) -> HoldRef | None:
    """The ride's order; where the provider needs none, a hold is only our own promise."""
    if row.hold_key is None or not provider.capabilities.hold_needed:
        return None
    return HoldRef(row.hold_key, row.hold_ref, title=row.hold_title or "")
