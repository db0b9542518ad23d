-- name: keep_unheard
-- News ($5) of a dispute about a debit that is called $2 and that nobody knows yet; its end, once
-- told, gives way only to a later one ($8: as of when this is told). $7 is the dispute's number, '' without one.
INSERT INTO dispute_unheard (account_no, debit_ref, kind, dispute_ref, state, status, told_at, due_at, created_at)
VALUES ($1, $2, $3, $7, $4, $5, $8, $6, $6)
ON CONFLICT (account_no, debit_ref, kind, dispute_ref) DO UPDATE SET
  state = excluded.state, status = excluded.status, told_at = excluded.told_at, due_at = excluded.due_at
WHERE dispute_unheard.state = 'opened' OR (excluded.state <> 'opened' AND excluded.told_at >= dispute_unheard.told_at);

-- name: unheard_due
-- What of account $1 is to be looked for at $2, $3 at most.
SELECT status, asks, created_at FROM dispute_unheard
WHERE account_no = $1 AND due_at <= $2 ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED;

-- name: unheard_later
-- Not known yet: again at $5.
UPDATE dispute_unheard SET due_at = $5, asks = asks + 1
WHERE account_no = $1 AND debit_ref = $2 AND kind = $3 AND dispute_ref = $4;

-- name: forget_unheard
-- Heard, or given up.
DELETE FROM dispute_unheard WHERE account_no = $1 AND debit_ref = $2 AND kind = $3 AND dispute_ref = $4;
