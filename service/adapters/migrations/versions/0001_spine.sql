-- The spine: operators, agreements, tariffs, rides, what they owe, debits, the ledger, numbered batches.
-- Instants are business time unless a column says machine. Money is whole minor units of the row's currency.

CREATE SEQUENCE writer_numbers AS integer;
CREATE SEQUENCE batch_numbers;
-- 22 bits of a ride number are a counter; a process takes blocks of 4,096 of it.
CREATE SEQUENCE ride_blocks AS integer MINVALUE 0 MAXVALUE 1023 START 0 CYCLE;

CREATE TYPE session_state AS ENUM
  ('reserved', 'open', 'incomplete', 'parked', 'review', 'closed', 'cancelled', 'voided', 'not_billable');

------------------------------------------------------------------------------ who

CREATE TABLE operator (
  operator_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operator_id text NOT NULL UNIQUE CHECK (operator_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  name text NOT NULL,
  time_zone text NOT NULL,
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  contact text NOT NULL DEFAULT '',
  mode text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'shadow', 'paused')),
  bill_from timestamptz,
  ride_hours_max integer NOT NULL DEFAULT 720 CHECK (ride_hours_max > 0),
  exposure_max_minor bigint CHECK (exposure_max_minor >= 0),
  calendar jsonb NOT NULL DEFAULT '{}',
  hold_policy jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL
);

-- (topic, source) -> operator only ever grows: a source never changes hands. `by_default`: nobody mapped it when its first
-- event came, so that it is the operator's who took such events then.
CREATE TABLE operator_source (
  topic text NOT NULL,
  source text NOT NULL,
  operator_no integer NOT NULL REFERENCES operator,
  created_at timestamptz NOT NULL,
  by_default boolean NOT NULL DEFAULT false,
  PRIMARY KEY (topic, source)
);

-- One row: the default operator, the business clock that every role reads, and which database this is: another cluster or
-- timeline than before means that it was restored (restored_at, business time) and may have forgotten what it sent.
CREATE TABLE installation (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  default_operator_no integer REFERENCES operator,
  clock_mode text NOT NULL DEFAULT 'real' CHECK (clock_mode IN ('real', 'virtual')),
  clock_machine_at timestamptz,
  clock_business_at timestamptz,
  clock_speed double precision NOT NULL DEFAULT 1 CHECK (clock_speed BETWEEN 0 AND 1000000),
  cluster_timeline text,
  restored_at timestamptz,
  created_at timestamptz NOT NULL
);

-- Bearer tokens, by the SHA-256 of their secret; rider_ref narrows one to a rider.
CREATE TABLE token (
  token_hash bytea PRIMARY KEY,
  operator_no integer NOT NULL REFERENCES operator,
  name text NOT NULL,
  scopes text[] NOT NULL,
  rider_ref text,
  created_at timestamptz NOT NULL,
  expires_at timestamptz,
  revoked_at timestamptz
);

-- The only place a rider's reference stands: erasing a person deletes this mapping, not the books.
CREATE TABLE rider (
  rider_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operator_no integer NOT NULL REFERENCES operator,
  rider_ref text NOT NULL,
  UNIQUE (operator_no, rider_ref)
);

CREATE TABLE merchant_account (
  account_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operator_no integer NOT NULL REFERENCES operator,
  account_id text NOT NULL,
  provider text NOT NULL,
  base_url text NOT NULL,
  settings jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL,
  UNIQUE (operator_no, account_id)
);

CREATE TABLE agreement (
  agreement_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operator_no integer NOT NULL REFERENCES operator,
  agreement_id text NOT NULL,
  rider_no bigint NOT NULL,
  account_no integer NOT NULL REFERENCES merchant_account,
  state text NOT NULL CHECK (state IN ('pending', 'active', 'suspended', 'refused', 'revoked', 'expired')),
  currency text NOT NULL,
  cap_asked_minor bigint CHECK (cap_asked_minor >= 0),
  cap_minor bigint CHECK (cap_minor >= 0),
  time_zone text NOT NULL,
  language text NOT NULL,
  provider_key text NOT NULL,
  provider_ref text,
  action jsonb,
  reason text,
  valid_until timestamptz,
  asks integer NOT NULL DEFAULT 0,
  due_at timestamptz,
  ending_at timestamptz,
  lease_until timestamptz,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  UNIQUE (operator_no, agreement_id)
);
CREATE INDEX agreement_by_rider ON agreement (rider_no, agreement_no);
CREATE INDEX agreement_of_operator ON agreement (operator_no, state, agreement_no);
CREATE INDEX agreement_by_provider_key ON agreement (provider_key);
CREATE INDEX agreement_by_provider_parts ON agreement USING gin (string_to_array(provider_ref, ':'))
  WHERE provider_ref LIKE '%:%';
