"""What was collected of an order, and what its state is called for it (支付分订单状态流转)."""

from __future__ import annotations

from service.lab.provider.rows import Debit, Hold
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import compact, transaction_id

UNPAID = ("accepted", "declined")


def state_of(hold: Hold, debit: Debit | None, told: Answer) -> tuple[str, str | None]:
    """state and state_description: CREATED, DOING (USER_CONFIRM, MCH_COMPLETE), DONE, REVOKED, EXPIRED."""
    if debit and told.get("cancelled"):
        return "REVOKED", None
    if debit:
        return ("DOING", "MCH_COMPLETE") if debit.state in UNPAID else ("DONE", None)
    match hold.state:
        case "pending":
            return "CREATED", None
        case "open":
            return "DOING", "USER_CONFIRM"
        case "finished":
            return "DONE", None  # Completed at nothing: there was nothing to collect.
        case "expired":
            return "EXPIRED", None
    return "REVOKED", None


def view(visit: Visit, debit: Debit | None, told: Answer) -> Answer:
    """What an order says of its collection, nothing before it was completed."""
    if debit is None:
        return {"total_amount": 0, "need_collection": False} if told.get("completed_free") else {}
    if told.get("cancelled") and not debit.paid_minor:
        return {"total_amount": debit.amount_minor, "need_collection": True}
    elsewhere = debit.state == "closed"
    details = [
        {
            "seq": seq,
            "amount": amount,
            "paid_type": "NEWTON",
            "paid_time": paid_at,
            "transaction_id": transaction_id(debit, so_far),
        }
        for seq, (amount, so_far, paid_at) in enumerate(payments(visit, debit), 1)
    ]
    if elsewhere:
        paid_time = told.get("paid_time")
        details.append({"seq": 1, "amount": debit.amount_minor, "paid_type": "MCH", "paid_time": paid_time})
    paid = debit.amount_minor if elsewhere else debit.paid_minor
    collected = {
        "state": "USER_PAYING" if debit.state in UNPAID else "USER_PAID",
        "total_amount": debit.amount_minor,
        "paying_amount": debit.amount_minor - paid,
        "paid_amount": paid,
        "details": details,
    }
    return {"total_amount": debit.amount_minor, "need_collection": True, "collection": collected}


def payments(visit: Visit, debit: Debit) -> list[tuple[int, int, str]]:
    """Every payment of a debit as far as this row of it knows: amount, how much it is with it, when.

    The last one's entry is not in the books yet while the row is about to be put there.
    """
    made: list[tuple[int, int, str]] = []
    so_far = 0
    for entry in visit.desk.books.moved.get(debit.ref, ()):
        if so_far + entry.amount_minor > debit.paid_minor:
            break
        so_far += entry.amount_minor
        made.append((entry.amount_minor, so_far, compact(entry.at)))
    if so_far < debit.paid_minor:
        made.append((debit.paid_minor - so_far, debit.paid_minor, compact(debit.paid_at or debit.updated_at)))
    return made
