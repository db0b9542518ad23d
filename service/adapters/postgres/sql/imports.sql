-- name: agreements_known
-- Agreements that have one of these ids ($2), or one of these numbers at the provider of account $3 ($4 ours, $5 his own).
-- Nobody else looks for his own number, so it has no index: an import reads the agreements once for each of its chunks.
SELECT a.*, r.rider_ref, o.operator_id, m.account_id, m.provider, m.base_url, m.settings
FROM agreement a
JOIN rider r ON r.rider_no = a.rider_no
JOIN operator o ON o.operator_no = a.operator_no
JOIN merchant_account m ON m.account_no = a.account_no
WHERE (a.operator_no = $1 AND a.agreement_id = ANY($2::text[]))
   OR (a.account_no = $3 AND (a.provider_key = ANY($4::text[]) OR a.provider_ref = ANY($5::text[])))
ORDER BY a.agreement_no;

-- name: debtors
-- Who debts on these agreements ($2) are owed by, and in what.
SELECT a.agreement_id, a.agreement_no, a.rider_no, a.currency, a.state, r.rider_ref
FROM agreement a JOIN rider r USING (rider_no)
WHERE a.operator_no = $1 AND a.agreement_id = ANY($2::text[]);