CREATE INDEX agreement_due ON agreement (account_no, due_at) WHERE due_at IS NOT NULL;

-- What a provider told by itself, without what it said: whether notifications come, and what they were about.
CREATE TABLE notification (
  account_no integer NOT NULL REFERENCES merchant_account,
  notification_id text NOT NULL,
  about text NOT NULL CHECK (about IN ('agreement', 'hold', 'debit', 'refund', 'dispute')),
  named_by text NOT NULL,
  provider_key text NOT NULL,
  known boolean NOT NULL,
  times integer NOT NULL DEFAULT 1,
  first_machine_at timestamptz NOT NULL,
  machine_at timestamptz NOT NULL,
  PRIMARY KEY (account_no, notification_id)
);
CREATE INDEX notification_by_age ON notification (machine_at);

-- Disputes of which the provider told only the number: asked about until they are over, then the row goes.
CREATE TABLE dispute_question (
  account_no integer NOT NULL REFERENCES merchant_account,
  dispute_ref text NOT NULL,
  asks integer NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL,
  lease_until timestamptz,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (account_no, dispute_ref)
);
CREATE INDEX dispute_question_due ON dispute_question (account_no, due_at);

-- What was told of disputes about debits whose number at the provider is not known yet: looked for until it is.
CREATE TABLE dispute_unheard (
  account_no integer NOT NULL REFERENCES merchant_account,
  debit_ref text NOT NULL,
  kind text NOT NULL,
  dispute_ref text NOT NULL,
  state text NOT NULL,
  status text NOT NULL,
  told_at timestamptz NOT NULL,
  asks integer NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (account_no, debit_ref, kind, dispute_ref)
);
CREATE INDEX dispute_unheard_due ON dispute_unheard (account_no, due_at);

CREATE TABLE tariff (
  tariff_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operator_no integer NOT NULL REFERENCES operator,
  tariff_id text NOT NULL,
  versions integer NOT NULL DEFAULT 0,
  UNIQUE (operator_no, tariff_id)
);

-- The document is kept byte for byte; change_no tells a process that it has not read the newest yet.
CREATE TABLE tariff_version (
  tariff_no integer NOT NULL REFERENCES tariff,
  version integer NOT NULL CHECK (version > 0),
  change_no bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  valid_from timestamptz NOT NULL,
  document text NOT NULL,
  digest bytea NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tariff_no, version)
);

------------------------------------------------------------------------------ who writes, how far

-- The truth about what of a topic was read. Moved by compare-and-set, last in the transaction.
CREATE TABLE stream_offset (
  consumer_group text NOT NULL,
  topic text NOT NULL,
  partition integer NOT NULL,
  writer_no integer NOT NULL UNIQUE DEFAULT nextval('writer_numbers'),
  next_offset bigint NOT NULL CHECK (next_offset >= 0),
  seq bigint NOT NULL DEFAULT 0,
  digest bytea NOT NULL DEFAULT '',
  cluster_id text NOT NULL,
  record_digest bytea,
  read_through_at timestamptz NOT NULL,
  PRIMARY KEY (consumer_group, topic, partition)
);

-- Who let a partition be read from another place, and why.
CREATE TABLE stream_restart (
  restart_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  consumer_group text NOT NULL,
  topic text NOT NULL,
  partition integer NOT NULL,
  old_offset bigint NOT NULL,
  new_offset bigint NOT NULL,
  old_cluster_id text NOT NULL,
  new_cluster_id text NOT NULL,
  reason text NOT NULL,
  restarted_at timestamptz NOT NULL
);

