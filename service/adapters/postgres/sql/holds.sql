-- name: hold_setting
-- What a hold is decided against, in one read: operator, agreement, rider and what he owes, account, the tariff's version
-- in force at $4, the hold that the session ($5, in slot $6) has already, and where its ride stands.
SELECT o.operator_id, o.mode, o.currency AS operator_currency, o.exposure_max_minor, o.hold_policy,
       a.agreement_no, a.state AS agreement_state, a.cap_minor, a.currency, a.provider_key AS agreement_key,
       a.provider_ref AS agreement_ref, a.valid_until, a.time_zone, a.language, a.rider_no, r.rider_ref,
       m.account_no, m.account_id, m.provider, m.base_url, m.settings,
       t.tariff_no, t.version, CASE WHEN h.session_key IS NOT NULL THEN to_json(h) END AS hold,
       (SELECT json_agg(owed) FROM rider_debt owed WHERE owed.rider_no = a.rider_no) AS debts,
       (SELECT r.state FROM session_key k JOIN ride_revision r ON r.ride_no = k.ride_no AND r.slot = k.slot
        WHERE k.session_key = $5::uuid AND k.slot = $6 ORDER BY r.revision DESC LIMIT 1) AS ride_state
FROM operator o
LEFT JOIN hold h ON h.session_key = $5::uuid AND h.slot = $6
LEFT JOIN LATERAL (SELECT v.tariff_no, v.version FROM tariff n JOIN tariff_version v ON v.tariff_no = n.tariff_no
                   WHERE n.operator_no = o.operator_no AND n.tariff_id = $3 AND v.valid_from <= $4
                   ORDER BY v.valid_from DESC, v.version DESC LIMIT 1) t ON true
LEFT JOIN agreement a ON a.operator_no = o.operator_no AND a.agreement_id = $2
LEFT JOIN rider r ON r.rider_no = a.rider_no
LEFT JOIN merchant_account m ON m.account_no = a.account_no
WHERE o.operator_no = $1;

-- name: operator_id_of
-- The id from which an operator's keys derive.
SELECT operator_id FROM operator WHERE operator_no = $1;

-- name: tariff_document
-- A version's document, which never changes.
SELECT document FROM tariff_version WHERE tariff_no = $1 AND version = $2;

-- name: find_hold
-- The hold of a session with the names that a call and a fact need.
SELECT h.*, o.operator_id, o.hold_policy, a.agreement_id, a.provider_key AS agreement_key,
       a.provider_ref AS agreement_ref, r.rider_ref, m.account_id, m.provider, m.base_url, m.settings
FROM hold h
JOIN operator o ON o.operator_no = h.operator_no
JOIN agreement a ON a.agreement_no = h.agreement_no
JOIN rider r ON r.rider_no = a.rider_no
JOIN merchant_account m ON m.account_no = h.account_no
WHERE h.session_key = $1 AND h.slot = $2;

-- name: find_hold_by_provider_key
-- The hold that a provider's notification is about.
SELECT h.*, o.operator_id, o.hold_policy, a.agreement_id, a.provider_key AS agreement_key,
       a.provider_ref AS agreement_ref, r.rider_ref, m.account_id, m.provider, m.base_url, m.settings
FROM hold h
JOIN operator o ON o.operator_no = h.operator_no
JOIN agreement a ON a.agreement_no = h.agreement_no
JOIN rider r ON r.rider_no = a.rider_no
JOIN merchant_account m ON m.account_no = h.account_no
WHERE h.account_no = $1 AND h.provider_key = $2 AND h.state IN ('requested', 'open', 'completing');

-- name: request_hold
-- The intent, before the provider is called; nothing where somebody asked for this session first.
INSERT INTO hold (session_key, slot, operator_no, session_id, agreement_no, account_no, tariff_id, vehicle_id, state,
                  cap_minor, currency, provider_key, provider_ref, reason, requested_at, opened_at, due_at, lease_until,
                  updated_at, refusal, title, subject)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $15, $19, $20, $21)
ON CONFLICT (session_key, slot) DO NOTHING;

-- name: save_hold
-- What was decided, by compare-and-set on the version; the lease is over, unless a new one is given.
UPDATE hold SET state = $4, cap_minor = $5, provider_ref = $6, action = $7, reason = $8, requested_at = $9,
  opened_at = $10, expires_at = $11, asks = $12, due_at = $13, lease_until = $14, updated_at = $15, refusal = $16,
  version = version + 1
