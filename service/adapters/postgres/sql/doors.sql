-- name: claim_answer
-- Somebody works on this write from now on; nothing where the key is known. Its commit waits for no disk: it is lost in a
-- crash only together with the write itself, whose commit comes later and takes everything before it to the disk.
INSERT INTO idempotency (operator_no, route, idempotency_key, request_digest, machine_at)
SELECT $1::integer, $2::text, $3::text, $4::bytea, $5::timestamptz
WHERE set_config('synchronous_commit', 'off', true) = 'off' ON CONFLICT DO NOTHING;

-- name: kept_answer
-- What was answered under the key; status is NULL while it is being worked on.
SELECT request_digest, status, body, machine_at FROM idempotency
WHERE operator_no = $1 AND route = $2 AND idempotency_key = $3;

-- name: take_over_answer
-- Whoever worked on it died: the first to notice goes on.
UPDATE idempotency SET machine_at = $5
WHERE operator_no = $1 AND route = $2 AND idempotency_key = $3 AND status IS NULL AND machine_at = $4;

-- name: keep_answer
-- The answer, for whoever asks again. Its commit waits for no disk: where a crash of the server takes it, the write is
-- there and is done again when it is asked for again, which must be safe in any case.
UPDATE idempotency SET status = $4, body = $5 WHERE operator_no = $1 AND route = $2 AND idempotency_key = $3
  AND set_config('synchronous_commit', 'off', true) = 'off';

-- name: drop_claim
-- Nothing was done: the key may be used again.
DELETE FROM idempotency WHERE operator_no = $1 AND route = $2 AND idempotency_key = $3 AND status IS NULL;

-- name: held_records
-- A page of quarantined records without their bytes, newest first. Records whose operator nobody could tell are the
-- default operator's. Each state's newest are looked up, as in list_agreements; no operator is 0.
SELECT quarantine_no, q.operator_no, topic, partition, record_offset, record_timestamp_ms,
       fault, reason, path, source, state, decision_reason, created_at, decided_at
FROM quarantine q WHERE quarantine_no = ANY(ARRAY(
  SELECT p.quarantine_no FROM unnest(CASE WHEN $2 THEN ARRAY[$1, 0] ELSE ARRAY[$1] END::integer[]) o
  CROSS JOIN unnest(CASE WHEN $4::text IS NULL THEN ARRAY['held', 'replayed', 'discarded'] ELSE ARRAY[$4] END) s
  CROSS JOIN LATERAL (
    SELECT h.quarantine_no FROM quarantine h
    WHERE (coalesce(h.operator_no, 0), h.state, h.quarantine_no) < (o, s, $3)
      AND (coalesce(h.operator_no, 0), h.state) >= (o, s)
    ORDER BY coalesce(h.operator_no, 0) DESC, h.state DESC, h.quarantine_no DESC LIMIT $5
  ) p ORDER BY p.quarantine_no DESC LIMIT $5
)) ORDER BY quarantine_no DESC;

-- name: held_record
-- One of them.
SELECT quarantine_no, q.operator_no, topic, partition, record_offset, record_timestamp_ms, record_key, record_headers,
       record_value, fault, reason, path, source, state, decision_reason, created_at, decided_at
FROM quarantine q
WHERE quarantine_no = $3 AND (q.operator_no = $1 OR (q.operator_no IS NULL AND $2));

-- name: decide_held_record
-- Compare-and-set: a record is replayed or discarded once.
UPDATE quarantine SET state = $2, decision_reason = $3, decided_at = $4 WHERE quarantine_no = $1 AND state = 'held';

-- name: record_notification
-- Which notification came, and how often; what it said is with what it is about.
INSERT INTO notification (account_no, notification_id, about, named_by, provider_key, known, first_machine_at, machine_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
ON CONFLICT (account_no, notification_id) DO UPDATE SET
  known = notification.known OR excluded.known, times = notification.times + 1, machine_at = excluded.machine_at;
