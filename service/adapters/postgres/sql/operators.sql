-- name: add_operator
-- A new operator; nothing where the id is taken.
INSERT INTO operator (operator_id, name, time_zone, currency, contact, ride_hours_max, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (operator_id) DO NOTHING RETURNING operator_no;

-- name: operator_whole
-- Who an operator is, locked until commit, and whether something is priced or signed by his time zone and currency.
SELECT operator_id, name, time_zone, currency, contact, ride_hours_max,
       EXISTS (SELECT FROM tariff t WHERE t.operator_no = o.operator_no)
         OR EXISTS (SELECT FROM agreement a WHERE a.operator_no = o.operator_no) AS in_use
FROM operator o WHERE operator_id = $1 FOR UPDATE;

-- name: change_operator
-- What he is called and whom riders call; the rest while nothing is priced or signed by it.
UPDATE operator SET name = $2, time_zone = $3, currency = $4, contact = $5, ride_hours_max = $6 WHERE operator_id = $1;

-- name: operator_by_id
-- One operator by the id that people use.
SELECT operator_no, operator_id, time_zone, currency FROM operator WHERE operator_id = $1;

-- name: default_operator
-- The operator that takes the events of unmapped sources, if there is one.
SELECT o.operator_no, o.operator_id, o.time_zone, o.currency
FROM installation i JOIN operator o ON o.operator_no = i.default_operator_no;

-- name: set_default_operator
-- Who takes the events of unmapped sources from now on; NULL: nobody, they are held.
UPDATE installation SET default_operator_no = $1;

-- name: map_source
-- The map only grows: a source that has an operator keeps it, whether it was mapped or taken by default.
INSERT INTO operator_source (topic, source, operator_no, created_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (topic, source) DO UPDATE SET by_default = false
WHERE operator_source.by_default AND operator_source.operator_no = excluded.operator_no;

-- name: lock_quarantine
-- Whoever holds a record has committed it before a source is mapped, or sees that it is.
LOCK TABLE quarantine IN SHARE MODE;

-- name: give_quarantined
-- What was held of a source before anything of it was taken.
UPDATE quarantine SET operator_no = $3 WHERE topic = $1 AND source = $2;

-- name: source_owner
-- Whose a source is, and whether nobody had mapped it when its first event came.
SELECT o.operator_id, s.by_default FROM operator_source s JOIN operator o USING (operator_no) WHERE s.topic = $1 AND s.source = $2;

-- name: list_operators
-- Every operator for people, with the sources that were mapped.
SELECT o.operator_id, o.name, o.time_zone, o.currency, o.mode, o.ride_hours_max, o.contact,
       o.operator_no IS NOT DISTINCT FROM i.default_operator_no AS is_default,
       ARRAY(SELECT s.topic || ' ' || s.source FROM operator_source s WHERE s.operator_no = o.operator_no AND NOT s.by_default
             ORDER BY s.topic, s.source) AS sources
FROM operator o LEFT JOIN installation i ON true ORDER BY o.operator_no;

-- name: operator_switches
-- What of an operator can be switched, locked until commit.
SELECT operator_no, operator_id, currency, time_zone, mode, bill_from, exposure_max_minor, calendar::text AS calendar,
       hold_policy::text AS hold_policy
FROM operator WHERE operator_id = $1 FOR UPDATE;

-- name: switch_operator
-- As it was switched; the roles read it again every second.
UPDATE operator SET mode = $2, bill_from = $3, exposure_max_minor = $4, calendar = $5::jsonb, hold_policy = $6::jsonb
WHERE operator_no = $1;
