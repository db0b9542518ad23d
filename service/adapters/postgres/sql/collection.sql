-- name: ensure_collection_cursors
-- Every writer of obligations has a cursor of collection's; nothing is written when all are there.
INSERT INTO batch_reader (reader, writer_no, seq)
SELECT 'collection', known.writer_no, 0
FROM (SELECT writer_no FROM stream_offset UNION ALL SELECT writer_no FROM writer WHERE name NOT LIKE 'collection/%') known
WHERE NOT EXISTS (SELECT FROM batch_reader r WHERE r.reader = 'collection' AND r.writer_no = known.writer_no)
ON CONFLICT DO NOTHING;

-- name: lock_collection_cursors
-- Collectors divide the writers among themselves: what another one is reading is skipped.
SELECT writer_no, seq FROM batch_reader WHERE reader = 'collection' ORDER BY writer_no FOR UPDATE SKIP LOCKED;

-- name: batches_owing
-- The next batches of each writer ($1) after its cursor ($2), at most $3 of each, the first of all writers first; one more
-- as long as those before it owe for fewer than $4 rides.
SELECT writer_no, seq, owing FROM (
  SELECT cursors.writer_no, next.seq, next.owing,
    sum(cardinality(next.owing)) OVER (ORDER BY next.place, cursors.writer_no) - cardinality(next.owing) AS rides_before
  FROM unnest($1::integer[], $2::bigint[]) AS cursors (writer_no, seq)
  CROSS JOIN LATERAL (
    SELECT b.seq, b.owing, row_number() OVER (ORDER BY b.seq) AS place
    FROM batch b WHERE b.writer_no = cursors.writer_no AND b.seq > cursors.seq ORDER BY b.seq LIMIT $3
  ) next
) waiting
WHERE rides_before < $4 ORDER BY writer_no, seq;

-- name: move_collection_cursors
-- By compare-and-set: from $2 to $3.
UPDATE batch_reader r SET seq = moved.seq
FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS moved (writer_no, expected, seq)
WHERE r.reader = 'collection' AND r.writer_no = moved.writer_no AND r.seq = moved.expected;

-- part: debit_columns
-- A debit `d`, and the names that requests and facts about it need.
d.*, o.operator_id, o.calendar AS operator_calendar, o.name AS operator_name, o.contact AS operator_contact,
  a.agreement_id, a.time_zone, a.language, m.provider, m.account_id, m.settings AS account_settings,
  a.provider_key AS agreement_key, a.provider_ref AS agreement_ref, h.provider_key AS hold_key, h.provider_ref AS hold_ref,
  h.state AS hold_state, h.ordinal AS hold_ordinal, h.action AS hold_action, h.reason AS hold_reason,
  h.cap_minor AS hold_cap_minor, h.refusal AS hold_refusal, h.requested_at AS hold_requested_at, h.title AS hold_title,
  h.agreement_no AS hold_agreement_no,
  (SELECT restored_at FROM installation) AS restored_at;

-- part: debit_joins
-- Where those names stand.
JOIN agreement a ON a.agreement_no = d.agreement_no
JOIN operator o ON o.operator_no = d.operator_no
JOIN merchant_account m ON m.account_no = d.account_no
LEFT JOIN hold h ON h.session_key = d.session_key AND h.slot = d.slot;

-- part: tariffs_of_account
-- The tariffs of account $1's operator, and 0 for what has none.
(SELECT 0 AS tariff_no UNION ALL SELECT tariff_no FROM tariff
    WHERE operator_no = (SELECT operator_no FROM merchant_account WHERE account_no = $1)) t;

-- name: claim_debits
-- Debits of account $1 that are due at $2 (business) and that nobody holds at $3 (machine), the longest waiting first.
SELECT {debit_columns}
FROM debit d
{debit_joins}
WHERE d.account_no = $1 AND d.due_at <= $2 AND (d.lease_until IS NULL OR d.lease_until <= $3)
ORDER BY d.due_at LIMIT $4
FOR UPDATE OF d SKIP LOCKED;

