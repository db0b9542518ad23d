-- name: add_account
-- A merchant account of an operator; nothing where the id is taken.
INSERT INTO merchant_account (operator_no, account_id, provider, base_url, settings, created_at)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (operator_no, account_id) DO NOTHING RETURNING account_no;

-- name: merchant_accounts
-- Every merchant account, for whoever opens its provider.
SELECT m.account_no, m.operator_no, o.operator_id, m.account_id, m.provider, m.base_url, m.settings,
  EXISTS (SELECT FROM stop s WHERE s.account_no = m.account_no AND s.tariff_no IS NULL AND s.resumed_at IS NULL) AS paused
FROM merchant_account m JOIN operator o ON o.operator_no = m.operator_no ORDER BY m.account_no;

-- name: change_account
-- Where an account's provider is and what its settings are; its id and number stay for ever.
UPDATE merchant_account SET base_url = $3, settings = $4 WHERE operator_no = $1 AND account_id = $2;

-- name: account_uses
-- What refers to account $2 of an operator; it is locked, so that nothing new does before the commit. Holds, debits and
-- refunds are all of agreements.
SELECT m.account_no,
  (SELECT count(*) FROM agreement a WHERE a.account_no = m.account_no) AS agreements,
  (SELECT count(*) FROM notification n WHERE n.account_no = m.account_no) AS notifications,
  (SELECT count(*) FROM dispute_question q WHERE q.account_no = m.account_no)
    + (SELECT count(*) FROM dispute_unheard u WHERE u.account_no = m.account_no) AS disputes,
  (SELECT count(*) FROM stop s WHERE s.account_no = m.account_no) AS stops
FROM merchant_account m WHERE m.operator_no = $1 AND m.account_id = $2 FOR UPDATE OF m;

-- name: remove_account
-- An account that nothing refers to; what came to do so meanwhile keeps it, by its foreign key.
DELETE FROM merchant_account WHERE account_no = $1;

-- name: agreement_setting
-- What a new agreement is decided against: the operator, and the account it names or the only one there is.
SELECT o.operator_id, o.time_zone, o.currency, m.account_no, m.account_id, m.provider, m.base_url, m.settings,
       (SELECT count(*) FROM merchant_account c WHERE c.operator_no = o.operator_no) AS accounts
FROM operator o
LEFT JOIN merchant_account m ON m.operator_no = o.operator_no
  AND CASE WHEN $2::text IS NULL THEN
    m.account_no = (SELECT min(s.account_no) FROM merchant_account s WHERE s.operator_no = o.operator_no)
    ELSE m.account_id = $2 END
WHERE o.operator_no = $1;

-- name: ensure_rider
-- The only place a rider's reference stands.
INSERT INTO rider (operator_no, rider_ref) VALUES ($1, $2) ON CONFLICT (operator_no, rider_ref) DO NOTHING;

-- name: number_of_rider
-- The number by which everything else knows a rider.
SELECT rider_no FROM rider WHERE operator_no = $1 AND rider_ref = $2;

-- name: add_agreement
-- The intent, before the provider is called; nothing where the id is taken.
INSERT INTO agreement (operator_no, agreement_id, rider_no, account_no, state, currency, cap_asked_minor, cap_minor,
                       time_zone, language, provider_key, due_at, lease_until, created_at, updated_at)
VALUES ($1, $2, $3, $4, 'pending', $5, $6, $6, $7, $8, $9, $10, $11, $10, $10)
ON CONFLICT (operator_no, agreement_id) DO NOTHING RETURNING agreement_no;

-- part: agreement_columns
-- An agreement `a`, and the names that calls and facts about it need.
a.*, r.rider_ref, o.operator_id, m.account_id, m.provider, m.base_url, m.settings;

-- part: agreement_joins
-- Where those names stand.
JOIN rider r ON r.rider_no = a.rider_no
JOIN operator o ON o.operator_no = a.operator_no
JOIN merchant_account m ON m.account_no = a.account_no;

-- name: agreement_by_id
-- An agreement with its rider, its operator and its account.
SELECT {agreement_columns}
FROM agreement a
{agreement_joins}
WHERE a.operator_no = $1 AND a.agreement_id = $2;

-- name: agreement_by_provider_key
-- The agreement a provider's notification is about.
SELECT {agreement_columns}
FROM agreement a
{agreement_joins}
WHERE a.account_no = $1 AND a.provider_key = $2;

-- name: agreement_by_provider_ref
-- The agreement of which $2 is one of the provider's numbers, where he has several. Materialized: by its index
-- (`agreement_by_provider_parts`), and never by walking through the newest ones.
WITH named AS MATERIALIZED (
  SELECT agreement_no FROM agreement
  WHERE account_no = $1 AND provider_ref LIKE '%:%' AND string_to_array(provider_ref, ':') @> ARRAY[$2::text]
)
SELECT {agreement_columns}
FROM (SELECT max(agreement_no) AS agreement_no FROM named) newest
JOIN agreement a ON a.agreement_no = newest.agreement_no
{agreement_joins};