WHERE session_key = $1 AND slot = $2 AND version = $3;

-- name: wake_debits_of_hold
-- The ride's debits that wait for their hold are due at $3, now that there is news of it; who has one in hand looks at the
-- hold by himself. One that is open ($6) is what those were tried without whose reason begins with $5.
WITH waiting AS (
  SELECT d.ride_no, d.ordinal FROM session_key k JOIN debit d ON d.ride_no = k.ride_no AND d.slot = k.slot
  WHERE k.session_key = $1 AND k.slot = $2 AND d.state IN ('new', 'retry_wait', 'needs_rider', 'manual')
    AND ((d.reason = ANY($4::text[]) AND d.due_at > $3) OR ($6 AND starts_with(d.reason, $5) AND NOT d.suspended))
    AND d.lease_until IS NULL
  FOR UPDATE OF d SKIP LOCKED
)
UPDATE debit d SET due_at = $3 FROM waiting w WHERE d.ride_no = w.ride_no AND d.ordinal = w.ordinal;

-- name: claim_holds
-- Holds of account $1 in the states $5 that are due at $2 (business) and that nobody holds at $3 (machine).
WITH due AS (
  SELECT session_key, slot FROM hold
  WHERE account_no = $1 AND due_at <= $2 AND (lease_until IS NULL OR lease_until <= $3) AND state = ANY($5::text[])
  ORDER BY due_at LIMIT $6 FOR UPDATE SKIP LOCKED
), claimed AS (
  UPDATE hold h SET lease_until = $4, version = version + 1 FROM due
  WHERE h.session_key = due.session_key AND h.slot = due.slot RETURNING h.*
)
SELECT h.*, o.operator_id, o.hold_policy, a.agreement_id, a.provider_key AS agreement_key,
       a.provider_ref AS agreement_ref, r.rider_ref, m.account_id, m.provider, m.base_url, m.settings
FROM claimed h
JOIN operator o ON o.operator_no = h.operator_no
JOIN agreement a ON a.agreement_no = h.agreement_no
JOIN rider r ON r.rider_no = a.rider_no
JOIN merchant_account m ON m.account_no = h.account_no
ORDER BY h.session_key;

-- name: rides_of_holds
-- What became of the rides of these sessions: their state, what they owe by the hold's agreement (`another`: by another
-- one, too, or alone), their debits on it. One that was written off may still be collected on the hold for as long as its
-- number is asked about, one that was paid elsewhere until its provider knows it.
SELECT k.session_key, ride.state::text AS state, coalesce(owed.minor, 0)::bigint AS owed_minor, taken.debits,
       taken.debits_final, taken.debits_minor, taken.paid_minor, taken.debits_on_hold, coalesce(owed.another, false) AS another
FROM session_key k
LEFT JOIN hold h ON h.session_key = k.session_key AND h.slot = k.slot
CROSS JOIN LATERAL (SELECT r.state FROM ride_revision r WHERE r.ride_no = k.ride_no AND r.slot = k.slot
                    ORDER BY r.revision DESC LIMIT 1) ride
CROSS JOIN LATERAL (SELECT sum(b.amount_minor) FILTER (WHERE b.agreement_no = h.agreement_no) AS minor,
                      bool_or(b.agreement_no <> h.agreement_no) AS another FROM obligation b
                    WHERE b.ride_no = k.ride_no AND b.slot = k.slot) owed
CROSS JOIN LATERAL (SELECT count(*) AS debits, count(*) FILTER (WHERE final) AS debits_final,
                      count(*) FILTER (WHERE NOT final AND begun_at IS NOT NULL) AS debits_on_hold,
                      coalesce(sum(d.amount_minor), 0)::bigint AS debits_minor,
                      coalesce(sum(d.paid_minor), 0)::bigint AS paid_minor
                    FROM (SELECT debit.*, (state IN ('settled', 'settled_elsewhere', 'settled_twice', 'waived', 'cancelled')
                              AND lowering_to IS NULL) OR (state = 'written_off' AND due_at IS NULL) AS final
                          FROM debit WHERE debit.ride_no = k.ride_no AND debit.slot = k.slot
                            AND debit.agreement_no = h.agreement_no) d) taken
WHERE k.session_key = ANY($1::uuid[]);

-- name: intake_read_through
-- How far the intake has read every partition of what it reads, in business time; NULL before it has read anything.
SELECT min(furthest) FROM (
  SELECT max(read_through_at) AS furthest FROM stream_offset GROUP BY topic, partition
) partitions;