-- name: claim_debits_stopped
-- As claim_debits while debits are stopped: only those of which something must be asked, and with $5 those of all tariffs
-- but $6. Each part is found by its own index, tariff by tariff, so that nothing walks over what waits; which rows those
-- are is said once more at the end, for a row that somebody changed meanwhile.
SELECT {debit_columns}
FROM (
  (SELECT ride_no, ordinal, slot, due_at FROM debit
   WHERE account_no = $1 AND due_at <= $2 AND (lease_until IS NULL OR lease_until <= $3) AND asked
     AND (state <> 'submitting' OR lease_until IS NOT NULL OR ($5 AND (tariff_no = ANY($6::integer[])) IS NOT TRUE))
   ORDER BY due_at LIMIT $4)
  UNION ALL
  (SELECT waiting.* FROM {tariffs_of_account}
   CROSS JOIN LATERAL (
     SELECT ride_no, ordinal, slot, due_at FROM debit
     WHERE account_no = $1 AND due_at <= $2 AND (lease_until IS NULL OR lease_until <= $3) AND NOT asked
       AND coalesce(debit.tariff_no, 0) = t.tariff_no ORDER BY due_at LIMIT $4) waiting
   WHERE $5 AND t.tariff_no <> ALL($6::integer[]))
  ORDER BY due_at LIMIT $4
) due
JOIN debit d ON d.ride_no = due.ride_no AND d.ordinal = due.ordinal AND d.slot = due.slot
{debit_joins}
WHERE d.account_no = $1 AND d.due_at <= $2 AND (d.lease_until IS NULL OR d.lease_until <= $3)
  AND (($5 AND (d.tariff_no = ANY($6::integer[])) IS NOT TRUE)
    OR (d.asked AND (d.state <> 'submitting' OR d.lease_until IS NOT NULL)))
ORDER BY d.due_at LIMIT $4
FOR UPDATE OF d SKIP LOCKED;

-- name: claim_refunds
-- Refunds of account $1, as claim_debits.
SELECT r.* FROM refund r
WHERE r.account_no = $1 AND r.due_at <= $2 AND (r.lease_until IS NULL OR r.lease_until <= $3)
ORDER BY r.due_at LIMIT $4
FOR UPDATE OF r SKIP LOCKED;

-- name: claim_refunds_stopped
-- As claim_refunds while refunds are stopped: what was sent and not answered, and with $5 those of all tariffs but $6; found
-- as by claim_debits_stopped.
SELECT r.* FROM (
  (SELECT ride_no, ordinal, refund_ordinal, slot, due_at FROM refund
   WHERE account_no = $1 AND due_at <= $2 AND (lease_until IS NULL OR lease_until <= $3) AND state <> 'new'
     AND (state <> 'submitting' OR lease_until IS NOT NULL OR ($5 AND (tariff_no = ANY($6::integer[])) IS NOT TRUE))
   ORDER BY due_at LIMIT $4)
  UNION ALL
  (SELECT waiting.* FROM {tariffs_of_account}
   CROSS JOIN LATERAL (
     SELECT ride_no, ordinal, refund_ordinal, slot, due_at FROM refund
     WHERE account_no = $1 AND due_at <= $2 AND (lease_until IS NULL OR lease_until <= $3) AND state = 'new'
       AND coalesce(refund.tariff_no, 0) = t.tariff_no ORDER BY due_at LIMIT $4) waiting
   WHERE $5 AND t.tariff_no <> ALL($6::integer[]))
  ORDER BY due_at LIMIT $4
) due
JOIN refund r ON r.ride_no = due.ride_no AND r.ordinal = due.ordinal AND r.refund_ordinal = due.refund_ordinal
  AND r.slot = due.slot
WHERE r.account_no = $1 AND r.due_at <= $2 AND (r.lease_until IS NULL OR r.lease_until <= $3)
  AND (($5 AND (r.tariff_no = ANY($6::integer[])) IS NOT TRUE)
    OR (r.state <> 'new' AND (r.state <> 'submitting' OR r.lease_until IS NOT NULL)))
