-- name: leave_unopened
-- What the rider of a hold ($1, of account $2) that is given up at $3 may still open is looked for from $4 on.
INSERT INTO hold_unopened (provider_key, account_no, given_up_at, due_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (provider_key, account_no) DO NOTHING;

-- name: wake_unopened
-- News of it: looked for at once ($3), and from then on as if it had been given up now; whoever is at it began too early.
UPDATE hold_unopened SET given_up_at = $3, due_at = $3, lease_until = NULL WHERE provider_key = $1 AND account_no = $2;

-- name: claim_unopened
-- What of account $1 is due at $2 (business) and nobody holds at $3 (machine).
UPDATE hold_unopened u SET lease_until = $4
FROM (SELECT provider_key FROM hold_unopened
      WHERE account_no = $1 AND due_at <= $2 AND (lease_until IS NULL OR lease_until <= $3)
      ORDER BY due_at, provider_key LIMIT $5 FOR UPDATE SKIP LOCKED) due
JOIN merchant_account m ON m.account_no = $1
WHERE u.provider_key = due.provider_key AND u.account_no = $1
RETURNING u.provider_key, u.given_up_at, u.lease_until, m.account_no, m.account_id, m.provider, m.base_url, m.settings;

-- name: unopened_later
-- Not opened yet, or not ended yet: again at $4, unless it was told of meanwhile.
UPDATE hold_unopened SET due_at = $4, lease_until = NULL
WHERE provider_key = $1 AND account_no = $2 AND lease_until = $3;

-- name: forget_unopened
-- Its provider has ended it: nobody can open it any more.
DELETE FROM hold_unopened WHERE provider_key = $1 AND account_no = $2;
