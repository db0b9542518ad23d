-- name: find_token
-- Whose a token is; the secret itself is never stored, only its SHA-256.
SELECT t.operator_no, o.operator_id, t.scopes, t.rider_ref, t.expires_at
FROM token t JOIN operator o USING (operator_no)
WHERE t.token_hash = $1 AND t.revoked_at IS NULL;

-- name: add_token
-- A new token; nothing where the operator is not there.
INSERT INTO token (token_hash, operator_no, name, scopes, rider_ref, created_at, expires_at)
SELECT $1, operator_no, $3, $4::text[], $5, $6, $7 FROM operator WHERE operator_id = $2
RETURNING operator_no;

-- name: list_tokens
-- Every token of an operator, or of all, without anything one could get in with.
SELECT encode(substring(token_hash FROM 1 FOR 6), 'hex') AS token_id, o.operator_id, t.name, t.scopes, t.rider_ref,
       t.created_at, t.expires_at, t.revoked_at
FROM token t JOIN operator o USING (operator_no)
WHERE $1::text IS NULL OR o.operator_id = $1 ORDER BY o.operator_id, t.created_at, token_id;

-- name: revoke_token
-- By the beginning of the hash that the list shows.
UPDATE token SET revoked_at = $2
WHERE encode(substring(token_hash FROM 1 FOR 6), 'hex') = $1 AND revoked_at IS NULL;