ORDER BY r.due_at LIMIT $4
FOR UPDATE OF r SKIP LOCKED;

-- name: claim_policies
-- Debits of account $1 that the calendar must look at, $3 at most.
SELECT {debit_columns}
FROM debit d
{debit_joins}
WHERE d.account_no = $1 AND d.policy_at <= $2
ORDER BY d.policy_at LIMIT $3
FOR UPDATE OF d SKIP LOCKED;

-- name: lock_debits
-- All debits of the rides $1 (between $2 and $3, for the partitions), locked in their order.
SELECT {debit_columns}
FROM debit d
{debit_joins}
WHERE d.ride_no = ANY($1::bigint[]) AND d.ride_no BETWEEN $2 AND $3
ORDER BY d.ride_no, d.ordinal
FOR UPDATE OF d;

-- name: lock_refunds
-- All refunds of the rides $1, after their debits.
SELECT r.* FROM refund r
WHERE r.ride_no = ANY($1::bigint[]) AND r.ride_no BETWEEN $2 AND $3
ORDER BY r.ride_no, r.ordinal, r.refund_ordinal
FOR UPDATE OF r;

-- name: rides_debited
-- The next rides that have a debit, in their order.
SELECT DISTINCT ride_no FROM debit WHERE ride_no > $1 ORDER BY ride_no LIMIT $2;

-- name: rides_owing
-- What each ride owes in all, on its latest agreement, with the events that name its session.
SELECT owed.*, ride.events, o.operator_id, o.calendar AS operator_calendar, o.name AS operator_name,
  o.contact AS operator_contact, a.agreement_id, a.account_no, a.cap_minor,
  (o.hold_policy ->> 'cap_minor')::bigint AS hold_cap_minor, a.time_zone, a.language, m.provider, m.account_id, m.settings AS account_settings,
  (SELECT restored_at FROM installation) AS restored_at
FROM (
  SELECT ride_no, slot, operator_no, max(currency) AS currency, sum(amount_minor)::bigint AS owed_minor,
    (array_agg(agreement_no ORDER BY revision DESC))[1] AS agreement_no
  FROM obligation WHERE ride_no = ANY($1::bigint[]) AND ride_no BETWEEN $2 AND $3
  GROUP BY ride_no, slot, operator_no
) owed
JOIN ride_revision ride ON ride.ride_no = owed.ride_no AND ride.revision = 1 AND ride.slot = owed.slot
  AND ride.ride_no BETWEEN $2 AND $3
JOIN agreement a ON a.agreement_no = owed.agreement_no
JOIN operator o ON o.operator_no = owed.operator_no
JOIN merchant_account m ON m.account_no = a.account_no
ORDER BY owed.ride_no;

-- name: hold_caps
-- The caps of the holds that were asked for for these sessions, on whichever agreement.
SELECT h.session_key, h.agreement_no, h.state, h.cap_minor, h.opened_at IS NOT NULL AS opened FROM hold h
WHERE h.session_key = ANY($1::uuid[]);

-- name: finish_holds
-- Every debit of the session is final: the hold is to be completed, or given up where nothing was taken. One that its
-- rider has not confirmed yet is looked at now, before he does.
UPDATE hold h SET state = CASE h.state WHEN 'open' THEN 'completing' ELSE h.state END,
  reason = CASE h.state WHEN 'open' THEN done.reason ELSE h.reason END,
  due_at = $3, updated_at = $3, version = version + 1
FROM unnest($1::uuid[], $2::text[]) AS done (session_key, reason)
WHERE h.session_key = done.session_key AND h.state IN ('open', 'requested');

