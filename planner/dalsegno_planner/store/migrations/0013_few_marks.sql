-- Plans of few are read in one go, and replays written in one.

-- Replaced by others, in functions/.
DROP FUNCTION IF EXISTS begin_plan(uuid);
DROP FUNCTION IF EXISTS mark_implied_roots(uuid, integer[], text[], boolean);
DROP FUNCTION IF EXISTS mark_descendants(uuid, boolean, boolean);
DROP FUNCTION IF EXISTS mark_waits(uuid);
DROP FUNCTION IF EXISTS mark_affected(
    uuid, integer[], text[], text[], integer[], text[], boolean, text, integer[], integer);

-- What is read of one invocation for a plan; see few_marks.
CREATE TYPE plan_row AS (
    number integer,
    role text,
    invocation_id text,
    name text,
    kind text,
    seconds double precision,
    overridden boolean,
    objects boolean,
    reasons text[],
    causes text[],
    -- Of what is needed: a step that takes it, and what is there of it, a serialized Outputs.
    taker text,
    outputs bytea
);

-- An affected invocation of a replay whose inputs or code are not those recorded.
CREATE TYPE replay_row AS (
    number integer,
    "position" integer,
    invocation_id text,
    name text,
    module text,
    pinned_digest text,
    code_digest text,
    upstream integer[],
    after integer[],
    reads_inputs text[],
    overridden_inputs text[],
    inputs bytea,
    options bytea
);

-- Calls of a step by their code: which code there is of a step is found by skipping from one digest to the next, and calls
-- that have it in common share its entry.
DROP INDEX invocations_by_name;
CREATE INDEX invocations_by_name ON invocations (execution_id, name, code_digest);
-- Made last, as in the first migration: it is the newest of those that cost the same where a table is empty.
ALTER TABLE invocations DROP CONSTRAINT invocations_pkey;
ALTER TABLE invocations ADD PRIMARY KEY (execution_id, number);
