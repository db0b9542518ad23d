-- name: ride_number_of
-- A ride's number by its key; it never changes, so whoever has asked once need not ask again.
SELECT ride_no FROM session_key WHERE session_key = $1;

-- name: session_status
-- Everything about one ride in one statement, so in one snapshot and one round trip; $1 prunes every partitioned table.
SELECT json_build_object(
  'revisions', (
    SELECT json_agg(r ORDER BY r.revision) FROM (
      SELECT ride_no, revision, slot, operator_no, state, agreement_no, tariff_no, tariff_version, reason, events, charge,
             amount_minor, currency, decided_at, batch_no, encode(digest, 'base64') AS digest
      FROM ride_revision WHERE ride_no = $1) r),
  'agreement', (
    SELECT row_to_json(a) FROM (
      SELECT agreement_no, rider_no, currency, agreement_id, rider_ref, language
      FROM agreement LEFT JOIN rider USING (rider_no)
      WHERE agreement_no = (
        SELECT agreement_no FROM ride_revision
        WHERE ride_no = $1 AND agreement_no IS NOT NULL ORDER BY revision DESC LIMIT 1)) a),
  'obligations', (
    SELECT json_agg(o ORDER BY o.revision) FROM (
      SELECT revision, kind, amount_minor, currency, occurred_at FROM obligation WHERE ride_no = $1) o),
  'debits', (
    SELECT json_agg(d ORDER BY d.ordinal) FROM (
      SELECT ride_no, ordinal, debit.operator_no, session_id, agreement_id, debit.currency, amount_minor, paid_minor, refunding_minor,
             refunded_minor, forgone_minor, outside_minor, given_back_minor, debit.state, overdue, suspended, dispute, debit.provider_key,
             debit.provider_ref, debit.action, debit.reason, attempts, submitted_at, settled_at, debit.due_at, pay_by,
             payable_until, dunned, dunned_at, nudged_at, record, record_at,
             debit.created_at, debit.updated_at
      FROM debit JOIN agreement USING (agreement_no) WHERE ride_no = $1) d),
  'transitions', (
    SELECT json_agg(t ORDER BY t.ordinal, t.transition) FROM (
      SELECT ordinal, transition, from_state, to_state, why, amount_minor, provider_key, provider_ref, business_at
      FROM debit_transition WHERE ride_no = $1) t),
  'refunds', (
    SELECT json_agg(f ORDER BY f.ordinal, f.refund_ordinal) FROM (
      SELECT ordinal, refund_ordinal, amount_minor, currency, state, provider_key, provider_ref, reason, because, code, created_at,
             updated_at
      FROM refund WHERE ride_no = $1) f),
  'disputes', (
    SELECT json_agg(c) FROM (
      SELECT ordinal, disputes FROM debit WHERE ride_no = $1 AND disputes <> '[]') c),
  'stops', (
    SELECT json_agg(w ORDER BY w.ordinal, w.what, w.stop_no) FROM (
      SELECT waiting.ordinal, waiting.what, s.stop_no, s.reason
      FROM (
        SELECT ordinal, 'debits' AS what, operator_no, account_no, tariff_no FROM debit
        WHERE ride_no = $1 AND NOT asked AND due_at IS NOT NULL
        UNION
        SELECT ordinal, 'refunds', operator_no, account_no, tariff_no FROM refund
        WHERE ride_no = $1 AND (state = 'new' OR (state = 'submitting' AND lease_until IS NULL))) waiting
      JOIN operator o ON o.operator_no = waiting.operator_no
      CROSS JOIN LATERAL (
        SELECT 0 AS stop_no, 'operator ' || o.mode AS reason WHERE o.mode <> 'live'
        UNION ALL
        SELECT stop_no, reason FROM stop
        WHERE operator_no = waiting.operator_no AND resumed_at IS NULL AND stop.what = waiting.what
          AND (account_no IS NULL OR account_no = waiting.account_no)
          AND (tariff_no IS NULL OR tariff_no = waiting.tariff_no)) s) w),
  'hold', (
    SELECT row_to_json(h) FROM (
      SELECT state, cap_minor, currency, provider_key, provider_ref, action, reason, requested_at, opened_at, expires_at
      FROM hold WHERE session_key = $2 AND slot = $3 AND agreement_no = coalesce(
        (SELECT agreement_no FROM ride_revision WHERE ride_no = $1 AND agreement_no IS NOT NULL
         ORDER BY revision DESC LIMIT 1), agreement_no)) h)
)::text;