-- Everyone else who writes about rides, one row per writer and slot group.
CREATE TABLE writer (
  writer_no integer PRIMARY KEY DEFAULT nextval('writer_numbers'),
  name text NOT NULL UNIQUE,
  seq bigint NOT NULL DEFAULT 0,
  digest bytea NOT NULL DEFAULT ''
);

-- One row per transaction and writer. `number` is drawn inside the transaction after its inputs were read, so
-- that of two batches one of which knew the other, the later has the larger number.
CREATE TABLE batch (
  writer_no integer NOT NULL,
  seq bigint NOT NULL,
  number bigint NOT NULL,
  revisions integer NOT NULL,
  facts_digest bytea NOT NULL,
  digest bytea NOT NULL,
  owing bigint[] NOT NULL DEFAULT '{}',
  business_at timestamptz NOT NULL,
  machine_at timestamptz NOT NULL,
  PRIMARY KEY (writer_no, seq)
);

-- The facts of a batch, encoded once; dropped when every reader is past them.
CREATE TABLE batch_facts (
  writer_no integer NOT NULL,
  seq bigint NOT NULL,
  facts bytea NOT NULL,
  PRIMARY KEY (writer_no, seq)
);
ALTER TABLE batch_facts ALTER COLUMN facts SET STORAGE EXTERNAL;

-- How far each reader of the batches (publication, collection) has come with each writer.
CREATE TABLE batch_reader (
  reader text NOT NULL,
  writer_no integer NOT NULL,
  seq bigint NOT NULL,
  PRIMARY KEY (reader, writer_no)
);

------------------------------------------------------------------------------ rides

-- The one global guard against a second ride under the same id.
CREATE TABLE session_key (
  session_key uuid NOT NULL,
  ride_no bigint NOT NULL,
  slot smallint NOT NULL,
  PRIMARY KEY (session_key, slot)
);

-- Each decision about a ride, with the state after it and the events it took in. Append-only.
-- agreement_no, tariff_no and tariff_version stand in the revision that settled them, and are NULL after.
CREATE TABLE ride_revision (
  ride_no bigint NOT NULL,
  revision integer NOT NULL,
  slot smallint NOT NULL,
  operator_no integer NOT NULL,
  state session_state NOT NULL,
  agreement_no bigint,
  tariff_no integer,
  tariff_version integer,
  reason text,
  events text NOT NULL,
  charge text,
  amount_minor bigint,
  currency text,
  decided_at timestamptz NOT NULL,
  batch_no bigint NOT NULL,
  digest bytea NOT NULL,
  PRIMARY KEY (ride_no, revision, slot)
) PARTITION BY RANGE (ride_no);
CREATE INDEX ride_revision_by_agreement ON ride_revision (agreement_no, ride_no) WHERE agreement_no IS NOT NULL;
-- The few rides that somebody must look at, found among millions.
CREATE INDEX ride_revision_to_attend ON ride_revision (operator_no, state, ride_no) WHERE state IN ('parked', 'review');

-- What a ride owes, signed; one row for each revision that changed it.
CREATE TABLE obligation (
  ride_no bigint NOT NULL,
  revision integer NOT NULL,
  slot smallint NOT NULL,
  operator_no integer NOT NULL,
  agreement_no bigint NOT NULL,
  kind text NOT NULL,
  amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
  currency text NOT NULL,
  occurred_at timestamptz NOT NULL,
  PRIMARY KEY (ride_no, revision, slot)
) PARTITION BY RANGE (ride_no);

-- A rider's use of caps and passes in one civil window; locked before a ride with such a tariff is decided.
CREATE TABLE balance (
  operator_no integer NOT NULL,
  rider_no bigint NOT NULL,
  balance_window text NOT NULL,
  used numeric NOT NULL,
  PRIMARY KEY (operator_no, rider_no, balance_window)
);

-- The proof of each movement of a balance.
CREATE TABLE cap_use (
  ride_no bigint NOT NULL,
  revision integer NOT NULL,
  balance_window text NOT NULL,
  slot smallint NOT NULL,
  operator_no integer NOT NULL,
  rider_no bigint NOT NULL,
  before numeric NOT NULL,
  after numeric NOT NULL,
  PRIMARY KEY (ride_no, revision, balance_window, slot)
) PARTITION BY RANGE (ride_no);

