-- name: keep_aside
-- What tripped over a bug of ours; once more where it is there already.
INSERT INTO set_aside (ride_no, ordinal, refund_ordinal, what, reason, since_at, due_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (ride_no, ordinal, refund_ordinal, what) DO UPDATE SET
  reason = excluded.reason, due_at = excluded.due_at, times = set_aside.times + 1;

-- name: put_off_debit
-- The debit is left alone until $3; who holds it, holds it.
UPDATE debit SET due_at = $3 WHERE ride_no = $1 AND ordinal = $2;

-- name: put_off_policy
-- The debit's calendar is left alone until $3.
UPDATE debit SET policy_at = $3 WHERE ride_no = $1 AND ordinal = $2;

-- name: put_off_refund
-- The refund is left alone until $4.
UPDATE refund SET due_at = $4 WHERE ride_no = $1 AND ordinal = $2 AND refund_ordinal = $3;

-- name: rides_aside
-- Rides that were set aside and are due at $1, $2 at most; two processes divide them.
SELECT ride_no FROM set_aside WHERE what = 'owing' AND due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: take_up_rides
-- Their obligations are netted; those that were set aside again are due after $2.
DELETE FROM set_aside WHERE what = 'owing' AND ride_no = ANY($1::bigint[]) AND due_at <= $2;

-- name: forget_asides
-- Debits and refunds that were due again at $1 or before and are not here anew: they did not trip.
DELETE FROM set_aside WHERE what <> 'owing' AND due_at <= $1;

-- name: count_asides
-- What is set aside now.
SELECT what, count(*) AS count FROM set_aside GROUP BY what;