-- name: newest_sessions
-- A page of an operator's rides, newest first. At most $5 rides are looked at: a rare state costs more pages, not more time.
WITH scanned AS MATERIALIZED (
  SELECT ride_no, operator_no FROM ride_revision
  WHERE revision = 1 AND ride_no < $2 ORDER BY ride_no DESC LIMIT $5
)
SELECT (SELECT count(*) FROM scanned) AS scanned, (SELECT min(ride_no) FROM scanned) AS through_no, ARRAY(
  SELECT ride_no FROM scanned
  WHERE operator_no = $1 AND ($3::text IS NULL OR $3 = (
    SELECT state::text FROM ride_revision r WHERE r.ride_no = scanned.ride_no ORDER BY revision DESC LIMIT 1))
  ORDER BY ride_no DESC LIMIT $4) AS ride_nos;

-- name: newest_sessions_of_agreements
-- The same for the rides of some agreements: of each no more are looked up than of all.
WITH scanned AS MATERIALIZED (
  SELECT DISTINCT r.ride_no FROM unnest($1::bigint[]) AS asked(agreement_no) CROSS JOIN LATERAL (
    SELECT DISTINCT ride_no FROM ride_revision
    WHERE agreement_no = asked.agreement_no AND ride_no < $2 ORDER BY ride_no DESC LIMIT $5
  ) r ORDER BY r.ride_no DESC LIMIT $5
)
SELECT (SELECT count(*) FROM scanned) AS scanned, (SELECT min(ride_no) FROM scanned) AS through_no, ARRAY(
  SELECT ride_no FROM scanned
  WHERE $3::text IS NULL OR $3 = (
    SELECT state::text FROM ride_revision r WHERE r.ride_no = scanned.ride_no ORDER BY revision DESC LIMIT 1)
  ORDER BY ride_no DESC LIMIT $4) AS ride_nos;

-- name: newest_sessions_to_attend
-- The same for rides that were ever in a state that somebody looks for among millions; it has an index of its own.
WITH scanned AS MATERIALIZED (
  SELECT DISTINCT ride_no FROM ride_revision
  WHERE operator_no = $1 AND state = $3::text::session_state AND state IN ('parked', 'review') AND ride_no < $2
  ORDER BY ride_no DESC LIMIT $5
)
SELECT (SELECT count(*) FROM scanned) AS scanned, (SELECT min(ride_no) FROM scanned) AS through_no, ARRAY(
  SELECT ride_no FROM scanned
  WHERE $3 = (SELECT state::text FROM ride_revision r WHERE r.ride_no = scanned.ride_no ORDER BY revision DESC LIMIT 1)
  ORDER BY ride_no DESC LIMIT $4) AS ride_nos;

-- name: session_revisions
-- The revisions of a page of rides with the agreement each was last decided under.
SELECT json_agg(s ORDER BY s.ride_no DESC)::text FROM (
  SELECT ride_no,
    (SELECT json_agg(r ORDER BY r.revision) FROM (
       SELECT ride_no, revision, slot, operator_no, state, agreement_no, tariff_no, tariff_version, reason, events, charge,
              amount_minor, currency, decided_at, batch_no, encode(digest, 'base64') AS digest
       FROM ride_revision r WHERE r.ride_no = asked.ride_no) r) AS revisions,
    (SELECT row_to_json(a) FROM (
       SELECT agreement_no, rider_no, currency, agreement_id, rider_ref, language
       FROM agreement LEFT JOIN rider USING (rider_no)
       WHERE agreement_no = (
         SELECT agreement_no FROM ride_revision n
         WHERE n.ride_no = asked.ride_no AND agreement_no IS NOT NULL ORDER BY revision DESC LIMIT 1)) a) AS agreement
  FROM unnest($1::bigint[]) AS asked(ride_no)
) s;