-- What must be looked at again by itself: still open past its deadline, parked, incomplete, reserved.
CREATE TABLE watch (
  ride_no bigint NOT NULL,
  slot smallint NOT NULL,
  operator_no integer NOT NULL,
  kind text NOT NULL CHECK (kind IN ('open', 'parked', 'incomplete', 'reserved')),
  due_at timestamptz NOT NULL,
  since_at timestamptz NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  PRIMARY KEY (ride_no, slot)
);
CREATE INDEX watch_due ON watch (due_at);
CREATE INDEX watch_parked ON watch (ride_no) WHERE kind = 'parked';

-- How far keep has passed over the rides in search of what is still open.
CREATE TABLE sweep (
  name text PRIMARY KEY,
  through_ride_no bigint NOT NULL
);

-- Records that could not be taken: raw bytes, the reason in words, the path of the field.
-- The timestamp tells a record from the one at the same offset in a topic that was made again.
CREATE TABLE quarantine (
  quarantine_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operator_no integer,
  topic text NOT NULL,
  partition integer NOT NULL,
  record_offset bigint NOT NULL,
  record_timestamp_ms bigint NOT NULL,
  record_key bytea,
  record_headers bytea NOT NULL,
  record_value bytea,
  fault text NOT NULL CHECK (fault IN ('record', 'service', 'unmapped_source')),
  reason text NOT NULL,
  path text NOT NULL,
  source text,
  state text NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'replayed', 'discarded')),
  decision_reason text,
  created_at timestamptz NOT NULL,
  decided_at timestamptz,
  UNIQUE (topic, partition, record_offset, record_timestamp_ms)
);
CREATE INDEX quarantine_of_operator ON quarantine (coalesce(operator_no, 0), state, quarantine_no);
CREATE INDEX quarantine_unmapped ON quarantine (quarantine_no) WHERE state = 'held' AND fault = 'unmapped_source';
CREATE INDEX quarantine_of_source ON quarantine (topic, source, quarantine_no)
  WHERE state = 'held' AND fault = 'unmapped_source';

------------------------------------------------------------------------------ money

