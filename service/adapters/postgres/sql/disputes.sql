-- name: announce_dispute
-- A dispute of account $1 is to be asked about at $3; one that is asked about already, anew.
INSERT INTO dispute_question (account_no, dispute_ref, due_at, created_at) VALUES ($1, $2, $3, $3)
ON CONFLICT (account_no, dispute_ref) DO UPDATE SET
  asks = 0, due_at = excluded.due_at, created_at = excluded.created_at, version = dispute_question.version + 1;

-- name: claim_dispute_questions
-- Questions of account $1 that are due at $2 (business) and that nobody holds at $3 (machine).
WITH due AS (
  SELECT account_no, dispute_ref FROM dispute_question
  WHERE account_no = $1 AND due_at <= $2 AND (lease_until IS NULL OR lease_until <= $3)
  ORDER BY due_at LIMIT $5 FOR UPDATE SKIP LOCKED
), claimed AS (
  UPDATE dispute_question q SET lease_until = $4 FROM due
  WHERE q.account_no = due.account_no AND q.dispute_ref = due.dispute_ref RETURNING q.*
)
SELECT c.dispute_ref, c.asks, c.version, c.created_at, m.account_no, m.account_id, m.provider, m.base_url, m.settings
FROM claimed c JOIN merchant_account m ON m.account_no = c.account_no ORDER BY c.dispute_ref;

-- name: ask_dispute_later
-- The lease is over; where the dispute was announced again meanwhile, that time stands.
UPDATE dispute_question SET lease_until = NULL,
  asks = CASE WHEN version = $3 THEN $4 ELSE asks END,
  due_at = CASE WHEN version = $3 THEN $5 ELSE due_at END
WHERE account_no = $1 AND dispute_ref = $2;

-- name: forget_dispute_question
-- There is nothing more to ask, unless it was announced again meanwhile.
DELETE FROM dispute_question WHERE account_no = $1 AND dispute_ref = $2 AND version = $3;
