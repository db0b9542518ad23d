-- name: lock_clock
-- Who sets the clock reads it first, so that two settings follow each other.
SELECT default_operator_no, clock_mode, clock_machine_at, clock_business_at, clock_speed FROM installation FOR UPDATE;

-- name: set_clock
-- From this instant of the machine's on; every role reads it each round.
UPDATE installation SET clock_mode = 'virtual', clock_machine_at = $1, clock_business_at = $2, clock_speed = $3;

-- name: nothing_after
-- A clock may be set back while nothing derives from what it said before.
SELECT NOT EXISTS (SELECT FROM batch WHERE business_at > $1) AND NOT EXISTS (SELECT FROM ride_revision)
  AND NOT EXISTS (SELECT FROM stream_offset WHERE read_through_at > $1);