-- name: agreement_numbers
-- An operator's agreement by id, where a rider is given too only his.
SELECT agreement_no FROM agreement WHERE operator_no = $1 AND agreement_id = $2
  AND ($3::text IS NULL OR rider_no = (SELECT rider_no FROM rider WHERE operator_no = $1 AND rider_ref = $3));

-- name: agreement_numbers_of_rider
-- All of a rider's.
SELECT agreement_no FROM agreement
WHERE rider_no = (SELECT rider_no FROM rider WHERE operator_no = $1 AND rider_ref = $2);

-- name: rider_number
-- A rider by the operator's reference.
SELECT rider_no FROM rider WHERE operator_no = $1 AND rider_ref = $2;

-- name: rider_of_agreement
-- Whose an agreement is, and what of it never changes.
SELECT agreement_no, rider_no, currency, agreement_id, rider_ref, language
FROM agreement LEFT JOIN rider USING (rider_no) WHERE agreement.operator_no = $1 AND agreement_id = $2;

-- name: balances_used
-- What a rider's earlier rides used of some windows, for a fare that is only shown: nothing is locked.
SELECT balance_window, used FROM balance
WHERE operator_no = $1 AND rider_no = $2 AND balance_window = ANY($3::text[]);

-- name: newest_debits
-- A page of an operator's debits, newest first, looking at no more than $7 of them.
WITH scanned AS MATERIALIZED (
  SELECT ride_no, ordinal, operator_no, session_id, agreement_no, currency, amount_minor, paid_minor, refunding_minor,
         refunded_minor, forgone_minor, outside_minor, given_back_minor, state, overdue, suspended, dispute, provider_key, provider_ref, action, reason,
         attempts, submitted_at, settled_at, due_at, pay_by,
         payable_until, dunned, dunned_at, nudged_at, record, record_at, created_at, updated_at
  FROM debit WHERE (ride_no, ordinal) < ($2::bigint, $3::smallint) ORDER BY ride_no DESC, ordinal DESC LIMIT $7
)
SELECT (SELECT count(*) FROM scanned) AS scanned,
  (SELECT ride_no || '-' || ordinal FROM scanned ORDER BY ride_no, ordinal LIMIT 1) AS through,
  (SELECT json_agg(d)::text FROM (
    SELECT scanned.*, agreement_id FROM scanned JOIN agreement USING (agreement_no)
    WHERE scanned.operator_no = $1 AND ($4::text IS NULL OR scanned.state = $4)
      AND ($5::boolean IS NULL OR scanned.overdue = $5)
    ORDER BY ride_no DESC, ordinal DESC LIMIT $6) d) AS debits;