-- name: list_agreements
-- A page of an operator's agreements after $2 (agreement number) in any of the states $3: each state's first are looked
-- up. The comparison of rows keeps to the index that leads to them, where a plan for any LIMIT walks past all others'.
SELECT {agreement_columns}
FROM agreement a
{agreement_joins}
WHERE a.agreement_no = ANY(ARRAY(
  SELECT p.agreement_no FROM unnest($3::text[]) s CROSS JOIN LATERAL (
    SELECT f.agreement_no FROM agreement f
    WHERE (f.operator_no, f.state, f.agreement_no) > ($1, s, $2) AND (f.operator_no, f.state) <= ($1, s)
    ORDER BY f.operator_no, f.state, f.agreement_no LIMIT $4
  ) p ORDER BY p.agreement_no LIMIT $4
)) ORDER BY a.agreement_no;

-- name: list_agreements_of_rider
-- The same for those of one rider.
SELECT {agreement_columns}
FROM agreement a
{agreement_joins}
WHERE a.agreement_no = ANY(ARRAY(
  SELECT f.agreement_no FROM agreement f
  WHERE f.rider_no = (SELECT rider_no FROM rider WHERE operator_no = $1 AND rider_ref = $5)
    AND f.state = ANY($3::text[]) AND f.agreement_no > $2 ORDER BY f.agreement_no LIMIT $4
)) ORDER BY a.agreement_no;

-- name: claim_agreements
-- Agreements of account $1 that are due at $2 (business) and that nobody holds at $3 (machine).
WITH due AS (
  SELECT agreement_no FROM agreement
  WHERE account_no = $1 AND due_at <= $2 AND (lease_until IS NULL OR lease_until <= $3)
  ORDER BY due_at LIMIT $5 FOR UPDATE SKIP LOCKED
), claimed AS (
  UPDATE agreement a SET lease_until = $4, version = version + 1 FROM due WHERE a.agreement_no = due.agreement_no
  RETURNING a.*
)
SELECT {agreement_columns}
FROM claimed a
{agreement_joins}
ORDER BY a.agreement_no;

-- name: agreements_through
-- The last of the next $2 agreements after $1.
SELECT max(agreement_no) FROM (SELECT agreement_no FROM agreement WHERE agreement_no > $1 ORDER BY agreement_no LIMIT $2) next;

-- name: ask_agreements_again
-- Every agreement after $2 and up to $3 that is not over is due at $1: its rider may have ended it meanwhile.
UPDATE agreement SET due_at = $1, asks = 0, version = version + 1
WHERE agreement_no > $2 AND agreement_no <= $3
  AND state IN ('pending', 'active', 'suspended') AND (due_at IS NULL OR due_at > $1);

-- name: doubt_agreements
-- Of the agreements $1 those that are in force are due at $2: an answer of their provider's says that they may be over.
UPDATE agreement SET due_at = $2, asks = 0, version = version + 1
WHERE agreement_no = ANY($1::bigint[]) AND state = 'active' AND (due_at IS NULL OR due_at > $2);

-- name: save_agreement
-- What was decided, by compare-and-set on the version; the lease is over, unless a new one is given.
UPDATE agreement SET state = $3, cap_minor = $4, provider_ref = $5, action = $6, reason = $7, valid_until = $8, asks = $9,
  due_at = $10, lease_until = $11, updated_at = $12, ending_at = $13, version = version + 1
WHERE agreement_no = $1 AND version = $2;

-- name: agreement_under_way
-- What still goes on on agreement $1: rides that may come to owe or whose debits are not made, running holds, debits that
-- may yet be collected on it (what only the rider can pay needs no agreement); how far the intake has read.
SELECT o.calendar::text AS calendar,
  (SELECT count(*) FROM (SELECT DISTINCT ride_no, slot FROM ride_revision WHERE agreement_no = $1) r
   CROSS JOIN LATERAL (SELECT v.state FROM ride_revision v WHERE v.ride_no = r.ride_no AND v.slot = r.slot
                       ORDER BY v.revision DESC LIMIT 1) ride
   CROSS JOIN LATERAL (SELECT coalesce(sum(b.amount_minor), 0) AS minor FROM obligation b
                       WHERE b.ride_no = r.ride_no AND b.slot = r.slot) owed
   CROSS JOIN LATERAL (SELECT coalesce(sum(d.amount_minor), 0) AS minor FROM debit d
                       WHERE d.ride_no = r.ride_no AND d.slot = r.slot) made
   WHERE ride.state NOT IN ('closed', 'cancelled', 'voided', 'not_billable') OR owed.minor > made.minor) AS rides,
  (SELECT count(*) FROM hold WHERE agreement_no = $1 AND state IN ('requested', 'open', 'completing')) AS holds,
  (SELECT count(*) FROM debit WHERE agreement_no = $1
     AND state NOT IN ('settled', 'settled_elsewhere', 'settled_twice', 'waived', 'cancelled')
     AND state NOT IN ('needs_rider', 'written_off')) AS debits,
  (SELECT min(furthest) FROM (SELECT max(read_through_at) AS furthest FROM stream_offset GROUP BY topic, partition)
   partitions) AS read_through_at
FROM operator o WHERE o.operator_no = $2;

-- name: rider_debts
-- What a rider owes over all his agreements, by currency.
SELECT currency, overdue, overdue_minor, open_minor FROM rider_debt WHERE rider_no = $1;
