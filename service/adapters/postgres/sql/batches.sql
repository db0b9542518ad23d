-- name: ensure_writer
-- A writer is made once and kept for ever.
INSERT INTO writer (name) SELECT $1 WHERE NOT EXISTS (SELECT FROM writer WHERE name = $1) ON CONFLICT (name) DO NOTHING;

-- name: take_batch
-- The row lock orders this writer's transactions until they commit; a batch's number is drawn after its inputs were read.
UPDATE writer SET seq = seq + 1 WHERE name = $1
RETURNING writer_no, seq, digest, nextval('batch_numbers') AS number;

-- name: seal_batch
-- What one transaction wrote, once: count, chained digest, the rides that owe something new; its facts, encoded once ($10,
-- NULL: none); and the chain goes on from here. One statement, since people wait for some of these.
WITH sealed AS (
  UPDATE writer SET digest = $6 WHERE writer_no = $1
), told AS (
  INSERT INTO batch_facts (writer_no, seq, facts) SELECT $1, $2, $10::bytea WHERE $10::bytea IS NOT NULL
)
INSERT INTO batch (writer_no, seq, number, revisions, facts_digest, digest, owing, business_at, machine_at)
VALUES ($1::integer, $2::bigint, $3, $4, $5, $6::bytea, $7, $8, $9);