-- name: newest_debits_of_agreements
-- The same for the debits of some agreements: by their rides, since a debit that is settled stands in no index but its key.
WITH rides AS MATERIALIZED (
  SELECT DISTINCT r.ride_no FROM unnest($1::bigint[]) AS asked(agreement_no) CROSS JOIN LATERAL (
    SELECT DISTINCT ride_no FROM ride_revision
    WHERE agreement_no = asked.agreement_no AND ride_no <= $2 ORDER BY ride_no DESC LIMIT $7
  ) r ORDER BY r.ride_no DESC LIMIT $7
)
SELECT (SELECT count(*) FROM rides) AS scanned, (SELECT min(ride_no) || '-0' FROM rides) AS through,
  (SELECT json_agg(d)::text FROM (
    SELECT ride_no, ordinal, debit.operator_no, session_id, agreement_id, debit.currency, amount_minor, paid_minor,
           refunding_minor, refunded_minor, forgone_minor, outside_minor, given_back_minor, debit.state, overdue, suspended, dispute, debit.provider_key,
           debit.provider_ref, debit.action, debit.reason, attempts, submitted_at, settled_at, debit.due_at, pay_by,
             payable_until, dunned, dunned_at, nudged_at, record, record_at,
           debit.created_at, debit.updated_at
    FROM rides JOIN debit USING (ride_no) JOIN agreement USING (agreement_no)
    WHERE agreement_no = ANY($1::bigint[]) AND (ride_no, ordinal) < ($2::bigint, $3::smallint)
      AND ($4::text IS NULL OR debit.state = $4) AND ($5::boolean IS NULL OR overdue = $5)
    ORDER BY ride_no DESC, ordinal DESC LIMIT $6) d) AS debits;

-- name: rider_status
-- A rider's agreements, what he owes on any of them, and the holds under way, in one statement; at most 100 of each.
SELECT json_build_object(
  'rider_no', rider_no,
  'exposure_max_minor', (SELECT exposure_max_minor FROM operator WHERE operator_no = $1),
  'exposure_currency', (SELECT currency FROM operator WHERE operator_no = $1),
  'agreements', (
    SELECT json_agg(a ORDER BY a.agreement_no DESC) FROM (
      SELECT agreement_no, agreement_id, state, currency, cap_minor, time_zone, language, valid_until, reason
      FROM agreement WHERE agreement.rider_no = rider.rider_no ORDER BY agreement_no DESC LIMIT 100) a),
  'debits', (
    SELECT json_agg(d ORDER BY d.ride_no DESC, d.ordinal) FROM (
      SELECT ride_no, ordinal, debit.operator_no, session_id, agreement_id, debit.currency, amount_minor, paid_minor,
             refunding_minor, refunded_minor, forgone_minor, outside_minor, given_back_minor, debit.state, overdue, suspended, dispute, debit.provider_key,
             debit.provider_ref, debit.action, debit.reason, attempts, submitted_at, settled_at, debit.due_at, pay_by,
             payable_until, dunned, dunned_at, nudged_at, record, record_at,
             debit.created_at, debit.updated_at
      FROM debit JOIN agreement USING (agreement_no)
      WHERE agreement.rider_no = rider.rider_no
        AND debit.state NOT IN ('settled', 'settled_elsewhere', 'settled_twice', 'waived', 'cancelled')
      ORDER BY ride_no DESC, ordinal LIMIT 100) d),
  'holds', (
    SELECT json_agg(h ORDER BY h.session_id) FROM (
      SELECT session_id, agreement_id, hold.state, hold.cap_minor, hold.currency
      FROM hold JOIN agreement USING (agreement_no)
      WHERE agreement.rider_no = rider.rider_no AND hold.state IN ('requested', 'open', 'completing') LIMIT 100) h)
)::text
FROM rider WHERE operator_no = $1 AND rider_ref = $2;

-- name: tariff_versions
-- Every version of one tariff, or the newest of each where no id is given, by id from $3 on. Without the documents: a
-- thousand large ones would be a gigabyte.
SELECT tariff_no, tariff_id, version, valid_from, digest, created_at FROM (
  SELECT t.tariff_no, t.tariff_id, v.version, v.valid_from, v.digest, v.created_at,
         row_number() OVER (PARTITION BY t.tariff_no ORDER BY v.version DESC) AS age
  FROM tariff t JOIN tariff_version v USING (tariff_no)
  WHERE t.operator_no = $1 AND ($2::text IS NULL OR t.tariff_id = $2) AND ($3::text IS NULL OR t.tariff_id > $3)
) versions
WHERE $2::text IS NOT NULL OR age = 1
ORDER BY tariff_id, version DESC LIMIT $4;

-- name: operator_contact
-- Whom a rider can ask, for receipts.
SELECT name, contact, time_zone FROM operator WHERE operator_no = $1;

