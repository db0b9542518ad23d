"""The rider pays now: what his app has to show him for it."""

from __future__ import annotations

from litestar import Response, post
from litestar.params import FromPath

from service.billing.debits.events import ImpossibleEventError
from service.billing.outcomes import AlreadyDone, NeedsRider, Outcome, Postponed, Succeeded, Unknown
from service.flows.collection.hearing import NoPaymentError
from service.telemetry import logger
from service.web.access import needs
from service.web.answers import Asked
from service.web.debit_wishes import told
from service.web.debits import debit_of
from service.web.doors import doors_of
from service.web.idempotency import Key, once
from service.web.problems import FieldProblem, ProblemError, away, conflict, unusable
from service.web.shapes import DebitStory

LOG = logger("payments")


@post("/v1/debits/{debit_id:str}/payment", status_code=200, opt=needs("billing:write", riders=True), tags=["debits"])
async def ask_payment(request: Asked, debit_id: FromPath[str], idempotency_key: Key) -> Response[DebitStory]:
    """What the rider must do to pay his debit now: `action`, good until `payable_until`; nothing else is tried
    meanwhile. Ask again, with a key of its own, for a new one: it pays the same number, and may be the same text where
    nothing in it has changed (Alipay's says the second it was made in)."""
    await debit_of(request, debit_id)

    async def work() -> tuple[int, DebitStory]:
        row, _ = await debit_of(request, debit_id)
        try:
            await doors_of(request).collection.ask_payment((row.ride_no, row.ordinal))
        except ImpossibleEventError:
            detail = f"debit {debit_id} is {row.state}{', suspended' if row.suspended else ''} and can't be paid by the"
            also = (
                " rider now: resume it first"
                if row.suspended
                else " rider now: that is possible while something of it is owed, and it is pending, waits for a retry"
                " or for him, or was written off"
            )
            raise conflict(detail + also, [FieldProblem("path:debit_id", row.state)]) from None
        except NoPaymentError as error:
            raise nothing_to_do(debit_id, error.outcome) from None
        except KeyError:  # Its account can't be used by this process, which says so where it looks at accounts.
            raise unusable("the debit's merchant account") from None
        return 200, await told(request, debit_id)

    return await once(request, "POST debits payment", idempotency_key, debit_id, work)


def nothing_to_do(debit_id: str, outcome: Outcome) -> ProblemError:
    """The provider gave the rider nothing to do: is it paid, is he away, or does he refuse?"""
    if isinstance(outcome, Postponed | Unknown):
        return away("the payment provider")
    if isinstance(outcome, AlreadyDone | Succeeded):
        detail = f"debit {debit_id} is paid already, says its provider; look at it again in a moment"
        return conflict(detail, [FieldProblem("path:debit_id", "paid already")])
    said = getattr(outcome, "code", "") or type(outcome).__name__
    LOG.warning("the provider gives the rider nothing to pay", debit=debit_id, says=said)
    detail = f"the provider does not let the rider pay debit {debit_id} now ({said})"
    if isinstance(outcome, NeedsRider):
        advice = outcome.advice or "the rider pays where he sees what is open at the provider"
        detail = f"the provider gives nothing by which the rider's app could have him pay debit {debit_id}: {advice}"
    return conflict(detail, [FieldProblem("path:debit_id", said)])
