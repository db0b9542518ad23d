-- name: read_offsets
-- How far each partition was read. Locked, so that a transaction of ours that may still be under way has ended.
SELECT partition, writer_no, next_offset, seq, digest, cluster_id, record_digest
FROM stream_offset WHERE consumer_group = $1 AND topic = $2 AND partition = ANY($3::integer[])
ORDER BY partition FOR UPDATE;

-- name: begin_stream
-- The explicit first start of a partition.
INSERT INTO stream_offset (consumer_group, topic, partition, next_offset, cluster_id, read_through_at)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING;

-- name: move_offsets
-- The fence: compare-and-set, last in the transaction; fewer rows than partitions means that somebody else owns one.
UPDATE stream_offset s
SET next_offset = n.next_offset, seq = n.seq, digest = n.digest, record_digest = n.record_digest,
    read_through_at = greatest(s.read_through_at, n.read_through_at)
FROM unnest($3::integer[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[], $8::bytea[], $9::timestamptz[])
     AS n(partition, expected_offset, next_offset, seq, digest, record_digest, read_through_at)
WHERE s.consumer_group = $1 AND s.topic = $2 AND s.partition = n.partition AND s.next_offset = n.expected_offset;

-- name: mark_caught_up
-- A quiet partition was read to its end as of this instant.
UPDATE stream_offset s SET read_through_at = greatest(s.read_through_at, $5)
FROM unnest($3::integer[], $4::bigint[]) AS n(partition, expected_offset)
WHERE s.consumer_group = $1 AND s.topic = $2 AND s.partition = n.partition AND s.next_offset = n.expected_offset;

-- name: append_stream_batches
-- One batch per partition and transaction; numbers are drawn here, after everything was read.
INSERT INTO batch (writer_no, seq, number, revisions, facts_digest, digest, owing, business_at, machine_at)
SELECT n.writer_no, n.seq, nextval('batch_numbers'), n.revisions, n.facts_digest, n.digest, n.owing::bigint[], $7, $8
FROM unnest($1::integer[], $2::bigint[], $3::integer[], $4::bytea[], $5::bytea[], $6::text[])
     AS n(writer_no, seq, revisions, facts_digest, digest, owing);

-- name: append_stream_facts
-- The facts of those batches.
INSERT INTO batch_facts (writer_no, seq, facts)
SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bytea[]);

-- name: hold_in_quarantine
-- Records that could not be taken, raw. The same record again (after a restore) changes nothing. Its source may have been
-- mapped since the record was read.
INSERT INTO quarantine (operator_no, topic, partition, record_offset, record_timestamp_ms, record_key, record_headers,
                        record_value, fault, reason, path, source, created_at)
SELECT coalesce((SELECT s.operator_no FROM operator_source s WHERE s.topic = n.topic AND s.source = n.source), n.operator_no),
       n.topic, n.partition, n.record_offset, n.record_timestamp_ms, n.record_key, n.record_headers,
       n.record_value, n.fault, n.reason, n.path, n.source, $13::timestamptz
FROM unnest($1::integer[], $2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[],
            $9::text[], $10::text[], $11::text[], $12::text[])
  AS n (operator_no, topic, partition, record_offset, record_timestamp_ms, record_key, record_headers,
        record_value, fault, reason, path, source)
ON CONFLICT (topic, partition, record_offset, record_timestamp_ms) DO NOTHING;

-- name: take_sources
-- Sources $2 of topic $1 that nobody has mapped are operator $3's from now on.
INSERT INTO operator_source (topic, source, operator_no, created_at, by_default)
SELECT $1, source, $3, $4, true FROM unnest($2::text[]) AS source ON CONFLICT DO NOTHING;

-- name: source_owners
-- Whose sources $2 of topic $1 are, as far as they are anybody's.
SELECT source, operator_no FROM operator_source WHERE topic = $1 AND source = ANY($2::text[]);