-- name: ride_contents
-- The charge that stands of each of these rides, with its tariff: what their debits are for. And of the rides $4
-- what was decided last.
SELECT r.ride_no, (array_agg(r.charge ORDER BY r.revision DESC) FILTER (WHERE r.charge IS NOT NULL))[1] AS charge,
  (array_agg(r.tariff_no ORDER BY r.revision DESC) FILTER (WHERE r.tariff_no IS NOT NULL))[1] AS tariff_no,
  (array_agg(r.events ORDER BY r.revision DESC) FILTER (WHERE r.ride_no = ANY($4::bigint[])))[1] AS latest,
  (SELECT restored_at FROM installation) AS restored_at
FROM ride_revision r WHERE r.ride_no = ANY($1::bigint[]) AND r.ride_no BETWEEN $2 AND $3 GROUP BY r.ride_no;

-- name: want_hold
-- A hold for the ride of debit $1 that was charged without one, or whose own is over or was refused: the holds' rounds open
-- it, in the place of the one before, which may have been another agreement's. None while the agreement waits for the rider. Its cap is the agreement's, else the
-- operator's ($6: where he has said none), as of one that is asked for before the ride, and $7 where that is less. Its
-- rider reads what he reads of the debit, and the title $8.
INSERT INTO hold (session_key, slot, operator_no, session_id, agreement_no, account_no, tariff_id, state, cap_minor,
  currency, provider_key, ordinal, requested_at, due_at, updated_at, title, subject)
SELECT d.session_key, d.slot, d.operator_no, d.session_id, d.agreement_no, d.account_no, coalesce(t.tariff_id, ''),
  'requested', least(coalesce(a.cap_minor, (o.hold_policy ->> 'cap_minor')::bigint, $6), $7), d.currency,
  $3, $4, $5, $5, $5, $8, d.subject
FROM debit d
JOIN agreement a ON a.agreement_no = d.agreement_no
JOIN operator o ON o.operator_no = d.operator_no
LEFT JOIN tariff t ON t.tariff_no = d.tariff_no
WHERE d.ride_no = $1 AND d.ordinal = $2 AND a.state <> 'pending'
ON CONFLICT (session_key, slot) DO UPDATE SET state = 'requested', provider_key = excluded.provider_key,
  agreement_no = excluded.agreement_no, account_no = excluded.account_no, tariff_id = excluded.tariff_id,
  currency = excluded.currency, ordinal = excluded.ordinal, cap_minor = excluded.cap_minor, provider_ref = NULL,
  action = NULL, reason = NULL, requested_at = excluded.requested_at,
  opened_at = NULL, expires_at = NULL, asks = 0, due_at = excluded.due_at, updated_at = excluded.updated_at,
  refusal = NULL, title = excluded.title, subject = excluded.subject, version = hold.version + 1
WHERE hold.state IN ('expired', 'completed', 'released', 'refused') AND hold.ordinal < excluded.ordinal;

-- name: update_debits
-- What the rules decided ($2, the debits as JSON: encoded at once, what is none or nothing left out) with each one's
-- lease ($3); identity, names and the instant of creation never change.
UPDATE debit d SET
  amount_minor = new.amount_minor, paid_minor = coalesce(new.paid_minor, 0),
  refunding_minor = coalesce(new.refunding_minor, 0), refunded_minor = coalesce(new.refunded_minor, 0),
  forgone_minor = coalesce(new.forgone_minor, 0), outside_minor = coalesce(new.outside_minor, 0),
  given_back_minor = coalesce(new.given_back_minor, 0),
  disputed_minor = coalesce(new.disputed_minor, 0),
  lowering_to = new.lowering_to, excess_minor = coalesce(new.excess_minor, 0),
  asked_minor = coalesce(new.asked_minor, 0), receipts = coalesce(new.receipts, '[]'),
  refunds = coalesce(new.refunds, 0), state = coalesce(new.state, 'new'), overdue = coalesce(new.overdue, false),
  suspended = coalesce(new.suspended, false), net_again = coalesce(new.net_again, false),
  capped = coalesce(new.capped, false), dispute = new.dispute, disputes = coalesce(new.disputes, '[]'),
  provider_key = new.provider_key, provider_ref = new.provider_ref, action = new.action, reason = new.reason,
  attempts = coalesce(new.attempts, 0), queries = coalesce(new.queries, 0), begun_at = new.begun_at,
  submitted_at = new.submitted_at, not_found_at = new.not_found_at,
  resent = coalesce(new.resent, 0), unanswered_since = new.unanswered_since, settled_at = new.settled_at, due_at = new.due_at,
  pay_by = new.pay_by, policy_at = new.policy_at, verify = new.verify,
  doubted_minor = new.doubted_minor, given = coalesce(new.given, false), payable_until = new.payable_until,
  dunned = new.dunned, dunned_at = new.dunned_at, reminded = coalesce(new.reminded, 0), nudged_at = new.nudged_at,
  record = new.record, record_at = new.record_at, record_asks = coalesce(new.record_asks, 0),
  record_asked_at = new.record_asked_at,
  lease_until = new.unnest, transitions = coalesce(new.transitions, 0),
  digest = coalesce(new.digest, d.digest), updated_at = $1
