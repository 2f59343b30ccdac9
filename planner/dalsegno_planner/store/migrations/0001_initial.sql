-- The graph: executions, their invocations and edges, read through lineages; and the work that is ready or leased.
--
-- Keys of the large tables start with the execution's ID, so that they can be distributed by it.
-- There are no foreign keys between them: they would be checked on the hot path.

CREATE TABLE executions (
    id uuid NOT NULL,
    project text NOT NULL,
    name text NOT NULL,
    flow text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('flow', 'pipeline')),
    state text NOT NULL CHECK (state IN ('pending', 'running', 'waiting', 'completed', 'failed', 'cancelled')),
    -- Routes of the code: `project/module:name`, with `@digest` where a version is pinned.
    module text NOT NULL,
    pinned_digest text NOT NULL DEFAULT '',
    code_digest text NOT NULL DEFAULT '',
    source_id uuid,
    debug boolean NOT NULL DEFAULT false,
    single_step boolean NOT NULL DEFAULT false,
    requested_by text NOT NULL DEFAULT '',
    request_id uuid,
    -- The number that the next new invocation gets; those of a lineage never collide.
    next_number integer NOT NULL DEFAULT 1,
    -- Invocations of the whole graph, reused ones included.
    invocation_count integer NOT NULL DEFAULT 0,
    -- Invocations of this execution that have not ended. Kept for pipelines, whose end it decides.
    unfinished integer NOT NULL DEFAULT 0,
    -- Failed invocations of this execution.
    failures integer NOT NULL DEFAULT 0,
    -- The number of the last event.
    last_event bigint NOT NULL DEFAULT 0,
    -- The epoch of the last body task that ended; the next body's task starts from it.
    body_epoch integer NOT NULL DEFAULT 0,
    lane smallint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    -- Inputs on which the shape of a pipeline's graph depends.
    shaping_inputs text[] NOT NULL DEFAULT '{}',
    -- Serialized messages of dalsegno.v1, kept whole: FlowInputs, Payload, Failure, Binding.
    inputs bytea NOT NULL DEFAULT '',
    result bytea,
    failure bytea,
    result_binding bytea,
    -- What a replay was asked to do: mode, selectors, overrides, roots, on_stale, plan digest.
    replay jsonb,
    UNIQUE (project, name),
    UNIQUE (request_id)
) WITH (fillfactor = 70, toast_tuple_target = 256);

CREATE INDEX executions_by_flow ON executions (project, flow, id DESC);
CREATE INDEX executions_by_source ON executions (source_id) WHERE source_id IS NOT NULL;
CREATE INDEX executions_open ON executions (state, id) WHERE state IN ('pending', 'running', 'waiting');
ALTER TABLE executions ADD PRIMARY KEY (id);

-- From which executions an execution reads, the nearest (itself) at depth 0. Of an ancestor only numbers below
-- `number_limit` are visible: what it got after the replay was made stays invisible.
CREATE TABLE lineage (
    execution_id uuid NOT NULL,
    depth smallint NOT NULL,
    ancestor_id uuid NOT NULL,
    number_limit integer NOT NULL
);

CREATE INDEX lineage_by_ancestor ON lineage (ancestor_id, execution_id);
ALTER TABLE lineage ADD PRIMARY KEY (execution_id, depth);

CREATE TABLE invocations (
    execution_id uuid NOT NULL,
    number integer NOT NULL,
    position integer NOT NULL,
    invocation_id text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL DEFAULT 'step' CHECK (kind IN ('step', 'wait')),
    -- `ready`, `leased` and `running` are in tasks, and here it stays `pending`; a call that runs within a flow's body
    -- has no task, and is running where it is pending and `started_at` is set. A reused invocation has a row only
    -- where it differs from the one that it reuses (a delta); `not_reached` is also the tombstone of a recorded call.
    state text NOT NULL CHECK (state IN
        ('pending', 'waiting', 'completed', 'failed', 'cancelled', 'reused', 'not_reached')),
    module text NOT NULL,
    pinned_digest text NOT NULL DEFAULT '',
    code_digest text NOT NULL DEFAULT '',
    attempt integer NOT NULL DEFAULT 0,
    -- The epoch of the token that ended it, so that a repeated report is known again.
    epoch integer NOT NULL DEFAULT 0,
    -- Unfinished upstream invocations of this execution.
    blocked_by integer NOT NULL DEFAULT 0,
    -- False for an affected invocation of a flow's replay that the body has not come to, or that runs within the body
    -- and has not ended: nothing but the body makes it ready.
    called boolean NOT NULL DEFAULT true,
    -- For a delta: the execution whose call supplies the outputs.
    supplier_id uuid,
    stale_inputs boolean NOT NULL DEFAULT false,
    started_at timestamptz,
    finished_at timestamptz,
    -- All upstream numbers: those that the inputs name and those of `after`.
    upstream integer[] NOT NULL DEFAULT '{}',
    after integer[] NOT NULL DEFAULT '{}',
    -- Names of the flow inputs that the inputs name.
    reads_inputs text[] NOT NULL DEFAULT '{}',
    overridden_inputs text[] NOT NULL DEFAULT '{}',
    -- Serialized messages of dalsegno.v1: Inputs, Outputs, Outputs, Failure, StepOptions.
    inputs bytea NOT NULL DEFAULT '',
    outputs bytea,
    override_outputs bytea,
    failure bytea,
    options bytea NOT NULL DEFAULT ''
) WITH (fillfactor = 85);

