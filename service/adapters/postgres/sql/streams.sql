-- name: list_streams
-- How far every partition was read, by every group.
SELECT consumer_group, topic, partition, next_offset, seq, cluster_id, read_through_at FROM stream_offset
ORDER BY consumer_group, topic, partition;

-- name: find_stream
-- One partition, as a restart finds it.
SELECT consumer_group, topic, partition, next_offset, seq, cluster_id, read_through_at FROM stream_offset
WHERE consumer_group = $1 AND topic = $2 AND partition = $3;

-- name: restart_stream
-- Compare-and-set: an intake that moved it meanwhile wins. What was read before says nothing about what comes now.
UPDATE stream_offset
SET next_offset = $6, cluster_id = $7, record_digest = NULL, read_through_at = $8
WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND next_offset = $4 AND seq = $5;

-- name: append_stream_restart
-- Who said when and why that records are read again, or skipped.
INSERT INTO stream_restart (consumer_group, topic, partition, old_offset, new_offset, old_cluster_id, new_cluster_id,
                            reason, restarted_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);