-- A hold is for a session id: its keys derive from it, so no ride can use another's; ordinal counts those that a ride had
-- before, where collection needed one more. due_at is when its provider is
-- to be called next (NULL: nothing to do), lease_until is machine time; asks counts calls without an answer. title and
-- subject are what the rider reads at the provider: they never change, as he is asked with them again.
CREATE TABLE hold (
  session_key uuid NOT NULL,
  slot smallint NOT NULL,
  operator_no integer NOT NULL,
  session_id text NOT NULL,
  agreement_no bigint NOT NULL,
  account_no integer NOT NULL,
  tariff_id text NOT NULL,
  vehicle_id text,
  state text NOT NULL
    CHECK (state IN ('requested', 'open', 'refused', 'expired', 'completing', 'completed', 'released')),
  cap_minor bigint NOT NULL CHECK (cap_minor >= 0),
  currency text NOT NULL,
  provider_key text NOT NULL,
  ordinal smallint NOT NULL DEFAULT 0,
  provider_ref text,
  action jsonb,
  reason text,
  requested_at timestamptz NOT NULL,
  opened_at timestamptz,
  expires_at timestamptz,
  asks integer NOT NULL DEFAULT 0,
  due_at timestamptz,
  lease_until timestamptz,
  version integer NOT NULL DEFAULT 1,
  updated_at timestamptz NOT NULL,
  refusal text CHECK (refusal IN ('rules', 'fault', 'passing', 'final')),
  title text NOT NULL DEFAULT '',
  subject text NOT NULL DEFAULT '',
  CHECK ((state = 'refused') = (refusal IS NOT NULL)),
  PRIMARY KEY (session_key, slot)
);
CREATE INDEX hold_due ON hold (account_no, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX hold_by_provider_key ON hold (provider_key) WHERE state IN ('requested', 'open', 'completing');
CREATE INDEX hold_by_provider_ref ON hold (provider_ref) WHERE state IN ('requested', 'open', 'completing');
CREATE INDEX hold_running ON hold (agreement_no) WHERE state IN ('requested', 'open', 'completing');

-- What riders were given to confirm, of holds that were given up before they had opened it: their provider makes such an
-- order only when it is opened, by the key that the rider has, whenever that is. Looked for until it was, and ended there.
CREATE TABLE hold_unopened (
  provider_key text NOT NULL,
  account_no integer NOT NULL REFERENCES merchant_account,
  given_up_at timestamptz NOT NULL,
  due_at timestamptz NOT NULL,
  lease_until timestamptz,
  PRIMARY KEY (provider_key, account_no)
);
CREATE INDEX hold_unopened_due ON hold_unopened (account_no, due_at);

-- A debit and where it stands; every change is also a row of debit_transition (its columns: service.billing.debit_state).
-- due_at is when the provider must be called next, policy_at when the calendar looks (NULL: nothing to do);
-- lease_until is machine time. receipts: what was taken under which key; paid_minor is their sum. asked: it is due so
-- that something is asked about it, not so that it is sent, and goes on while debits are stopped: what was sent and not
-- answered (with a lease: without one, it is to be sent again), what a rider was given to pay, what is closed or doubted.
CREATE TABLE debit (
  ride_no bigint NOT NULL,
  ordinal smallint NOT NULL,
  slot smallint NOT NULL,
  operator_no integer NOT NULL,
  agreement_no bigint NOT NULL,
  account_no integer NOT NULL,
  session_key uuid NOT NULL,
  session_id text NOT NULL,
  currency text NOT NULL,
  amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
  paid_minor bigint NOT NULL DEFAULT 0 CHECK (paid_minor >= 0),
  refunding_minor bigint NOT NULL DEFAULT 0 CHECK (refunding_minor >= 0),
  refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
  forgone_minor bigint NOT NULL DEFAULT 0 CHECK (forgone_minor >= 0),
  outside_minor bigint NOT NULL DEFAULT 0 CHECK (outside_minor BETWEEN 0 AND forgone_minor),
  given_back_minor bigint NOT NULL DEFAULT 0 CHECK (given_back_minor >= 0),
  disputed_minor bigint NOT NULL DEFAULT 0 CHECK (disputed_minor >= 0),
  lowering_to bigint CHECK (lowering_to >= 0),
  excess_minor bigint NOT NULL DEFAULT 0 CHECK (excess_minor BETWEEN 0 AND amount_minor),
  receipts jsonb NOT NULL DEFAULT '[]',
  refunds smallint NOT NULL DEFAULT 0,
  state text NOT NULL CHECK (state IN ('new', 'submitting', 'pending', 'unknown', 'retry_wait', 'needs_rider', 'manual',
    'settled', 'settled_elsewhere', 'settled_twice', 'waived', 'written_off', 'cancelled')),
  overdue boolean NOT NULL DEFAULT false,
  suspended boolean NOT NULL DEFAULT false,
  net_again boolean NOT NULL DEFAULT false,
  capped boolean NOT NULL DEFAULT false,
  dispute text CHECK (dispute IN ('complaint', 'chargeback', 'won', 'lost', 'resolved')),
  disputes jsonb NOT NULL DEFAULT '[]',
  provider_key text NOT NULL,
  asked_minor bigint NOT NULL DEFAULT 0 CHECK (asked_minor >= 0),
  provider_ref text,
  action jsonb,
  reason text,
  attempts integer NOT NULL DEFAULT 0,
  queries integer NOT NULL DEFAULT 0,
  begun_at timestamptz,
  submitted_at timestamptz,
  not_found_at timestamptz,
  resent integer NOT NULL DEFAULT 0,
  unanswered_since timestamptz,
  settled_at timestamptz,
  due_at timestamptz,
  pay_by timestamptz,
  policy_at timestamptz,
  lease_until timestamptz,
  transitions integer NOT NULL DEFAULT 0,
  tariff_no integer,
  started_at timestamptz,
  ended_at timestamptz,
  items jsonb NOT NULL DEFAULT '[]',
  subject text NOT NULL DEFAULT '',
  verify text CHECK (verify IN ('present', 'next')),
  doubted_minor bigint,
  given boolean NOT NULL DEFAULT false,
  payable_until timestamptz,
  dunned text CHECK (dunned IN ('reminded', 'overdue_reminded', 'noticed')),
  dunned_at timestamptz,
  reminded integer NOT NULL DEFAULT 0,
  nudged_at timestamptz,
  record text CHECK (record IN ('completed', 'violated')),
  record_at timestamptz,
  record_asks integer NOT NULL DEFAULT 0,
  record_asked_at timestamptz,
  digest uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  asked boolean NOT NULL GENERATED ALWAYS AS (CASE state
    WHEN 'new' THEN doubted_minor IS NOT NULL
    WHEN 'retry_wait' THEN coalesce(doubted_minor, lowering_to) IS NOT NULL OR payable_until IS NOT NULL
    WHEN 'needs_rider' THEN submitted_at IS NOT NULL OR doubted_minor IS NOT NULL
    ELSE true END) STORED,
  CHECK (paid_minor + forgone_minor <= amount_minor OR state = 'settled_twice'),
  CHECK (refunding_minor + refunded_minor + given_back_minor <= paid_minor),
  PRIMARY KEY (ride_no, ordinal, slot)
) PARTITION BY RANGE (ride_no);
CREATE INDEX debit_due ON debit (account_no, due_at) WHERE due_at IS NOT NULL;
-- While an account or a tariff is stopped: what goes on all the same, and what waits of the other tariffs.
CREATE INDEX debit_asked ON debit (account_no, due_at) WHERE due_at IS NOT NULL AND asked;
CREATE INDEX debit_waiting ON debit (account_no, coalesce(tariff_no, 0), due_at) WHERE due_at IS NOT NULL AND NOT asked;
-- What collection's own rules tripped over, and why: rides (both ordinals 0) whose obligations are netted again at
-- due_at, debits, refunds (refund_ordinal) and calendars that are left alone until then, so that all others go on.
CREATE TABLE set_aside (
  ride_no bigint NOT NULL,
  ordinal smallint NOT NULL,
  refund_ordinal smallint NOT NULL,
  what text NOT NULL CHECK (what IN ('owing', 'debit', 'refund', 'policy')),
  reason text NOT NULL,
  times integer NOT NULL DEFAULT 1,
  since_at timestamptz NOT NULL,
  due_at timestamptz NOT NULL,
  PRIMARY KEY (ride_no, ordinal, refund_ordinal, what)
);
CREATE INDEX set_aside_due ON set_aside (due_at);
-- What a debit was called before its present key and the provider's present number, and the order by which a dispute has
-- named it: late news of that still finds it.
CREATE TABLE debit_number (
  number text NOT NULL,
  account_no integer NOT NULL,
  ride_no bigint NOT NULL,
  ordinal smallint NOT NULL,
  PRIMARY KEY (number, account_no, ride_no, ordinal)
);
-- A dispute names the debit by the provider's own number of it, where there is one.
CREATE INDEX debit_by_provider_ref ON debit (provider_ref) WHERE provider_ref IS NOT NULL;
-- What was paid elsewhere: the few of which something may have to be given back there.
CREATE INDEX debit_outside ON debit (operator_no) WHERE outside_minor > 0;
CREATE INDEX debit_policy ON debit (account_no, policy_at) WHERE policy_at IS NOT NULL;
-- What a rider still owes: a debt that was written off stays one.
CREATE INDEX debit_owed ON debit (agreement_no)
  WHERE state NOT IN ('settled', 'settled_elsewhere', 'settled_twice', 'waived', 'cancelled');
-- What a rider owes over all his agreements, by currency: debits not paid, and of those what is overdue. What is owed no
-- longer of a debit that can't be lowered is no debt of his.
CREATE VIEW rider_debt AS
SELECT a.rider_no, d.currency, count(*) FILTER (WHERE d.overdue AND owed.minor > 0) AS overdue,
  coalesce(sum(owed.minor) FILTER (WHERE d.overdue), 0)::bigint AS overdue_minor,
  sum(owed.minor)::bigint AS open_minor
FROM agreement a JOIN debit d ON d.agreement_no = a.agreement_no
CROSS JOIN LATERAL (SELECT least(d.amount_minor - d.excess_minor, d.lowering_to) - d.paid_minor AS minor) owed
WHERE d.state NOT IN ('settled', 'settled_elsewhere', 'settled_twice', 'waived', 'cancelled')
GROUP BY a.rider_no, d.currency;
-- Money that comes too late is still found by its key; what is settled is not asked for again.
CREATE INDEX debit_by_provider_key ON debit (provider_key) WHERE state NOT IN ('settled', 'waived');

-- The whole life of a debit, appended: from, to, why, and what the provider said. `told` is the digest of the debit's row
-- after it, `digest` is over the one before, this row and what was posted at it; the debit has that of its last.
CREATE TABLE debit_transition (
  ride_no bigint NOT NULL,
  ordinal smallint NOT NULL,
  transition integer NOT NULL,
  slot smallint NOT NULL,
  from_state text,
  to_state text NOT NULL,
  why text NOT NULL,
  amount_minor bigint NOT NULL,
  provider_key text NOT NULL,
  provider_ref text,
  business_at timestamptz NOT NULL,
  machine_at timestamptz NOT NULL,
  told uuid NOT NULL,
  digest uuid NOT NULL,
  PRIMARY KEY (ride_no, ordinal, transition, slot)
) PARTITION BY RANGE (ride_no);

CREATE TABLE refund (
  ride_no bigint NOT NULL,
  ordinal smallint NOT NULL,
  refund_ordinal smallint NOT NULL,
  slot smallint NOT NULL,
  operator_no integer NOT NULL,
  agreement_no bigint NOT NULL,
  account_no integer NOT NULL,
  currency text NOT NULL,
  amount_minor bigint NOT NULL CHECK (amount_minor > 0),
  state text NOT NULL CHECK (state IN ('new', 'submitting', 'pending', 'unknown', 'manual', 'succeeded', 'returned',
                                         'failed')),
  provider_key text NOT NULL,
  provider_ref text,
  debit_key text NOT NULL,
  debit_ref text,
  tariff_no integer,
  reason text NOT NULL,
  because text,
  told text NOT NULL DEFAULT '',
  code text,
  attempts integer NOT NULL DEFAULT 0,
  queries integer NOT NULL DEFAULT 0,
  not_found_at timestamptz,
  resent integer NOT NULL DEFAULT 0,
  unanswered_since timestamptz,
  denied boolean NOT NULL DEFAULT false,
  due_at timestamptz,
  lease_until timestamptz,
  digest uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (ride_no, ordinal, refund_ordinal, slot)
) PARTITION BY RANGE (ride_no);
CREATE INDEX refund_by_provider_key ON refund (provider_key);
CREATE INDEX refund_due ON refund (account_no, due_at) WHERE due_at IS NOT NULL;
-- While an account or a tariff is stopped: what was sent, and what waits of the other tariffs.
CREATE INDEX refund_sent ON refund (account_no, due_at) WHERE due_at IS NOT NULL AND state <> 'new';
CREATE INDEX refund_waiting ON refund (account_no, coalesce(tariff_no, 0), due_at)
  WHERE due_at IS NOT NULL AND state = 'new';

-- What a provider says was given back of a debit's payment that nobody here ordered (amount_minor NULL: he does not say
-- how much), by his number of the refund, until somebody has booked it, or (failed_at) it has come to nothing there.
CREATE TABLE refund_unordered (
  account_no integer NOT NULL,
  refund_ref text NOT NULL,
  ride_no bigint NOT NULL,
  ordinal smallint NOT NULL,
  payment_ref text NOT NULL,
  amount_minor bigint,
  told_at timestamptz NOT NULL,
  booked_at timestamptz,
  failed_at timestamptz,
  PRIMARY KEY (account_no, refund_ref)
);