CREATE UNIQUE INDEX invocations_by_invocation_id ON invocations (execution_id, invocation_id);
CREATE INDEX invocations_by_name ON invocations (execution_id, name, number);
-- What has nothing to be reused.
CREATE INDEX invocations_incomplete ON invocations (execution_id, number) WHERE state NOT IN ('completed', 'reused');
-- Made last, here and below: of indexes that cost the same, as all do while a table is empty, the planner takes the
-- newest, and dispatch keeps the plans that it made then.
ALTER TABLE invocations ADD PRIMARY KEY (execution_id, number);

-- The fan-out side of `invocations.upstream`. A row of an invocation hides its edges in older executions.
CREATE TABLE edges (
    execution_id uuid NOT NULL,
    upstream integer NOT NULL,
    downstream integer NOT NULL,
    PRIMARY KEY (execution_id, upstream, downstream)
);

-- Outstanding work: ready where session_id is null, otherwise leased. Number 0 is the body of a flow.
-- (execution, number, epoch, session) is the fencing token; the epoch grows at every claim.
CREATE TABLE tasks (
    execution_id uuid NOT NULL,
    number integer NOT NULL,
    epoch integer NOT NULL DEFAULT 0,
    session_id uuid,
    running boolean NOT NULL DEFAULT false,
    is_body boolean NOT NULL,
    lane smallint NOT NULL DEFAULT 0,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    route text NOT NULL,
    available_at timestamptz NOT NULL DEFAULT '-infinity',
    -- How often the task was lost with its executor.
    losses integer NOT NULL DEFAULT 0,
    PRIMARY KEY (execution_id, number)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX tasks_ready ON tasks (is_body, route, lane, sequence) WHERE session_id IS NULL;
CREATE INDEX tasks_leased ON tasks (session_id) WHERE session_id IS NOT NULL;

-- One lease per executor session. Expiry is decided by this database's clock.
CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    executor text NOT NULL,
    project text NOT NULL,
    -- Grows with every stream that the executor opens: what an older stream claims is refused.
    generation integer NOT NULL DEFAULT 1,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE session_routes (
    route text NOT NULL,
    session_id uuid NOT NULL,
    PRIMARY KEY (route, session_id)
);

CREATE INDEX session_routes_by_session ON session_routes (session_id);

-- User code as announced or recorded; the document is a serialized dalsegno.v1.Definition.
CREATE TABLE definitions (
    project text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('flow', 'pipeline', 'step')),
    module text NOT NULL,
    name text NOT NULL,
    digest text NOT NULL,
    document bytea NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (project, kind, name, module, digest)
);

CREATE TABLE waits (
    execution_id uuid NOT NULL,
    number integer NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'answered', 'timed_out', 'aborted')),
    question text NOT NULL DEFAULT '',
    schema text NOT NULL DEFAULT '',
    metadata text NOT NULL DEFAULT '',
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline timestamptz,
    answered_at timestamptz,
    answered_by text NOT NULL DEFAULT '',
    -- A serialized dalsegno.v1.Payload.
    answer bytea,
    PRIMARY KEY (execution_id, number)
);

CREATE INDEX waits_by_deadline ON waits (deadline) WHERE state = 'pending' AND deadline IS NOT NULL;

-- Attempts that failed; the last one that counts is in the invocation's row.
CREATE TABLE attempts (
    execution_id uuid NOT NULL,
    number integer NOT NULL,
    attempt integer NOT NULL,
    executor text NOT NULL DEFAULT '',
    started_at timestamptz,
    finished_at timestamptz,
    -- A serialized dalsegno.v1.Failure.
    failure bytea,
    PRIMARY KEY (execution_id, number, attempt)
);

-- What happened to an execution. `event` is given under the lock of the execution's row: no gaps, and in the order
-- of commits. Number 0 is the execution itself.
CREATE TABLE events (
    execution_id uuid NOT NULL,
    event bigint NOT NULL,
    number integer NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (execution_id, event)
);

-- Uploaded values and values of overrides. Outputs are addressed by IDs that carry their execution and number.
CREATE TABLE artifacts (
    id uuid PRIMARY KEY,
    name text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT '',
    -- A serialized dalsegno.v1.Payload.
    payload bytea NOT NULL
);