FROM ROWS FROM (json_to_recordset($2::json) AS (
  ride_no bigint, ordinal smallint, amount_minor bigint, paid_minor bigint, refunding_minor bigint,
  refunded_minor bigint, forgone_minor bigint, outside_minor bigint, given_back_minor bigint, disputed_minor bigint,
  lowering_to bigint, excess_minor bigint, asked_minor bigint, receipts jsonb, refunds smallint, state text, overdue boolean, suspended boolean,
  net_again boolean, capped boolean, dispute text, disputes jsonb, provider_key text, provider_ref text, action jsonb,
  reason text, attempts integer, queries integer, begun_at timestamptz, submitted_at timestamptz,
  not_found_at timestamptz, resent integer, unanswered_since timestamptz, settled_at timestamptz, due_at timestamptz, pay_by timestamptz,
  policy_at timestamptz, verify text, doubted_minor bigint, given boolean, payable_until timestamptz, dunned text,
  dunned_at timestamptz, reminded integer, nudged_at timestamptz, record text, record_at timestamptz, record_asks integer,
  record_asked_at timestamptz, transitions integer, digest uuid
), unnest($3::timestamptz[])) AS new
WHERE d.ride_no = new.ride_no AND d.ordinal = new.ordinal AND d.ride_no BETWEEN $4 AND $5;

-- name: update_refunds
-- What the rules decided about refunds.
UPDATE refund r SET
  state = new.state, provider_ref = new.provider_ref, code = new.code, attempts = new.attempts, queries = new.queries,
  not_found_at = new.not_found_at, resent = new.resent, due_at = new.due_at, lease_until = new.lease_until,
  updated_at = $1, amount_minor = new.amount_minor, denied = new.denied, unanswered_since = new.unanswered_since,
  digest = new.digest
