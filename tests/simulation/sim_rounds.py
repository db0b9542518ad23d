"""The rounds of the role collect: which there are, and when each is due."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from sim_lives import Life

Round = Callable[[Life, int], Coroutine[Any, Any, Any]]
"""Begins a round of a process on an account, by its number."""

ROUNDS: dict[str, Round] = {
    "submit": lambda life, number: life.collection.submit_round(number),
    "policy": lambda life, number: life.collection.policy_round(number),
    "resolve": lambda life, number: life.holds.resolve_round(number),
    "release": lambda life, number: life.holds.release_round(number),
    "refresh": lambda life, number: life.agreements.refresh_round(number),
    "disputes": lambda life, number: life.disputes.ask_round(number),
    "plan": lambda life, _: life.collection.plan_round(),
    "aside": lambda life, _: life.collection.aside_round(),
}
"""Each by the name that `DUE` has for it."""
OF_NO_ACCOUNT = ("plan", "aside")

# Of the accounts $1; the writers $2 may have written what is owed; no ride has number $3 yet, nor a month after that.
DUE = """
SELECT 'submit' AS what, account_no, min(greatest(due_at, lease_until)) AS at FROM debit
WHERE ride_no < $3 AND account_no = ANY($1) AND due_at IS NOT NULL GROUP BY account_no
UNION ALL
SELECT 'submit', account_no, min(greatest(due_at, lease_until)) FROM refund
WHERE ride_no < $3 AND account_no = ANY($1) AND due_at IS NOT NULL GROUP BY account_no
UNION ALL
SELECT 'policy', account_no, min(policy_at) FROM debit
WHERE ride_no < $3 AND account_no = ANY($1) AND policy_at IS NOT NULL GROUP BY account_no
UNION ALL
SELECT 'policy', account_no, min(due_at) FROM dispute_unheard WHERE account_no = ANY($1) GROUP BY account_no
UNION ALL
SELECT CASE state WHEN 'requested' THEN 'resolve' ELSE 'release' END, account_no, min(greatest(due_at, lease_until))
FROM hold WHERE account_no = ANY($1) AND due_at IS NOT NULL AND state IN ('requested', 'open', 'completing')
GROUP BY 1, 2
UNION ALL
SELECT 'release', account_no, min(greatest(due_at, lease_until)) FROM hold_unopened
WHERE account_no = ANY($1) GROUP BY account_no
UNION ALL
SELECT 'refresh', account_no, min(greatest(due_at, lease_until)) FROM agreement
WHERE account_no = ANY($1) AND due_at IS NOT NULL GROUP BY account_no
UNION ALL
SELECT 'disputes', account_no, min(greatest(due_at, lease_until)) FROM dispute_question
WHERE account_no = ANY($1) GROUP BY account_no
UNION ALL
SELECT 'aside', 0, min(due_at) FROM set_aside WHERE what = 'owing' HAVING count(*) > 0
UNION ALL
SELECT 'plan', 0, '2026-01-01Z'::timestamptz WHERE EXISTS (
  SELECT FROM batch_reader r, LATERAL (
    SELECT FROM batch b WHERE b.writer_no = r.writer_no AND b.seq > r.seq AND cardinality(b.owing) > 0) AS unread
  WHERE r.reader = 'collection' AND r.writer_no = ANY($2))
"""