-- What is not sent to providers for now: debits, refunds or reports of an operator, one of its accounts or tariffs; who
-- stopped it, who let it go on, and why. 'farebox' stops by itself where debits leave the usual.
CREATE TABLE stop (
  stop_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operator_no integer NOT NULL REFERENCES operator,
  account_no integer REFERENCES merchant_account,
  tariff_no integer REFERENCES tariff,
  what text NOT NULL CHECK (what IN ('debits', 'refunds', 'reports')),
  reason text NOT NULL,
  stopped_by text NOT NULL,
  stopped_at timestamptz NOT NULL,
  resumed_by text,
  resumed_reason text,
  resumed_at timestamptz
);
CREATE UNIQUE INDEX stop_standing ON stop (operator_no, coalesce(account_no, 0), coalesce(tariff_no, 0), what)
  WHERE resumed_at IS NULL;

-- What was debited by a tariff in an hour (business time), and how many of it were unusually high.
CREATE TABLE tariff_hour (
  tariff_no integer NOT NULL,
  hour_at timestamptz NOT NULL,
  debits integer NOT NULL,
  amount_minor bigint NOT NULL,
  high integer NOT NULL,
  PRIMARY KEY (tariff_no, hour_at)
);

-- Double entry: a row moves amount_minor from credit_account to debit_account, so that imbalance can't be written.
-- fact: 1 charge (ordinal = revision), 2 settlement … (service.billing.ledger.Fact): what follows a debit has
-- ordinal = debit ordinal * 1000000 + its transition, a refund, and one that came back, debit ordinal * 1000000 + its own ordinal.
CREATE TABLE transfer (
  ride_no bigint NOT NULL,
  fact smallint NOT NULL,
  ordinal integer NOT NULL,
  line smallint NOT NULL,
  slot smallint NOT NULL,
  operator_no integer NOT NULL,
  debit_account bigint NOT NULL,
  credit_account bigint NOT NULL,
  amount_minor bigint NOT NULL CHECK (amount_minor > 0),
  currency text NOT NULL,
  posted_at timestamptz NOT NULL,
  CHECK (debit_account <> credit_account),
  PRIMARY KEY (ride_no, fact, ordinal, line, slot)
) PARTITION BY RANGE (ride_no);