FROM unnest(
  $2::bigint[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $7::text[], $8::integer[], $9::integer[],
  $10::timestamptz[], $11::integer[], $12::timestamptz[], $13::bigint[], $14::boolean[], $15::timestamptz[], $16::timestamptz[],
  $17::uuid[]
) AS new (
  ride_no, ordinal, refund_ordinal, state, provider_ref, code, attempts, queries, not_found_at, resent, due_at,
  amount_minor, denied, unanswered_since, lease_until, digest
)
WHERE r.ride_no = new.ride_no AND r.ordinal = new.ordinal AND r.refund_ordinal = new.refund_ordinal;

-- name: debits_by_provider_key
-- Which debits a provider's news is about: by their present key unless that is settled, or by one that they had before.
SELECT d.ride_no, d.ordinal, true AS present FROM debit d
WHERE d.provider_key = $1 AND d.account_no = $2 AND d.state NOT IN ('settled', 'waived')
UNION ALL
SELECT n.ride_no, n.ordinal, false FROM debit_number n WHERE n.number = $1 AND n.account_no = $2;

-- name: debits_by_hold
-- The debit that goes through the running hold of account $2 that has our key or the provider's number $1: of a ride's
-- debits the last that was begun, else the last; what was waived before, or waits for the rider, goes through none.
SELECT d.ride_no, d.ordinal, d.provider_key FROM (
  SELECT session_key, slot, agreement_no FROM hold
  WHERE provider_key = $1 AND account_no = $2 AND NOT $3 AND state IN ('requested', 'open', 'completing')
  UNION ALL
  SELECT session_key, slot, agreement_no FROM hold
  WHERE provider_ref = $1 AND account_no = $2 AND $3 AND state IN ('requested', 'open', 'completing')
) h
JOIN session_key k ON k.session_key = h.session_key AND k.slot = h.slot
CROSS JOIN LATERAL (
  SELECT ride_no, ordinal, provider_key FROM debit
  WHERE debit.ride_no = k.ride_no AND debit.slot = h.slot AND debit.agreement_no = h.agreement_no AND (begun_at IS NOT NULL OR state = 'new')
  ORDER BY begun_at IS NOT NULL DESC, ordinal DESC LIMIT 1
) d;

-- name: debits_by_provider_ref
-- The debits of account $2 that the provider calls $1, or has called so before.
SELECT d.ride_no, d.ordinal FROM debit d WHERE d.provider_ref = $1 AND d.account_no = $2
UNION
SELECT n.ride_no, n.ordinal FROM debit_number n WHERE n.number = $1 AND n.account_no = $2;

-- name: keep_numbers
-- What debits of account $2 were called until now.
INSERT INTO debit_number (number, account_no, ride_no, ordinal)
SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::smallint[]) ON CONFLICT DO NOTHING;

-- name: in_life
-- Whether a step of debit ($1, $2) was told in the words $3.
SELECT EXISTS (SELECT FROM debit_transition WHERE ride_no = $1 AND ordinal = $2 AND why = $3) AS told;

-- name: cluster_timeline
-- Which cluster this is, and how often it was promoted or restored; locked, so that one process marks what may be forgotten.
SELECT cluster_timeline AS known,
  (SELECT system_identifier FROM pg_control_system()) || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS found
FROM installation FOR UPDATE;

-- name: keep_cluster_timeline
-- $1 is what it is now; $2 is when it was found to be another one.
UPDATE installation SET cluster_timeline = $1, restored_at = coalesce($2, restored_at);

-- name: verify_debits
-- Every debit of the rides after $3 and up to $4 that could have been submitted in the time that was lost, or paid by its
-- rider, is asked about before more is done: at $1 what waits for him, and what was written off (once where its number was
-- not open: $2 is a last poll).
UPDATE debit SET verify = 'present',
  due_at = CASE WHEN state = 'written_off' OR (state = 'needs_rider' AND NOT suspended) THEN least(due_at, $1)
    ELSE due_at END,
  queries = CASE WHEN state = 'written_off' AND due_at IS NULL THEN $2 ELSE queries END
WHERE ride_no > $3 AND ride_no <= $4
  AND state NOT IN ('settled', 'settled_elsewhere', 'settled_twice', 'waived', 'cancelled');

-- name: verify_refunds
-- The same of refunds: their keys never change, so they are asked about like any of which the outcome is unknown.
UPDATE refund SET state = 'unknown', code = 'asked about after a restore', due_at = $1, queries = 0, not_found_at = NULL
WHERE ride_no > $2 AND ride_no <= $3 AND state IN ('new', 'submitting');

-- name: refunds_by_provider_key
-- Which refunds a provider's news is about, and how they stand.
SELECT r.ride_no, r.ordinal, r.refund_ordinal, r.state FROM refund r
WHERE r.provider_key = $1 AND r.account_no = $2;

-- name: read_debits
-- As lock_debits, without locks: what a refund's call needs to know of its debit.
SELECT {debit_columns}
FROM debit d
{debit_joins}
WHERE d.ride_no = ANY($1::bigint[]) AND d.ride_no BETWEEN $2 AND $3
ORDER BY d.ride_no, d.ordinal;
