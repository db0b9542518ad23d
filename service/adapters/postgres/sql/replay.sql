-- name: ensure_replay_account
-- The account of the agreements that a replay makes.
INSERT INTO merchant_account (operator_no, account_id, provider, base_url, created_at)
SELECT $1, $2, 'sandbox', $3, $4
WHERE NOT EXISTS (SELECT FROM merchant_account WHERE operator_no = $1 AND account_id = $2) ON CONFLICT DO NOTHING;

-- name: stop_replay_account
-- Nobody is to pay for trips that were over long ago; whoever lets it go on is not overruled by the next replay.
INSERT INTO stop (operator_no, account_no, what, reason, stopped_by, stopped_at)
SELECT $1, m.account_no, stopped.what, 'trips that are replayed', 'farebox', $3
FROM merchant_account m, unnest(ARRAY['debits', 'refunds', 'reports']) AS stopped(what)
WHERE m.operator_no = $1 AND m.account_id = $2 AND NOT EXISTS (SELECT FROM stop s WHERE s.account_no = m.account_no)
ON CONFLICT DO NOTHING;

-- name: ensure_replay_riders
-- One rider for each of those agreements.
INSERT INTO rider (operator_no, rider_ref) SELECT $1, asked.rider_ref FROM unnest($2::text[]) AS asked(rider_ref)
WHERE NOT EXISTS (SELECT FROM rider r WHERE r.operator_no = $1 AND r.rider_ref = asked.rider_ref) ON CONFLICT DO NOTHING;

-- name: ensure_replay_agreements
-- Active at once: pairing and pricing need no provider.
INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, time_zone, language,
                       provider_key, created_at, updated_at)
SELECT $1, asked.agreement_id, r.rider_no, m.account_no, 'active', $5, $6, 'en', asked.provider_key, $7, $7
FROM unnest($3::text[], $4::text[]) AS asked(agreement_id, provider_key)
JOIN rider r ON r.operator_no = $1 AND r.rider_ref = asked.agreement_id
JOIN merchant_account m ON m.operator_no = $1 AND m.account_id = $2
WHERE NOT EXISTS (SELECT FROM agreement a WHERE a.operator_no = $1 AND a.agreement_id = asked.agreement_id)
ON CONFLICT DO NOTHING;
