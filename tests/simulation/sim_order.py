"""Which of several due at the same instant comes first is PostgreSQL's affair; here it must be the seed's."""

from __future__ import annotations

from service.adapters.postgres import QUERIES

TIES = (
    ("claim_debits", "ORDER BY d.due_at", ", d.ride_no, d.ordinal"),
    ("claim_debits_stopped", "ORDER BY d.due_at", ", d.ride_no, d.ordinal"),
    ("claim_debits_stopped", "ORDER BY due_at", ", ride_no, ordinal"),
    ("claim_refunds", "ORDER BY r.due_at", ", r.ride_no, r.ordinal, r.refund_ordinal"),
    ("claim_refunds_stopped", "ORDER BY r.due_at", ", r.ride_no, r.ordinal, r.refund_ordinal"),
    ("claim_refunds_stopped", "ORDER BY due_at", ", ride_no, ordinal, refund_ordinal"),
    ("claim_policies", "ORDER BY d.policy_at", ", d.ride_no, d.ordinal"),
    ("claim_holds", "ORDER BY due_at", ", session_key"),
    ("claim_agreements", "ORDER BY due_at", ", agreement_no"),
)
"""Query: the order it has, and what of the key decides where that doesn't."""


def break_ties() -> None:
    """The queries of this process order what is due by its key, too."""
    for name, order, key in TIES:
        if order + key not in QUERIES[name]:
            assert order in QUERIES[name], f"the query {name} has another order"
            QUERIES[name] = QUERIES[name].replace(order, order + key)
