-- name: standing_stops
-- What of account $1 is stopped: wholly (its operator's mode, a stop without a tariff), and by tariff.
SELECT o.mode <> 'live' AS paused,
  coalesce(bool_or(s.what = 'debits' AND s.tariff_no IS NULL), false) AS debits,
  coalesce(bool_or(s.what = 'refunds' AND s.tariff_no IS NULL), false) AS refunds,
  coalesce(bool_or(s.what = 'reports' AND s.tariff_no IS NULL), false) AS reports,
  coalesce(array_agg(s.tariff_no) FILTER (WHERE s.what = 'debits' AND s.tariff_no IS NOT NULL), '{}') AS debit_tariffs,
  coalesce(array_agg(s.tariff_no) FILTER (WHERE s.what = 'refunds' AND s.tariff_no IS NOT NULL), '{}') AS refund_tariffs,
  coalesce(array_agg(s.tariff_no) FILTER (WHERE s.what = 'reports' AND s.tariff_no IS NOT NULL), '{}') AS report_tariffs
FROM merchant_account m
JOIN operator o ON o.operator_no = m.operator_no
LEFT JOIN stop s ON s.operator_no = m.operator_no AND s.resumed_at IS NULL
  AND (s.account_no IS NULL OR s.account_no = m.account_no)
WHERE m.account_no = $1 GROUP BY m.account_no, o.operator_no;

-- name: find_stop_scope
-- The numbers of what a stop is about; NULL where there is nothing of that name.
SELECT (SELECT account_no FROM merchant_account WHERE operator_no = $1 AND account_id = $2) AS account_no,
  (SELECT tariff_no FROM tariff WHERE operator_no = $1 AND tariff_id = $3) AS tariff_no;

-- name: add_stop
-- Nothing where the same stands already.
INSERT INTO stop (operator_no, account_no, tariff_no, what, reason, stopped_by, stopped_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (operator_no, coalesce(account_no, 0), coalesce(tariff_no, 0), what) WHERE resumed_at IS NULL DO NOTHING
RETURNING stop_no;

-- name: end_stop
-- Whose stop it was, who ended it and why stays.
UPDATE stop SET resumed_by = $3, resumed_reason = $4, resumed_at = $5
WHERE operator_no = $1 AND stop_no = $2 AND resumed_at IS NULL;

-- name: list_stops
-- An operator's stops, the newest first: those that stand, and with $2 those that were ended.
SELECT s.stop_no, m.account_id, t.tariff_id, s.what, s.reason, s.stopped_by, s.stopped_at, s.resumed_by, s.resumed_reason,
  s.resumed_at
FROM stop s
LEFT JOIN merchant_account m ON m.account_no = s.account_no
LEFT JOIN tariff t ON t.tariff_no = s.tariff_no
WHERE s.operator_no = $1 AND ($2 OR s.resumed_at IS NULL) ORDER BY s.stop_no DESC LIMIT $3;

-- name: usual_debits
-- How many debits each of these tariffs had in the time before hour $2, and what they came to.
SELECT tariff_no, sum(debits)::bigint AS debits, sum(amount_minor)::bigint AS amount_minor FROM tariff_hour
WHERE tariff_no = ANY($1::integer[]) AND hour_at < $2 AND hour_at >= $3 GROUP BY tariff_no;

-- name: count_debits
-- Adds what a round opened to the hour $1 of each tariff; tells how many of them were unusually high so far.
INSERT INTO tariff_hour AS t (tariff_no, hour_at, debits, amount_minor, high)
SELECT tariff_no, $1, debits, amount_minor, high
FROM unnest($2::integer[], $3::integer[], $4::bigint[], $5::integer[]) AS new (tariff_no, debits, amount_minor, high)
ORDER BY tariff_no
ON CONFLICT (tariff_no, hour_at) DO UPDATE SET debits = t.debits + excluded.debits,
  amount_minor = t.amount_minor + excluded.amount_minor, high = t.high + excluded.high
RETURNING tariff_no, high;
