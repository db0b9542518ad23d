-- name: unpublished
-- What this reader has not taken yet, oldest number first: in one snapshot, so that whatever a batch rests on is before it.
SELECT writer_no, seq, facts FROM (
  SELECT b.writer_no, b.seq, b.number, f.facts, coalesce(octet_length(f.facts), 0) AS bytes,
         sum(coalesce(octet_length(f.facts), 0)) OVER (ORDER BY b.number) AS bytes_so_far
  FROM (SELECT writer_no FROM stream_offset UNION ALL SELECT writer_no FROM writer) w
  LEFT JOIN batch_reader c ON c.reader = $1 AND c.writer_no = w.writer_no
  CROSS JOIN LATERAL (
    SELECT writer_no, seq, number FROM batch
    WHERE batch.writer_no = w.writer_no AND batch.seq > coalesce(c.seq, 0) ORDER BY seq LIMIT $2
  ) b
  LEFT JOIN batch_facts f ON f.writer_no = b.writer_no AND f.seq = b.seq
) unsent
WHERE bytes_so_far - bytes <= $3
ORDER BY number LIMIT $2;

-- name: begin_reading
-- A reader meets a writer for the first time.
INSERT INTO batch_reader (reader, writer_no, seq)
SELECT $1, writer_no, 0 FROM unnest($2::integer[]) AS writer_no ON CONFLICT DO NOTHING;

-- name: move_reader
-- Compare-and-set: two publishers at once may send a fact twice, but never skip one.
UPDATE batch_reader c SET seq = n.seq
FROM unnest($2::integer[], $3::bigint[], $4::bigint[]) AS n(writer_no, expected, seq)
WHERE c.reader = $1 AND c.writer_no = n.writer_no AND c.seq = n.expected;
