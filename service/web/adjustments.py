"""What support adds to a ride or takes off it: extra charges, goodwill, refunds. The money follows by netting."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from litestar import Response, post
from litestar.params import FromPath, RawBody
from msgspec import Meta

from service.adapters.postgres.reading import DebitRow, RideRows
from service.billing.adjustments import AMOUNT_MAX, AdjustmentError
from service.billing.debits.state import returned_minor
from service.billing.events import Adjustment
from service.billing.words import Label
from service.flows.decisions import adjust_ride
from service.web.access import access_of, needs
from service.web.answers import Asked, Name, Text, read
from service.web.debits import debit_of
from service.web.doors import doors_of
from service.web.idempotency import HEADER, Key, once
from service.web.problems import FieldProblem, ProblemError, conflict, invalid, not_found
from service.web.shapes import RefundAnswer, SessionView
from service.web.views import money_of, refund_answer, ride_of, session_view, taken_by_banks

Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="Minor units of `currency`, above 0.")]
Returned = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="Minor units of the debit's currency, above 0.")]
Code = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="Stands on the receipt, such as `damage`.")]
TaxRate = Annotated[str, Meta(pattern=r"^(0(\.\d{1,8})?|1(\.0{1,8})?)$", description='A share of 1: "0.13" is 13 %.')]


class LabelRequest(Label, frozen=True, forbid_unknown_fields=True):
    """What the charge is called in each language; in one alone, riders of both read it."""

    def said(self) -> Label:
        """As it is kept: a later release may know more languages."""
        return Label(self.zh, self.en)


class ChargeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An `extra` charge (damage, a fine, a toll) or `goodwill` (so much less), with a code for the receipt and a reason
    for the trail. `label`: what riders read in place of the code, where that is one of your own. `tax_rate` is the tax
    within an extra charge; one that is `regardless` stays owed if the ride is voided. `by`: who decided, as your own
    system calls him; without it, the operator."""

    kind: Literal["extra", "goodwill"]
    code: Code
    amount_minor: Amount
    currency: Name
    reason: Text
    by: Name | None = None
    tax_rate: TaxRate | None = None
    regardless: bool = False
    label: LabelRequest | None = None


class RefundRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much less the ride costs, at most what is left of what was paid on this debit, and why."""

    amount_minor: Returned
    reason: Text
    code: Code = "refund"
    by: Name | None = None


@post(
    "/v1/sessions/{session_id:str}/charges",
    status_code=200,
    opt=needs("billing:write") | {"body": ChargeRequest},
    tags=["sessions"],
)
async def charge_session(
    request: Asked, session_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[SessionView]:
    """Charge a ride something beside its fare, or let it cost less; what it owes then is debited or given back."""
    asked = read(_CHARGE, body)
    _check_label(asked.label)
    _check_reduction(asked)

    async def work() -> tuple[int, SessionView]:
        doors, access = doors_of(request), access_of(request)
        adjustment = Adjustment(
            kind=asked.kind,
            code=asked.code,
            amount_minor=asked.amount_minor,
            currency=asked.currency,
            reason=asked.reason,
            adjustment_id=idempotency_key,
            by=asked.by or access.operator_id,
            tax_rate=None if asked.tax_rate is None else Decimal(asked.tax_rate),
            regardless=asked.regardless,
            label=None if asked.label is None else asked.label.said(),
        )
        await _adjust(request, session_id, adjustment)
        return 200, session_view(await doors.ride(access, session_id), await doors.operator(access.operator_no))

    return await once(request, "POST charges", idempotency_key, (session_id, asked), work)


@post(
    "/v1/debits/{debit_id:str}/refunds",
    status_code=202,
    opt=needs("billing:write") | {"body": RefundRequest},
    tags=["debits"],
)
async def refund_debit(
    request: Asked, debit_id: FromPath[str], body: RawBody, idempotency_key: Key
) -> Response[RefundAnswer]:
    """Give back of what was paid, in parts and again up to all of it. The ride owes so much less from now on; what of
    it is unpaid yet is lowered first, the rest is given back: `ride.to_refund_minor` says how much that is, and
    `ride.refunded_minor` what was given back before. It stands in `refunding_minor` and among the refunds once the role
    collect has begun it, moments later; of a ride with several debits the newest gives back first, whichever was named,
    and the refunds stand at those that give back. The reason given here stays with it and with the ride's adjustments,
    and is told neither to the rider nor to the provider."""
    asked = read(_REFUND, body)
    await debit_of(request, debit_id)

    async def work() -> tuple[int, RefundAnswer]:
        row, rows = await debit_of(request, debit_id)
        adjustment = Adjustment(
            kind="refund",
            code=asked.code,
            amount_minor=asked.amount_minor,
            currency=row.currency,
            reason=asked.reason,
            adjustment_id=idempotency_key,
            by=asked.by or access_of(request).operator_id,
        )
        await _adjust(request, row.session_id, adjustment, of=(row, rows))
        return 202, refund_answer(*await debit_of(request, debit_id))

    return await once(request, "POST debits refunds", idempotency_key, (debit_id, asked), work)


async def _adjust(
    request: Asked, session_id: str, adjustment: Adjustment, *, of: tuple[DebitRow, RideRows] | None = None
) -> None:
    """Decides it, unless it was decided before: whoever asked may have died before he read the answer."""
    doors, access = doors_of(request), access_of(request)
    operator = await doors.operator(access.operator_no)
    ride = ride_of(await doors.ride(access, session_id), operator)
    known = [event.adjustment for event in ride.session.events() if event.adjustment is not None]
    if of is not None and all(item.adjustment_id != adjustment.adjustment_id for item in known):
        _refundable(*of, adjustment.amount_minor)
    try:
        await adjust_ride(doors.working, doors.knowledge, operator, session_id, adjustment)
    except AdjustmentError as error:
        raise _refused(error) from None


def _check_reduction(asked: ChargeRequest) -> None:
    """Refuses what only an extra charge has, by its fields."""
    if asked.kind == "extra":
        return
    given = {"tax_rate": asked.tax_rate is not None, "regardless": asked.regardless}
    if named := [name for name, is_given in given.items() if is_given]:
        why = f"{asked.kind} takes its tax from the charge and falls with it: leave it out"
        fields = [FieldProblem(f"/{name}", why) for name in named]
        raise ProblemError(422, "invalid", f"{', '.join(f'/{name}' for name in named)}: {why}", fields)


def _check_label(label: LabelRequest | None) -> None:
    """Refuses a label that nobody could read."""
    if label is not None and label.zh is None and label.en is None:
        raise invalid("/label", "a label of no language: give zh, en or both, or leave the label out")


def _refundable(row: DebitRow, rows: RideRows, amount_minor: int) -> None:
    """Refuses more than is left of what was paid, and what the bank takes back anyway, or has. What of the ride is to
    be given back, though nobody has begun it, is left no more."""
    if row.dispute == "chargeback":
        raise conflict(
            "the rider's bank is taking this money back: close the chargeback first",
            [FieldProblem("path:debit_id", "a chargeback is open")],
        )
    ride, taken_minor = money_of(rows), taken_by_banks(rows).get(row.ordinal, 0)
    kept_minor = row.paid_minor - returned_minor(row)
    if 0 < kept_minor <= taken_minor:
        raise conflict(
            "the rider's bank has taken this money back: nothing is left that could be given back",
            [FieldProblem("path:debit_id", f"a bank has {taken_minor} of it")],
        )
    left = min(
        kept_minor - taken_minor,
        ride.paid_minor - ride.refunded_minor - ride.given_back_minor - ride.to_refund_minor - ride.charged_back_minor,
    )
    if amount_minor > left:
        detail = f"{amount_minor} can't be given back: {max(left, 0)} is left of what was paid"
        also = "; a ride that is not paid yet is corrected, or given goodwill" if not row.paid_minor else ""
        raise invalid("/amount_minor", detail + also)


def _refused(error: AdjustmentError) -> ProblemError:
    """What is wrong with an adjustment, and where."""
    field = _FIELDS.get(error.code)
    if error.code == "unknown_session":
        return not_found("session")
    if field is None:
        return conflict(str(error), [FieldProblem("path", str(error))])
    return invalid(field, str(error))


_FIELDS = {
    "bad_adjustment": "/",
    "wrong_currency": "/currency",
    "more_than_owed": "/amount_minor",
    "id_reused": HEADER,
}
"""The field that each refusal is about; the others are about the ride's state."""
_CHARGE = msgspec.json.Decoder(ChargeRequest)
_REFUND = msgspec.json.Decoder(RefundRequest)
