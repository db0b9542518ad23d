"""What people wish of a debit: what happens then, when it has happened already, and what is said where it can't."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from service.adapters.postgres.reading import DebitRow, RideRows, TransitionRow
from service.billing.debits.disputes import disputed
from service.billing.debits.events import (
    DebitEvent,
    DisputeClosed,
    DisputeOpened,
    GivenBack,
    ImpossibleEventError,
    OperatorDecided,
    PaidElsewhere,
    RefundDecided,
    RefundRefusedError,
    Resumed,
    RetryAsked,
    Suspended,
)
from service.billing.debits.state import FINAL, Debit, DisputeKind, DisputeResult, State, by_support, debit_id
from service.billing.debits.unanswered import says_nothing
from service.billing.money import format_amount
from service.flows.collection import Collection

Decision = Literal["settled", "submit_again", "cancel"]
RefundDecision = Literal["given_back", "submit_again", "cancel"]


class WishRefusedError(Exception):
    """The wish can't be fulfilled; nothing was changed. `field` is what it is about: "debit_id" for the debit's state,
    else a field of the wish; with `wrong`, what the field says can never be."""

    def __init__(self, field: str, text: str, *, wrong: bool = False) -> None:
        super().__init__(text)
        self.field = field
        self.wrong = wrong


class Wish(msgspec.Struct, frozen=True):
    """`fulfilled`: whether the debit, with its transitions, is already as wished, so that nothing happens: whoever
    wished it may have died before he was told. `refusal` says what of the debit is in the way, and what to do; `check`
    raises WishRefusedError."""

    event: DebitEvent
    fulfilled: Callable[[DebitRow, Sequence[TransitionRow]], bool]
    refusal: str | Callable[[Debit], str]
    check: Callable[[DebitRow, RideRows], None] = lambda *_: None


async def fulfil(collection: Collection, row: DebitRow, rows: RideRows, wish: Wish) -> None:
    """Lets it happen to the debit of a ride; raises WishRefusedError."""
    if wish.fulfilled(row, [step for step in rows.transitions or () if step.ordinal == row.ordinal]):
        return
    wish.check(row, rows)
    try:
        await collection.happen([((row.ride_no, row.ordinal), wish.event)])
    except ImpossibleEventError as error:
        refusal = wish.refusal if isinstance(wish.refusal, str) else wish.refusal(error.debit)
        raise WishRefusedError("debit_id", f"{_named(row)} is {_stands(row)} and {refusal}") from None


async def refund_again(collection: Collection, row: DebitRow) -> None:
    """Begins what is owed back and does not come; raises WishRefusedError."""
    if not await collection.refund_again((row.ride_no, row.ordinal)):
        raise WishRefusedError(
            "debit_id",
            f"{_named(row)} has nothing to give back that its provider takes: what a ride owes is corrected, or"
            " refunded by its amount; what its provider refuses for good is given back outside; a refund that is manual"
            " is decided (`farebox debit decide-refund`)",
        )


async def decide_refund(collection: Collection, row: DebitRow, number: str, decision: RefundDecided) -> None:
    """Says what became of the debit's refund `number`, where nobody could find out; raises WishRefusedError."""
    try:
        decided = await collection.decide_refund((row.ride_no, row.ordinal, int(number)), decision)
    except (KeyError, ValueError):
        raise WishRefusedError("refund_id", f"{_named(row)} has no refund {number}") from None
    if not decided:
        raise WishRefusedError(
            "refund_id",
            f"refund {number} of {_named(row)} can't be decided by hand: only one that is manual can, and no more"
            " was given back than it asks for; `farebox debit refunds` shows them",
        )


async def give_back(collection: Collection, row: DebitRow, given: GivenBack) -> None:
    """Books what was given back outside, the same amount for the same reason once; raises WishRefusedError."""
    try:
        await collection.given_back((row.ride_no, row.ordinal), given)
    except ImpossibleEventError:
        raise WishRefusedError(
            "debit_id", f"{_named(row)} is {_stands(row)} and not over: what is too much then goes back by itself"
        ) from None
    except RefundRefusedError as refused:
        raise WishRefusedError(
            "amount_minor",
            f"{format_amount(given.amount_minor, row.currency)} {row.currency} can't have been given back of"
            f" {_named(row)}: {refused}. What a ride owes is lowered first (goodwill, a correction); a refund that is"
            " still under way is waited for, and one that is manual is decided (`farebox debit decide-refund`)",
        ) from None


def said(reason: str, by: str | None) -> str:
    """The words that stay in the debit's life: who decided, where he is named, and why."""
    return reason if by is None else f"{by}: {reason}"


def suspend(reason: str, by: str | None = None) -> Wish:
    """Stop it before it is taken."""
    return Wish(
        Suspended(said(reason, by)),
        lambda row, _: row.suspended,
        "can't be suspended: that is possible before it is submitted, or while it waits for a retry or for the rider;"
        " what is paid can be refunded",
    )


def resume() -> Wish:
    """Let it go on."""

    def check(row: DebitRow, rows: RideRows) -> None:
        if not row.suspended:
            raise WishRefusedError("debit_id", f"{_named(row)} is {_stands(row)} and was never suspended")

    def fulfilled(row: DebitRow, life: Sequence[TransitionRow]) -> bool:
        return not row.suspended and any(step.why == "resumed" for step in life)

    return Wish(Resumed(), fulfilled, "can't be resumed", check)