-- name: debits_of_number
-- The debits that a provider has under number $1, or had under an earlier one: his own number, or the key that is ours.
SELECT ride_no, ordinal FROM debit WHERE provider_ref = $1
UNION SELECT ride_no, ordinal FROM debit_number WHERE number = $1
UNION SELECT ride_no, ordinal FROM debit WHERE provider_key = $1 AND state NOT IN ('settled', 'waived')
ORDER BY ride_no, ordinal;

-- name: troubled_refunds
-- Refunds of operator $1 that are not sent yet (or put off by the provider), that stand still there, that nobody can
-- tell of, or that failed or came back with none begun after that while something of the ride is still to be given back;
-- and what was paid elsewhere of its rides that owe less (refund_ordinal 0): of several such debits the newest first.
-- `since_at` is when the rider's waiting began: with the first that came to nothing, where none succeeded in between.
-- Of one that came to nothing so much is told as is still to be given back.
SELECT r.ride_no, r.ordinal, r.refund_ordinal, d.session_id,
  CASE WHEN r.state IN ('failed', 'returned') THEN least(r.amount_minor, still.minor) ELSE r.amount_minor END::bigint AS amount_minor,
  r.currency, r.state, r.reason, r.code,
  least(r.created_at, (
    SELECT min(before.created_at) FROM refund before
    WHERE before.ride_no = r.ride_no AND before.slot = r.slot AND before.created_at < r.created_at
      AND before.state IN ('failed', 'returned') AND NOT EXISTS (
        SELECT FROM refund given
        WHERE given.ride_no = r.ride_no AND given.slot = r.slot AND given.state = 'succeeded'
          AND given.created_at > before.updated_at AND given.created_at < r.created_at))) AS since_at
FROM refund r JOIN debit d ON d.ride_no = r.ride_no AND d.ordinal = r.ordinal AND d.slot = r.slot
CROSS JOIN LATERAL (
  SELECT sum(owing.paid_minor - owing.refunded_minor - owing.given_back_minor) + sum(owing.outside_minor) - greatest((
    SELECT coalesce(sum(o.amount_minor), 0) FROM obligation o WHERE o.ride_no = r.ride_no AND o.slot = r.slot
  ), sum(owing.outside_minor)) AS minor
  FROM debit owing WHERE owing.ride_no = r.ride_no AND owing.slot = r.slot
) still
WHERE r.operator_no = $1 AND (
  r.state = 'new'
  OR (r.state IN ('unknown', 'pending', 'manual') AND r.code IS NOT NULL)
  OR (r.state IN ('failed', 'returned') AND NOT EXISTS (
    SELECT FROM refund later
    WHERE later.ride_no = r.ride_no AND later.slot = r.slot AND later.created_at > r.updated_at)
  AND still.minor > 0))
UNION ALL
SELECT ride_no, ordinal, 0, session_id, least(outside_minor, too_much - newer)::bigint, currency, 'paid_elsewhere', 'owed less', NULL,
  lessened_at
FROM (
  SELECT d.ride_no, d.ordinal, d.session_id, d.outside_minor, d.currency, owed.lessened_at,
    sum(d.outside_minor) OVER ride - owed.minor AS too_much,
    coalesce(sum(d.outside_minor) OVER (ride ORDER BY d.ordinal DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)
      AS newer
  FROM debit d
  CROSS JOIN LATERAL (
    SELECT greatest(coalesce(sum(o.amount_minor), 0), 0) AS minor, max(o.occurred_at) AS lessened_at
    FROM obligation o WHERE o.ride_no = d.ride_no AND o.slot = d.slot) owed
  WHERE d.operator_no = $1 AND d.outside_minor > 0
  WINDOW ride AS (PARTITION BY d.ride_no, d.slot)
) outside
WHERE too_much > newer
ORDER BY 10, 1, 2, 3 LIMIT $2;
