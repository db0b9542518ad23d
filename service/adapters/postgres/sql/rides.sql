-- name: find_session_keys
-- Which of these rides exist. Most keys of new rides find nothing.
SELECT session_key, ride_no FROM session_key WHERE session_key = ANY($1::uuid[]);

-- name: find_revisions
-- Every revision of these rides, in order.
SELECT ride_no, revision, slot, operator_no, state::text AS state, agreement_no, tariff_no, tariff_version, reason, events,
       charge, amount_minor, currency, decided_at, batch_no, digest
FROM ride_revision WHERE ride_no = ANY($1::bigint[]) ORDER BY ride_no, revision;

-- name: agreements_by_number
-- What of an agreement never changes, for rides that were read back.
SELECT agreement_no, rider_no, currency FROM agreement WHERE agreement_no = ANY($1::bigint[]);

-- name: agreements_by_id
-- What of an agreement never changes, for events that name it.
SELECT a.operator_no, a.agreement_id, a.agreement_no, a.rider_no, a.currency
FROM unnest($1::integer[], $2::text[]) AS asked(operator_no, agreement_id)
JOIN agreement a USING (operator_no, agreement_id);

-- name: operators
-- Every operator, as the rules see it; there are few.
SELECT operator_no, operator_id, name, time_zone, currency, contact, mode, bill_from, ride_hours_max FROM operator;

-- name: operator_sources
-- (topic, source) -> operator, as it was mapped.
SELECT topic, source, operator_no FROM operator_source WHERE NOT by_default;

-- name: installation
-- The one row: default operator and business clock.
SELECT default_operator_no, clock_mode, clock_machine_at, clock_business_at, clock_speed FROM installation;

-- name: tariffs_since
-- The next tariff versions that this process has not read yet.
SELECT t.operator_no, t.tariff_id, v.tariff_no, v.version, v.change_no, v.valid_from, v.document
FROM tariff_version v JOIN tariff t USING (tariff_no)
WHERE v.change_no > $1 ORDER BY v.change_no LIMIT $2;

-- name: make_balances
-- The rows that are about to be locked exist.
INSERT INTO balance (operator_no, rider_no, balance_window, used)
SELECT operator_no, rider_no, balance_window, 0
FROM unnest($1::integer[], $2::bigint[], $3::text[]) AS asked(operator_no, rider_no, balance_window)
ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING;

-- name: lock_balances
-- In the order of their keys, so that two writers can't wait for each other.
SELECT operator_no, rider_no, balance_window, used FROM balance
WHERE (operator_no, rider_no, balance_window) IN (SELECT * FROM unnest($1::integer[], $2::bigint[], $3::text[]))
ORDER BY 1, 2, 3 FOR UPDATE;

-- name: set_balances
-- What is used of each window after this transaction's rides.
UPDATE balance b SET used = n.used
FROM unnest($1::integer[], $2::bigint[], $3::text[], $4::numeric[]) AS n(operator_no, rider_no, balance_window, used)
WHERE b.operator_no = n.operator_no AND b.rider_no = n.rider_no AND b.balance_window = n.balance_window;

-- name: watch_rides
-- These must be looked at again by themselves.
INSERT INTO watch (ride_no, slot, operator_no, kind, due_at, since_at)
SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::integer[], $4::text[], $5::timestamptz[], $6::timestamptz[])
ON CONFLICT (ride_no, slot) DO UPDATE SET kind = excluded.kind, due_at = excluded.due_at;

-- name: wake_holds
-- Rides that are over and owe nothing more: their holds ($1, with slots $2) are looked at now. Collection sees only what owes.
UPDATE hold h SET due_at = h.requested_at, version = version + 1
FROM unnest($1::uuid[], $2::smallint[]) AS over (session_key, slot)
WHERE h.session_key = over.session_key AND h.slot = over.slot AND h.state = 'open';

-- name: take_ride_block
-- A block of 4,096 counters for ride numbers.
SELECT nextval('ride_blocks')::integer;
