-- name: read_through
-- How far each partition's past is known: a ride is lost only when its end can't be unread.
SELECT partition, read_through_at FROM stream_offset WHERE consumer_group = $1 AND topic = $2;

-- name: swept_through
-- The last ride number that was looked at for what is still open.
SELECT through_ride_no FROM sweep WHERE name = $1;

-- name: begin_sweep
-- Nothing was passed over yet.
INSERT INTO sweep (name, through_ride_no) VALUES ($1, 0) ON CONFLICT (name) DO NOTHING;

-- name: move_sweep
-- Compare-and-set: of two that pass over the same rides one is enough.
UPDATE sweep SET through_ride_no = $3 WHERE name = $1 AND through_ride_no = $2;

-- name: sweep_step
-- How far the next $3 revisions after $1 and up to $2 reach; a step is bounded however many rides there are.
SELECT count(*) AS revisions, max(ride_no) AS last_ride_no FROM (
  SELECT ride_no FROM ride_revision WHERE ride_no > $1 AND ride_no <= $2 ORDER BY ride_no LIMIT $3
) step;

-- name: watch_open
-- What of a range is still open gets a row that is due at once; its real deadline is found when it is looked at.
INSERT INTO watch (ride_no, slot, operator_no, kind, due_at, since_at)
SELECT r.ride_no, r.slot, r.operator_no, 'open', $3, r.decided_at FROM ride_revision r
WHERE r.ride_no > $1 AND r.ride_no <= $2 AND r.state = 'open'
  AND NOT EXISTS (SELECT FROM ride_revision n WHERE n.ride_no = r.ride_no AND n.revision = r.revision + 1 AND n.slot = r.slot)
ORDER BY r.ride_no ON CONFLICT (ride_no, slot) DO NOTHING;

-- name: due_rides
-- What must be looked at now, the longest overdue first.
SELECT ride_no, due_at, attempts FROM watch WHERE due_at <= $1 ORDER BY due_at LIMIT $2;

-- name: parked_rides
-- A page of parked rides, whenever they are due.
SELECT ride_no, due_at, attempts FROM watch WHERE kind = 'parked' AND ride_no > $1 ORDER BY ride_no LIMIT $2;

-- name: newest_terms
-- What parked rides wait for; while neither number grows, none of them can be taken up.
SELECT (SELECT coalesce(max(agreement_no), 0) FROM agreement) AS agreement_no,
       (SELECT coalesce(max(change_no), 0) FROM tariff_version) AS change_no;

-- name: look_again
-- Not yet; unless somebody else has said meanwhile when to look.
UPDATE watch w SET due_at = n.due_at, attempts = w.attempts + 1
FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[]) AS n(ride_no, seen_due_at, due_at)
WHERE w.ride_no = n.ride_no AND w.due_at = n.seen_due_at;

-- name: stop_watching
-- Decided; unless somebody else has said meanwhile when to look.
DELETE FROM watch w USING unnest($1::bigint[], $2::timestamptz[]) AS n(ride_no, seen_due_at)
WHERE w.ride_no = n.ride_no AND w.due_at = n.seen_due_at;

-- name: watched
-- How many rides are watched, and since when the oldest, by kind.
SELECT kind, count(*) AS rides, min(since_at) AS oldest_at FROM watch GROUP BY kind;

-- name: make_partitions
-- The months ahead, by the business clock; those that are there cost a look.
SELECT make_ride_partitions($1, $2);

-- name: prune_facts
-- Facts that are on Kafka; the batch itself stays for ever.
DELETE FROM batch_facts WHERE (writer_no, seq) IN (
  SELECT f.writer_no, f.seq FROM batch_reader r
  JOIN batch_facts f ON f.writer_no = r.writer_no AND f.seq <= r.seq
  WHERE r.reader = 'publication' LIMIT $1
);

-- name: prune_idempotency
-- Answers that nobody will ask for again.
DELETE FROM idempotency WHERE (operator_no, route, idempotency_key) IN (
  SELECT operator_no, route, idempotency_key FROM idempotency WHERE machine_at < $1 LIMIT $2
);

-- name: prune_notifications
-- Notifications that no provider sends again.
DELETE FROM notification WHERE (account_no, notification_id) IN (
  SELECT account_no, notification_id FROM notification WHERE machine_at < $1 LIMIT $2
);

-- name: held_for_a_mapped_source
-- Records that waited for their source to be mapped, in the order they were held: up to $2 bytes of them, and one always.
SELECT quarantine_no, record_key, record_headers, record_value FROM quarantine
WHERE state = 'held' AND quarantine_no = ANY(ARRAY(
  SELECT sized.quarantine_no FROM (
    SELECT q.quarantine_no,
           sum(octet_length(q.record_headers) + coalesce(octet_length(q.record_value), 0))
             OVER (ORDER BY q.quarantine_no ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM quarantine q WHERE q.quarantine_no = ANY(ARRAY(
      SELECT w.quarantine_no FROM operator_source s CROSS JOIN LATERAL (
        SELECT h.quarantine_no FROM quarantine h WHERE h.topic = s.topic AND h.source = s.source
          AND h.state = 'held' AND h.fault = 'unmapped_source' ORDER BY h.quarantine_no LIMIT $1
      ) w WHERE NOT s.by_default
      UNION
      (SELECT h.quarantine_no FROM quarantine h
       WHERE (SELECT default_operator_no FROM installation) IS NOT NULL
         AND h.state = 'held' AND h.fault = 'unmapped_source' ORDER BY h.quarantine_no LIMIT $1)
      ORDER BY 1 LIMIT $1
    ))
  ) sized WHERE coalesce(sized.bytes_before, 0) < $2
)) ORDER BY quarantine_no FOR UPDATE;

-- name: release_held
-- They go back to the stream.
UPDATE quarantine SET state = 'replayed', decided_at = $2, decision_reason = $3
WHERE quarantine_no = ANY($1::bigint[]) AND state = 'held';
