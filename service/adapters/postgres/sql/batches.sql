-- name: ensure_writer
-- A writer is made once and kept for ever.
INSERT INTO writer (name) SELECT $1 WHERE NOT EXISTS (SELECT FROM writer WHERE name = $1) ON CONFLICT (name) DO NOTHING;

-- name: take_batch
-- The row lock orders this writer's transactions until they commit; a batch's number is drawn after its inputs were read.
UPDATE writer SET seq = seq + 1 WHERE name = $1
RETURNING writer_no, seq, digest, nextval('batch_numbers') AS number;

-- name: seal_writer
-- The chain goes on from here.
UPDATE writer SET digest = $2 WHERE writer_no = $1;

-- name: append_batch
-- What one transaction wrote, once: count, chained digest, the rides that owe something new.
INSERT INTO batch (writer_no, seq, number, revisions, facts_digest, digest, owing, business_at, machine_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: append_batch_facts
-- The facts of the transaction, encoded once, one row.
INSERT INTO batch_facts (writer_no, seq, facts) VALUES ($1, $2, $3);
