-- name: audit_operator
-- Whose rides are read; no row: there is no such operator.
SELECT operator_no FROM operator WHERE operator_id = $1;

-- name: audit_size
-- How much there will be to read, for the progress bar.
SELECT count(*) FROM ride_revision WHERE revision = 1 AND ($1::integer IS NULL OR operator_no = $1);

-- name: audit_step
-- The ride number that the next $2 revisions after $1 reach; NULL: there are no more.
SELECT CASE WHEN count(*) = $2 THEN max(ride_no) END AS last_ride_no FROM (
  SELECT ride_no FROM ride_revision WHERE ride_no > $1 ORDER BY ride_no LIMIT $2
) step;

-- name: audit_revisions
-- Every decision about the rides of a range, in order.
SELECT ride_no, revision, slot, operator_no, state::text AS state, agreement_no, tariff_no, tariff_version, reason, events,
       charge, amount_minor, currency, decided_at, batch_no, digest
FROM ride_revision
WHERE ride_no > $1 AND ride_no <= $2 AND ($3::integer IS NULL OR operator_no = $3) ORDER BY ride_no, revision;

-- name: audit_obligations
-- What the rides of a range are said to owe.
SELECT ride_no, revision, slot, operator_no, agreement_no, kind, amount_minor, currency, occurred_at FROM obligation
WHERE ride_no > $1 AND ride_no <= $2 AND ($3::integer IS NULL OR operator_no = $3) ORDER BY ride_no, revision;

-- name: audit_transfers
-- The ledger of the rides of a range.
SELECT ride_no, fact, ordinal, line, slot, operator_no, debit_account, credit_account, amount_minor, currency, posted_at
FROM transfer
WHERE ride_no > $1 AND ride_no <= $2 AND ($3::integer IS NULL OR operator_no = $3) ORDER BY ride_no, fact, ordinal, line;

-- name: audit_cap_uses
-- How the rides of a range moved their riders' balances.
SELECT ride_no, revision, balance_window, slot, operator_no, rider_no, before, after FROM cap_use
WHERE ride_no > $1 AND ride_no <= $2 AND ($3::integer IS NULL OR operator_no = $3) ORDER BY ride_no, revision;

-- name: audit_debits
-- The debits of the rides of a range.
SELECT * FROM debit
WHERE ride_no > $1 AND ride_no <= $2 AND ($3::integer IS NULL OR operator_no = $3) ORDER BY ride_no, ordinal;

-- name: audit_transitions
-- The lives of those debits.
SELECT t.ride_no, t.ordinal, t.transition, t.slot, t.from_state, t.to_state, t.why, t.amount_minor, t.provider_key,
       t.provider_ref, t.business_at, t.machine_at, t.told, t.digest
FROM debit_transition t
WHERE t.ride_no > $1 AND t.ride_no <= $2 AND ($3::integer IS NULL OR EXISTS (
  SELECT FROM debit d WHERE d.ride_no = t.ride_no AND d.ordinal = t.ordinal AND d.operator_no = $3
)) ORDER BY t.ride_no, t.ordinal, t.transition;

-- name: audit_refunds
-- What was given back, or is being.
SELECT * FROM refund
WHERE ride_no > $1 AND ride_no <= $2 AND ($3::integer IS NULL OR operator_no = $3)
ORDER BY ride_no, ordinal, refund_ordinal;

-- name: audit_holds
-- The caps under which debits were begun, by ride.
SELECT d.ride_no, h.cap_minor, h.opened_at
FROM debit d JOIN hold h ON h.session_key = d.session_key AND h.slot = d.slot AND h.agreement_no = d.agreement_no
WHERE d.ride_no > $1 AND d.ride_no <= $2 AND d.ordinal = 1 AND ($3::integer IS NULL OR d.operator_no = $3)
  AND h.opened_at IS NOT NULL AND h.state IN ('open', 'completing', 'completed')
ORDER BY d.ride_no;

-- name: audit_shared_payments
-- A payment that a provider took once and that stands in two receipts is two settlements in the ledger.
SELECT d.operator_no, d.account_no, r.value ->> 'provider_ref' AS provider_ref,
  string_agg(d.ride_no || '-' || d.ordinal, ', ' ORDER BY d.ride_no, d.ordinal) AS debits
FROM debit d
CROSS JOIN LATERAL jsonb_array_elements(
  CASE jsonb_typeof(d.receipts) WHEN 'array' THEN d.receipts ELSE '[]' END) r
WHERE r.value ->> 'provider_ref' IS NOT NULL AND ($1::integer IS NULL OR d.operator_no = $1)
GROUP BY 1, 2, 3 HAVING count(*) > 1 ORDER BY 1, 2, 3;

-- name: audit_tariffs
-- Every version of every tariff; a tariff without one has none of the columns.
SELECT t.tariff_no, t.operator_no, t.tariff_id, t.versions, v.version, v.valid_from, v.document, v.digest
FROM tariff t LEFT JOIN tariff_version v USING (tariff_no) ORDER BY t.tariff_no, v.version;

