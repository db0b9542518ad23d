-- name: keep_unordered_refund
-- A refund ($2) of debit ($3, $4) that nobody here ordered, told at $7; told again, only its amount is news.
INSERT INTO refund_unordered (account_no, refund_ref, ride_no, ordinal, payment_ref, amount_minor, told_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (account_no, refund_ref) DO UPDATE SET amount_minor = excluded.amount_minor
WHERE refund_unordered.amount_minor IS NULL AND excluded.amount_minor IS NOT NULL;

-- name: book_unordered_refund
-- What was given back by refund $2 of debit ($3, $4), $5 by what is told of it, is booked now.
UPDATE refund_unordered SET booked_at = $6, amount_minor = $5
WHERE account_no = $1 AND refund_ref = $2 AND ride_no = $3 AND ordinal = $4 AND booked_at IS NULL AND failed_at IS NULL
  AND coalesce(amount_minor, $5) = $5;

-- name: fail_unordered_refund
-- A refund ($2) of debit ($3, $4) that nobody here ordered has come to nothing, told at $6, perhaps before anything else
-- of it. One row where that is news: how much of it was booked.
INSERT INTO refund_unordered (account_no, refund_ref, ride_no, ordinal, payment_ref, told_at, failed_at)
VALUES ($1, $2, $3, $4, $5, $6, $6)
ON CONFLICT (account_no, refund_ref) DO UPDATE SET failed_at = excluded.failed_at WHERE refund_unordered.failed_at IS NULL
RETURNING CASE WHEN booked_at IS NULL THEN 0 ELSE amount_minor END AS booked_minor;

-- name: unordered_refunds
-- What providers say was given back of operator $1's payments that nobody here ordered, nor has booked since, and that has
-- not come to nothing, $2 at most.
SELECT u.ride_no, u.ordinal, d.session_id, u.refund_ref, u.payment_ref, u.amount_minor, d.currency, u.told_at
FROM refund_unordered u JOIN debit d ON d.ride_no = u.ride_no AND d.ordinal = u.ordinal
WHERE d.operator_no = $1 AND u.booked_at IS NULL AND u.failed_at IS NULL
  AND NOT EXISTS (SELECT FROM refund r WHERE r.provider_key = u.refund_ref AND r.account_no = u.account_no)
ORDER BY u.told_at, u.refund_ref LIMIT $2;