def retry() -> Wish:
    """Try it now."""
    return Wish(
        RetryAsked(),
        lambda row, _: row.state == State.SUBMITTING,
        lambda debit: f"can't be tried now: {_not_tried(debit)}",
    )


def settle_elsewhere(reason: str, by: str | None = None) -> Wish:
    """It was paid in another way."""
    return Wish(
        PaidElsewhere(said(reason, by)),
        lambda row, _: row.state == State.SETTLED_ELSEWHERE,
        "can't be settled elsewhere: that is possible while it is pending, waits for a retry or for the rider, was"
        " never sent, is written off, was cancelled at its provider or brings no more there than it has; a new one can"
        " be suspended, an unclear one decided, what is paid refunded",
    )


def decide(decision: Decision, reason: str, provider_reference: str | None = None, by: str | None = None) -> Wish:
    """Say what became of it, where nobody could find out."""
    words = said(reason, by)

    def check(row: DebitRow, rows: RideRows) -> None:
        if decision == "settled" and _undecided(row) and not row.attempts:
            text = f"{_named(row)} was never sent to its provider; what was paid in another way is settled elsewhere"
            raise WishRefusedError("decision", text)
        if provider_reference is not None and decision != "settled":
            text = "only a debit that is settled has the provider's number of a payment"
            raise WishRefusedError("provider_reference", text, wrong=True)
        if decision == "submit_again" and _undecided(row) and rows.owed_of_minor(row) <= row.paid_minor:
            owes = f"its ride owes {'no more than was paid of it' if row.paid_minor else 'nothing any more'}"
            text = f"{_named(row)} is not sent again, since {owes}: `cancel` it, and nothing more is taken"
            raise WishRefusedError("decision", text)

    def fulfilled(row: DebitRow, life: Sequence[TransitionRow]) -> bool:
        """Whether this was decided last, and not another thing for the same reason."""
        decided = [step for step in life if step.why.startswith(f"{_DECIDED}: ")]
        if _undecided(row) or not decided or decided[-1].why != f"{_DECIDED}: {by_support(words)}":
            return False
        return decision == _DECISIONS.get(State(decided[-1].to_state), "submit_again")

    return Wish(
        OperatorDecided(decision, words, provider_reference),
        fulfilled,
        "can't be decided by hand: only one that is manual can, or of which its provider says neither yes nor no for"
        " days; as long as a provider can be asked, he is",
        check,
    )


def open_dispute(kind: DisputeKind) -> Wish:
    """The rider complains at the provider, or his bank takes the money back."""

    def check(row: DebitRow, rows: RideRows) -> None:
        if row.dispute in _ENDS:
            raise WishRefusedError("kind", f"{_named(row)} has a {row.dispute} already: close that first")

    return Wish(
        DisputeOpened(kind), lambda row, _: row.dispute == kind, f"can't have a {kind}: its provider knows none", check
    )


def close_dispute(result: DisputeResult) -> Wish:
    """A dispute has ended; a chargeback that was lost may be won after all."""

    def check(row: DebitRow, rows: RideRows) -> None:
        if (row.dispute, result) == ("lost", "won"):
            return
        if row.dispute not in _ENDS:
            raise WishRefusedError("debit_id", f"{_named(row)} has no open dispute")
        if result not in _ENDS[row.dispute]:
            raise WishRefusedError("result", f"a {row.dispute} ends {' or '.join(_ENDS[row.dispute])}", wrong=True)

    return Wish(DisputeClosed(result), lambda row, _: row.dispute == result, "has no dispute to close", check)


def _undecided(row: DebitRow) -> bool:
    return row.state == State.MANUAL or says_nothing(row.state, row.reason)


def _not_tried(debit: Debit) -> str:
    """Why a debit is not tried when somebody wants it to be, and what to do in place of it."""
    if debit.suspended:
        return "resume it"
    if disputed(debit):
        return f"its {debit.dispute} is to be closed first"
    if debit.state is State.MANUAL:
        return "say what became of it (`decide`)"
    if debit.state in FINAL:
        return "nothing more is asked of its rider"
    if debit.lowering_to is not None:
        return "its provider is being asked to lower it"
    if debit.state is State.NEEDS_RIDER:
        return "it waits for its rider"
    return "its rider was given it to pay, and it is his until that time is over"


def _named(row: DebitRow) -> str:
    return f"debit {debit_id(row.ride_no, row.ordinal)}"


def _stands(row: DebitRow) -> str:
    return f"{row.state}{', suspended' if row.suspended else ''}{', disputed' if row.dispute in _ENDS else ''}"


_DECIDED = "operator decided"
"""How a decision by hand begins in a debit's life."""
_DECISIONS = {State.CANCELLED: "cancel"} | dict.fromkeys((State.SETTLED, State.SETTLED_TWICE, State.PENDING), "settled")
"""What was decided, by the state that the decision made; what is asked for again is in any other."""
_ENDS = {"complaint": ("resolved",), "chargeback": ("won", "lost")}
"""How each kind of dispute can end."""
