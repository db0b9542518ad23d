-- name: order_tariff_changes
-- One publication at a time, so that change numbers are committed in their order and no process skips one; readers go on.
LOCK TABLE tariff_version IN SHARE ROW EXCLUSIVE MODE;

-- name: ensure_tariff
-- The tariff of an id, made when it is first named.
INSERT INTO tariff (operator_no, tariff_id) SELECT $1, $2
WHERE NOT EXISTS (SELECT FROM tariff WHERE operator_no = $1 AND tariff_id = $2) ON CONFLICT DO NOTHING;

-- name: newest_tariff_version
-- The tariff's last version; the version's columns are NULL where it has none.
SELECT t.tariff_no, v.version, v.valid_from, v.document, v.digest
FROM tariff t LEFT JOIN tariff_version v USING (tariff_no)
WHERE t.operator_no = $1 AND t.tariff_id = $2 ORDER BY v.version DESC NULLS LAST LIMIT 1;

-- name: tariff_version_from
-- The last of the tariff's versions that begin at an instant.
SELECT version, valid_from, document, digest FROM tariff_version
WHERE tariff_no = $1 AND valid_from = $2 ORDER BY version DESC LIMIT 1;

-- name: append_tariff_version
-- A version is never changed afterwards; its tariff counts it, so that one that is taken away is missed.
WITH counted AS (UPDATE tariff SET versions = $2 WHERE tariff_no = $1)
INSERT INTO tariff_version (tariff_no, version, valid_from, document, digest, created_at)
VALUES ($1::integer, $2::integer, $3, $4, $5, $6);