-- name: audit_stray_versions
-- Versions without their tariff.
SELECT v.tariff_no, v.version FROM tariff_version v
WHERE NOT EXISTS (SELECT FROM tariff t WHERE t.tariff_no = v.tariff_no);

-- name: audit_keys
-- Which ride each of these session keys names.
SELECT session_key, ride_no, slot FROM session_key WHERE session_key = ANY($1::uuid[]);

-- name: audit_owing
-- Which rides these batches say owe something new.
SELECT b.writer_no, b.seq, b.owing
FROM unnest($1::integer[], $2::bigint[]) AS asked(writer_no, seq) JOIN batch b USING (writer_no, seq);

-- name: audit_cursors
-- How far each reader of the batches has come.
SELECT reader, writer_no, seq FROM batch_reader;

-- name: audit_writers
-- Everybody who writes batches, with the end of his chain.
SELECT writer_no, name, seq, digest FROM writer
UNION ALL
SELECT writer_no, 'intake ' || consumer_group || ' ' || topic || '/' || partition, seq, digest FROM stream_offset;

-- name: audit_batches
-- Every batch in the order of its chain, with the digest of its facts while they are there.
SELECT b.writer_no, b.seq, b.number, b.revisions, b.facts_digest, b.digest, b.owing, b.business_at, b.machine_at, f.facts
FROM batch b LEFT JOIN batch_facts f USING (writer_no, seq) ORDER BY b.writer_no, b.seq;

-- name: audit_written
-- Every revision's digest, in the order in which the batches' digests are over them.
SELECT batch_no, digest FROM ride_revision ORDER BY batch_no, ride_no, revision;

-- name: audit_numbers
-- Batch numbers that were given twice, or never drawn.
SELECT number, count(*) AS batches FROM batch GROUP BY number
HAVING count(*) > 1 OR number > (SELECT last_value FROM batch_numbers);

-- name: audit_lost_facts
-- Facts without their batch.
SELECT f.writer_no, f.seq FROM batch_facts f
WHERE NOT EXISTS (SELECT FROM batch b WHERE b.writer_no = f.writer_no AND b.seq = f.seq);

-- name: audit_stray_keys
-- Session keys of rides that are not there, or of which there are two.
SELECT k.session_key, k.ride_no, k.slot FROM session_key k
WHERE NOT EXISTS (SELECT FROM ride_revision r WHERE r.ride_no = k.ride_no AND r.revision = 1)
UNION ALL
SELECT max(session_key::text)::uuid, ride_no, max(slot) FROM session_key GROUP BY ride_no HAVING count(*) > 1;

-- name: audit_balances
-- Every balance is left as often as it is taken up again: from nothing, movement by movement, to what is used now.
SELECT operator_no, rider_no, balance_window, value, sum(weight)::bigint AS missing FROM (
  SELECT operator_no, rider_no, balance_window, before AS value, 1 AS weight FROM cap_use
  UNION ALL
  SELECT operator_no, rider_no, balance_window, after, -1 FROM cap_use
  UNION ALL
  SELECT operator_no, rider_no, balance_window, used, 1 FROM balance
  UNION ALL
  SELECT operator_no, rider_no, balance_window, 0, -1 FROM (
    SELECT operator_no, rider_no, balance_window FROM cap_use
    UNION
    SELECT operator_no, rider_no, balance_window FROM balance
  ) windows
) movements
WHERE $1::integer IS NULL OR operator_no = $1
GROUP BY operator_no, rider_no, balance_window, value HAVING sum(weight) <> 0
ORDER BY operator_no, rider_no, balance_window, value;

-- name: audit_accounts
-- Every account of the ledger, added up anew.
SELECT operator_no, currency, account, sum(debit_minor)::text AS debit_minor, sum(credit_minor)::text AS credit_minor FROM (
  SELECT operator_no, currency, debit_account AS account, amount_minor AS debit_minor, 0 AS credit_minor FROM transfer
  UNION ALL
  SELECT operator_no, currency, credit_account, 0, amount_minor FROM transfer
) entries
WHERE $1::integer IS NULL OR operator_no = $1
GROUP BY operator_no, currency, account ORDER BY operator_no, currency, account;

-- name: audit_receivables
-- What riders owe by their obligations, and what came of it by their debits: the receivables must say the same.
SELECT operator_no, currency, account, sum(amount_minor)::text AS amount_minor FROM (
  SELECT operator_no, currency, 1000000000000000 + agreement_no AS account, amount_minor FROM obligation
  UNION ALL
  SELECT operator_no, currency, 1000000000000000 + agreement_no, refunded_minor + given_back_minor - paid_minor - forgone_minor FROM debit
) told
WHERE $1::integer IS NULL OR operator_no = $1
GROUP BY operator_no, currency, account;