-- The answer to a write, so that the same Idempotency-Key gets the same answer.
CREATE TABLE idempotency (
  operator_no integer NOT NULL,
  route text NOT NULL,
  idempotency_key text NOT NULL,
  request_digest bytea NOT NULL,
  status smallint,
  body bytea,
  machine_at timestamptz NOT NULL,
  PRIMARY KEY (operator_no, route, idempotency_key)
);
CREATE INDEX idempotency_by_age ON idempotency (machine_at);

------------------------------------------------------------------------------ append-only, and the months

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of % is refused: the table is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON transfer FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ride_revision FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON obligation FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON debit_transition FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON cap_use FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON stream_restart FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON tariff_version FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON transfer FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON ride_revision FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON obligation FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON debit_transition FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON cap_use FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Makes the partitions of every table of a ride for `months` months from the month of `since` on.
-- A ride number is (milliseconds since 2024-01-01 UTC) << 22 | counter, so a month is a range of numbers.
-- Row triggers reach the partitions by themselves; a TRUNCATE of one must be refused there.
-- Runs with its owner's rights: `keep` makes months, and the service's role owns no table.
CREATE FUNCTION make_ride_partitions(since timestamptz, months integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  base text;
  month timestamp;
  lower_no bigint;
  upper_no bigint;
  part text;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(727002);
  FOR i IN 0 .. months - 1 LOOP
    month := date_trunc('month', since AT TIME ZONE 'UTC') + make_interval(months => i);
    lower_no := (extract(epoch FROM month - timestamp '2024-01-01') * 1000)::bigint << 22;
    upper_no := (extract(epoch FROM month + interval '1 month' - timestamp '2024-01-01') * 1000)::bigint << 22;
    FOREACH base IN ARRAY ARRAY['ride_revision', 'obligation', 'cap_use', 'debit', 'debit_transition', 'refund', 'transfer'] LOOP
      part := base || '_' || to_char(month, 'YYYY_MM');
      CONTINUE WHEN to_regclass(part) IS NOT NULL;
      -- Attaching, unlike CREATE ... PARTITION OF, lets the writers of the other months go on.
      EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, base);
      EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', base, part, lower_no, upper_no);
      IF base NOT IN ('debit', 'refund') THEN
        EXECUTE format('CREATE TRIGGER never_emptied BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', part);
      END IF;
      made := made + 1;
    END LOOP;
  END LOOP;
  RETURN made;
END $$;
