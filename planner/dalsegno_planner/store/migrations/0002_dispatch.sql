-- Dispatch: everything that a planner's streams report, and everything that it claims for them, in one round trip.

CREATE FUNCTION task_route(project text, module text, name text, pinned_digest text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT project || '/' || module || ':' || name || CASE pinned_digest WHEN '' THEN '' ELSE '@' || pinned_digest END
$$;

-- The end of a step's task, or of one attempt of it.
CREATE TYPE task_result AS (
    item integer,
    execution_id uuid,
    number integer,
    epoch integer,
    session_id uuid,
    outcome text,  -- completed | failed | retry
    outputs bytea,
    failure bytea,
    code_digest text,
    started_at timestamptz,
    finished_at timestamptz,
    delay double precision,
    executor text
);

-- A durable call of a flow's body; the token is the body's.
CREATE TYPE body_call AS (
    item integer,
    execution_id uuid,
    epoch integer,
    session_id uuid,
    action text,  -- completed | failed | submitted | reused | wait | started
    number integer,
    position integer,
    kind text,
    name text,
    invocation_id text,
    module text,
    pinned_digest text,
    code_digest text,
    inputs bytea,
    upstream integer[],
    after integer[],
    reads_inputs text[],
    options bytea,
    outputs bytea,
    failure bytea,
    attempt integer,
    started_at timestamptz,
    finished_at timestamptz,
    delay double precision,
    stale_inputs boolean,
    question text,
    schema text,
    metadata text,
    timeout double precision
);

CREATE TYPE failed_attempt AS (
    item integer,
    execution_id uuid,
    number integer,
    attempt integer,
    executor text,
    started_at timestamptz,
    finished_at timestamptz,
    failure bytea
);

-- The end of a body's task.
CREATE TYPE body_end AS (
    item integer,
    execution_id uuid,
    epoch integer,
    session_id uuid,
    outcome text,  -- returned | failed | suspended
    result bytea,
    failure bytea,
    not_reached integer[],
    waits integer[]
);

CREATE TYPE task_token AS (execution_id uuid, number integer, epoch integer, session_id uuid);

CREATE TYPE claim AS (session_id uuid, generation integer, steps integer, bodies integer, routes text[]);

CREATE TYPE claimed_task AS (
    session_id uuid,
    execution_id uuid,
    number integer,
    epoch integer,
    project text,
    module text,
    name text,
    pinned_digest text,
    invocation_id text,
    inputs bytea,
    flow_inputs bytea,
    options bytea,
    attempt integer,
    upstream integer[],
    upstream_outputs bytea[],
    recorded_count integer,
    next_number integer,
    replay text
);

-- The outcome of a submitted call, for the body that made it.
CREATE TYPE resolved_call AS (
    session_id uuid,
    execution_id uuid,
    epoch integer,
    number integer,
    outputs bytea,
    failure bytea
);

CREATE TYPE state_change AS (execution_id uuid, number integer, state text);

-- The rows that an execution shows: its own, and those of its ancestors that no nearer row hides.
CREATE FUNCTION effective_invocations(execution uuid) RETURNS SETOF invocations
LANGUAGE sql STABLE AS $$
    SELECT i.*
    FROM lineage l
    JOIN invocations i ON i.execution_id = l.ancestor_id AND i.number < l.number_limit
    WHERE l.execution_id = execution
      AND NOT EXISTS (
          SELECT FROM lineage n
          CROSS JOIN LATERAL (
              SELECT FROM invocations h
              WHERE h.execution_id = n.ancestor_id AND h.number = i.number AND h.number < n.number_limit OFFSET 0) h
          WHERE n.execution_id = execution AND n.depth < l.depth)
$$;

-- Counts what ended, ends executions whose last invocation has, and records the events, under the locks of the
-- executions' rows, which are taken last and in order.
CREATE FUNCTION dispatch_settle(changes state_change[], OUT ended uuid[])
LANGUAGE plpgsql AS $$
DECLARE
    event_count integer;
BEGIN
    PERFORM FROM executions e
    WHERE e.id IN (SELECT c.execution_id FROM unnest(changes) c)
    ORDER BY e.id FOR UPDATE;

    WITH counts AS (
        SELECT c.execution_id,
               count(*)::integer AS events,
               count(*) FILTER (WHERE c.state IN ('completed', 'failed', 'not_reached', 'cancelled'))::integer AS ended,
               count(*) FILTER (WHERE c.state = 'failed')::integer AS failed
        FROM unnest(changes) c GROUP BY c.execution_id
    ), updated AS (
        UPDATE executions e
        SET last_event = e.last_event + counts.events + final.step,
            unfinished = CASE e.kind WHEN 'pipeline' THEN e.unfinished - counts.ended ELSE e.unfinished END,
            failures = e.failures + counts.failed,
            state = CASE final.step WHEN 0 THEN e.state
                                    ELSE CASE WHEN e.failures + counts.failed > 0 THEN 'failed' ELSE 'completed' END END,
            finished_at = CASE final.step WHEN 0 THEN e.finished_at ELSE clock_timestamp() END
        FROM counts
        CROSS JOIN LATERAL (SELECT counts.execution_id, counts.ended) k
        CROSS JOIN LATERAL (
            SELECT CASE WHEN x.kind = 'pipeline' AND x.unfinished - k.ended = 0
                             AND x.state IN ('pending', 'running') THEN 1 ELSE 0 END AS step
            FROM executions x WHERE x.id = k.execution_id) final
        WHERE e.id = counts.execution_id
        RETURNING e.id, e.last_event - counts.events - final.step AS before, counts.events, final.step, e.state
    ), recorded AS (
        INSERT INTO events (execution_id, event, number, state)
        SELECT u.id, u.before + row_number() OVER (PARTITION BY u.id), c.number, c.state
        FROM updated u JOIN unnest(changes) c ON c.execution_id = u.id
        UNION ALL
        SELECT u.id, u.before + u.events + 1, 0, u.state FROM updated u WHERE u.step = 1
    )
    SELECT array_agg(u.id) INTO ended FROM updated u WHERE u.step = 1;

    -- The failure of a pipeline is that of its first failed invocation.
    IF ended IS NOT NULL THEN
        UPDATE executions e
        SET failure = (SELECT i.failure FROM invocations i
                       WHERE i.execution_id = e.id AND i.state = 'failed' ORDER BY i.finished_at, i.number LIMIT 1)
        WHERE e.id = ANY (ended) AND e.state = 'failed';
    END IF;
END
$$;

-- Records the ends of steps' tasks whose tokens have been checked, and makes ready what that unblocks.
CREATE FUNCTION dispatch_results(results task_result[], OUT changes state_change[], OUT resolved resolved_call[])
LANGUAGE plpgsql AS $$
DECLARE
    unreached resolved_call[];
    some_failed boolean;
    some_stop boolean;
BEGIN
    SELECT bool_or(r.outcome <> 'completed'), bool_or(r.outcome = 'failed') INTO some_failed, some_stop
    FROM unnest(results) r;

    IF some_failed THEN
        INSERT INTO attempts (execution_id, number, attempt, executor, started_at, finished_at, failure)
        SELECT r.execution_id, r.number, i.attempt + 1, r.executor, r.started_at, r.finished_at, r.failure
        FROM unnest(results) r JOIN invocations i ON i.execution_id = r.execution_id AND i.number = r.number
        WHERE r.outcome IN ('failed', 'retry')
        ON CONFLICT DO NOTHING;

        UPDATE tasks t
        SET session_id = NULL, running = false, available_at = clock_timestamp() + make_interval(secs => again.delay)
        FROM (SELECT held.ctid, r.delay FROM unnest(results) r
              CROSS JOIN LATERAL (
                  SELECT k.ctid FROM tasks k
                  WHERE k.execution_id = r.execution_id AND k.number = r.number OFFSET 0) held
              WHERE r.outcome = 'retry' OFFSET 0) again
        WHERE t.ctid = again.ctid;
    END IF;

    -- Tasks are looked up by key and written by address. Plans that were made while the table was empty would read
    -- all of it for each commit, were they left the choice; its rows are locked, so their addresses stay.
    DELETE FROM tasks t
    WHERE t.ctid = ANY (ARRAY(
        SELECT held.ctid FROM unnest(results) r
        CROSS JOIN LATERAL (
            SELECT k.ctid FROM tasks k
            WHERE k.execution_id = r.execution_id AND k.number = r.number OFFSET 0) held
        WHERE r.outcome <> 'retry'));

    UPDATE invocations i
    SET state = CASE r.outcome WHEN 'retry' THEN i.state ELSE r.outcome END,
        attempt = i.attempt + 1,
        epoch = r.epoch,
        outputs = r.outputs,
        failure = CASE r.outcome WHEN 'failed' THEN r.failure END,
        code_digest = coalesce(nullif(r.code_digest, ''), i.code_digest),
        started_at = r.started_at,
        finished_at = CASE WHEN r.outcome <> 'retry' THEN coalesce(r.finished_at, clock_timestamp()) END
    FROM unnest(results) r
    WHERE i.execution_id = r.execution_id AND i.number = r.number;

    -- A statement of its own: an edge that was added while the one above waited for a lock is seen by this one.
    -- Producers are counted per successor, so that two of them in one batch count twice.
    WITH released AS (
        SELECT e.execution_id, e.downstream AS number, count(*)::integer AS producers
        FROM unnest(results) r
        CROSS JOIN LATERAL (
            SELECT x.execution_id, x.downstream FROM edges x
            WHERE x.execution_id = r.execution_id AND x.upstream = r.number OFFSET 0) e
        JOIN invocations p ON p.execution_id = r.execution_id AND p.number = r.number
        WHERE r.outcome = 'completed' AND p.override_outputs IS NULL
        GROUP BY e.execution_id, e.downstream
    ), locked AS MATERIALIZED (
        SELECT held.execution_id, held.number, sorted.producers
        FROM (SELECT * FROM released r ORDER BY r.execution_id, r.number) sorted
        CROSS JOIN LATERAL (
            SELECT i.execution_id, i.number FROM invocations i
            WHERE i.execution_id = sorted.execution_id AND i.number = sorted.number AND i.state = 'pending' AND i.called
            FOR UPDATE OFFSET 0) held
    ), unblocked AS (
        UPDATE invocations i SET blocked_by = i.blocked_by - locked.producers
        FROM locked WHERE i.execution_id = locked.execution_id AND i.number = locked.number
        RETURNING i.execution_id, i.number, i.epoch, i.blocked_by, i.module, i.name, i.pinned_digest
    )
    INSERT INTO tasks (execution_id, number, epoch, is_body, lane, route)
    SELECT u.execution_id, u.number, u.epoch, false, e.lane, task_route(e.project, u.module, u.name, u.pinned_digest)
    FROM unblocked u JOIN executions e ON e.id = u.execution_id
    WHERE u.blocked_by = 0
    ORDER BY u.execution_id, u.number
    ON CONFLICT DO NOTHING;

    SELECT array_agg((r.execution_id, r.number, r.outcome)::state_change) INTO changes
    FROM unnest(results) r WHERE r.outcome <> 'retry';

    IF some_stop THEN
        WITH RECURSIVE stopped AS (
            SELECT e.execution_id, e.downstream AS number, r.failure
            FROM unnest(results) r
            JOIN edges e ON e.execution_id = r.execution_id AND e.upstream = r.number
            JOIN invocations p ON p.execution_id = r.execution_id AND p.number = r.number
            WHERE r.outcome = 'failed' AND p.override_outputs IS NULL
            UNION
            SELECT e.execution_id, e.downstream, s.failure
            FROM stopped s
            JOIN invocations p ON p.execution_id = s.execution_id AND p.number = s.number AND p.override_outputs IS NULL
            JOIN edges e ON e.execution_id = s.execution_id AND e.upstream = s.number
        ), marked AS (
            -- A flow's body that asks again for the outcome is given the failure.
            UPDATE invocations i
            SET state = 'not_reached', finished_at = clock_timestamp(),
                failure = (SELECT s.failure FROM executions e WHERE e.id = i.execution_id AND e.kind = 'flow')
            FROM (SELECT DISTINCT ON (execution_id, number) * FROM stopped ORDER BY execution_id, number) s
            WHERE i.execution_id = s.execution_id AND i.number = s.number AND i.state = 'pending' AND i.called
            RETURNING i.execution_id, i.number, s.failure
        )
        SELECT array_cat(changes, array_agg((m.execution_id, m.number, 'not_reached')::state_change)),
               array_agg((NULL, m.execution_id, NULL, m.number, NULL, m.failure)::resolved_call)
        INTO changes, unreached FROM marked m;
    END IF;

    SELECT array_cat(unreached, array_agg((NULL, r.execution_id, NULL, r.number, r.outputs, r.failure)::resolved_call))
    INTO resolved FROM unnest(results) r WHERE r.outcome <> 'retry';
END
$$;

-- Records durable calls of bodies whose tokens have been checked. A call that has ended is never written again.
CREATE FUNCTION dispatch_calls(calls body_call[], OUT changes state_change[])
LANGUAGE plpgsql AS $$
DECLARE
    waits_made boolean;
    submitted boolean;
    deltas boolean;
BEGIN
    -- A recorded call that is made with other inputs leaves its old edges.
    DELETE FROM edges e
    USING unnest(calls) c
    JOIN invocations i ON i.execution_id = c.execution_id AND i.number = c.number
    CROSS JOIN LATERAL unnest(i.upstream) u(number)
    WHERE i.upstream <> c.upstream AND i.state IN ('pending', 'reused')
      AND e.execution_id = c.execution_id AND e.upstream = u.number AND e.downstream = c.number;

    WITH written AS (
        INSERT INTO invocations AS i (
            execution_id, number, position, invocation_id, name, kind, state, module, pinned_digest, code_digest,
            attempt, epoch, called, stale_inputs, started_at, finished_at, upstream, after, reads_inputs, inputs, outputs,
            failure, options, supplier_id)
        SELECT c.execution_id, c.number, c.position, c.invocation_id, c.name, c.kind,
               CASE c.action WHEN 'completed' THEN 'completed' WHEN 'failed' THEN 'failed' WHEN 'reused' THEN 'reused'
                             WHEN 'wait' THEN 'waiting' ELSE 'pending' END,
               c.module, c.pinned_digest, coalesce(s.code_digest, c.code_digest),
               coalesce(s.attempt, c.attempt), CASE c.action WHEN 'submitted' THEN 0 ELSE c.epoch END, c.action <> 'started', c.stale_inputs,
               coalesce(s.started_at, c.started_at),
               CASE WHEN c.action IN ('completed', 'failed', 'reused')
                    THEN coalesce(s.finished_at, c.finished_at, clock_timestamp()) END,
               c.upstream, c.after, c.reads_inputs, c.inputs, coalesce(s.outputs, c.outputs), c.failure, c.options,
               s.supplier
        FROM unnest(calls) c
        -- A reused call keeps what it reuses: the nearest row of an ancestor.
        LEFT JOIN LATERAL (
            SELECT x.code_digest, x.attempt, x.started_at, x.finished_at, x.outputs,
                   coalesce(x.supplier_id, x.execution_id) AS supplier
            FROM lineage l
            CROSS JOIN LATERAL (
                SELECT y.* FROM invocations y
                WHERE y.execution_id = l.ancestor_id AND y.number = c.number AND y.number < l.number_limit OFFSET 0) x
            WHERE l.execution_id = c.execution_id AND l.depth > 0 ORDER BY l.depth LIMIT 1
        ) s ON c.action = 'reused'
        ON CONFLICT (execution_id, number) DO UPDATE
        SET position = excluded.position, invocation_id = excluded.invocation_id, name = excluded.name,
            state = excluded.state, module = excluded.module, pinned_digest = excluded.pinned_digest,
            code_digest = excluded.code_digest, attempt = excluded.attempt,
            -- Of one that has not ended it stays: after a retry its tasks go on from there.
            epoch = CASE excluded.state WHEN 'pending' THEN i.epoch ELSE excluded.epoch END,
            called = excluded.called, stale_inputs = excluded.stale_inputs, started_at = excluded.started_at, finished_at = excluded.finished_at,
            upstream = excluded.upstream, after = excluded.after, reads_inputs = excluded.reads_inputs,
            inputs = excluded.inputs, outputs = excluded.outputs, failure = excluded.failure, options = excluded.options,
            supplier_id = excluded.supplier_id
        WHERE i.state IN ('pending', 'reused')
        RETURNING i.execution_id, i.number, i.state, i.started_at, i.xmax = 0 AS fresh
    ), counted AS (
        -- In a replay, a delta of a recorded call is a fresh row, but no further invocation.
        UPDATE executions e
        SET next_number = greatest(e.next_number, w.highest + 1),
            invocation_count = e.invocation_count + CASE WHEN e.source_id IS NULL THEN w.fresh
                                                         ELSE greatest(w.highest + 1 - e.next_number, 0) END
        FROM (SELECT execution_id, max(number) AS highest, (count(*) FILTER (WHERE fresh))::integer AS fresh
              FROM written GROUP BY execution_id) w
        WHERE e.id = w.execution_id
        RETURNING e.id, e.source_id IS NOT NULL AS replayed
    )
    SELECT array_agg((w.execution_id, w.number,
                      CASE WHEN w.state = 'pending' AND w.started_at IS NOT NULL THEN 'running' ELSE w.state END
                     )::state_change),
           bool_or(w.fresh AND c.replayed)
    INTO changes, deltas FROM written w LEFT JOIN counted c ON c.id = w.execution_id;

    IF deltas THEN
        -- What an earlier replay overrides stays overridden, also where a call turns out to be no longer reused as it is.
        UPDATE invocations i
        SET overridden_inputs = x.overridden_inputs, override_outputs = x.override_outputs
        FROM unnest(calls) c
        CROSS JOIN LATERAL (
            SELECT y.* FROM lineage l
            CROSS JOIN LATERAL (
                SELECT z.overridden_inputs, z.override_outputs FROM invocations z
                WHERE z.execution_id = l.ancestor_id AND z.number = c.number AND z.number < l.number_limit OFFSET 0) y
            WHERE l.execution_id = c.execution_id AND l.depth > 0 ORDER BY l.depth LIMIT 1
        ) x
        WHERE i.execution_id = c.execution_id AND i.number = c.number
          AND i.overridden_inputs = '{}' AND i.override_outputs IS NULL
          AND (x.overridden_inputs <> '{}' OR x.override_outputs IS NOT NULL);
    END IF;

    INSERT INTO edges (execution_id, upstream, downstream)
    SELECT c.execution_id, u.number, c.number
    FROM unnest(calls) c CROSS JOIN LATERAL unnest(c.upstream) u(number)
    ON CONFLICT DO NOTHING;

    -- A statement costs some 30 µs though it finds nothing: what is rare is asked for at once.
    SELECT bool_or(c.action = 'wait'), bool_or(c.action = 'submitted') INTO waits_made, submitted
    FROM unnest(calls) c;

    IF waits_made THEN
        INSERT INTO waits (execution_id, number, question, schema, metadata, deadline)
        SELECT c.execution_id, c.number, c.question, c.schema, c.metadata,
               clock_timestamp() + make_interval(secs => c.timeout)
        FROM unnest(calls) c WHERE c.action = 'wait'
        ON CONFLICT DO NOTHING;
    END IF;

    IF submitted THEN
        -- Locked upstream rows do not end before this is committed, and whoever ends them then sees the new edges.
        PERFORM FROM unnest(calls) c JOIN invocations u ON u.execution_id = c.execution_id AND u.number = ANY (c.upstream)
        WHERE c.action = 'submitted' AND u.state = 'pending'
        ORDER BY u.execution_id, u.number FOR SHARE OF u;

        WITH blocked AS (
            UPDATE invocations i
            SET blocked_by = (SELECT count(*) FROM invocations u
                              WHERE u.execution_id = c.execution_id AND u.number = ANY (c.upstream)
                                AND u.state = 'pending' AND u.override_outputs IS NULL)
            FROM unnest(calls) c
            WHERE c.action = 'submitted' AND i.execution_id = c.execution_id AND i.number = c.number
              AND i.state = 'pending'
            RETURNING i.execution_id, i.number, i.epoch, i.blocked_by, i.module, i.name, i.pinned_digest, c.delay
        )
        INSERT INTO tasks (execution_id, number, epoch, is_body, lane, route, available_at)
        SELECT b.execution_id, b.number, b.epoch, false, e.lane, task_route(e.project, b.module, b.name, b.pinned_digest),
               CASE WHEN b.delay > 0 THEN clock_timestamp() + make_interval(secs => b.delay) ELSE '-infinity' END
        FROM blocked b JOIN executions e ON e.id = b.execution_id
        WHERE b.blocked_by = 0
        ON CONFLICT DO NOTHING;
    END IF;
END
$$;

-- Ends the task of one body whose token has been checked.
CREATE FUNCTION dispatch_body_end(body body_end, OUT changes state_change[], OUT requeued boolean)
LANGUAGE plpgsql AS $$
BEGIN
    requeued := false;
    PERFORM FROM executions e WHERE e.id = body.execution_id FOR UPDATE;

    IF body.outcome = 'suspended' THEN
        IF EXISTS (SELECT FROM waits w WHERE w.execution_id = body.execution_id AND w.number = ANY (body.waits)
                                         AND w.state <> 'pending') THEN
            -- Answered while the body was on its way out.
            UPDATE tasks t SET session_id = NULL, running = false
            WHERE t.execution_id = body.execution_id AND t.number = 0;
            requeued := true;
            RETURN;
        END IF;
        DELETE FROM tasks t WHERE t.execution_id = body.execution_id AND t.number = 0;
        UPDATE executions e
        SET body_epoch = body.epoch,
            state = CASE WHEN EXISTS (SELECT FROM tasks t WHERE t.execution_id = e.id) THEN e.state ELSE 'waiting' END,
            last_event = e.last_event + 1
        WHERE e.id = body.execution_id;
        INSERT INTO events (execution_id, event, number, state)
        SELECT e.id, e.last_event, 0, e.state FROM executions e WHERE e.id = body.execution_id;
        RETURN;
    END IF;

    -- What still runs with a token of this execution is fenced, also after a retry of the execution.
    WITH ended AS (
        DELETE FROM tasks t WHERE t.execution_id = body.execution_id RETURNING t.number, t.epoch
    )
    UPDATE invocations i SET epoch = ended.epoch + 1
    FROM ended WHERE i.execution_id = body.execution_id AND i.number = ended.number;

    -- Recorded calls that were not made: rows of this execution, or tombstones for those of its ancestors.
    UPDATE invocations i SET state = 'not_reached', called = false
    WHERE i.execution_id = body.execution_id AND i.number = ANY (body.not_reached) AND i.state IN ('pending', 'reused');

    INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, called, module)
    SELECT body.execution_id, x.number, x.position, x.invocation_id, x.name, x.kind, 'not_reached', false, x.module
    FROM unnest(body.not_reached) n(number)
    CROSS JOIN LATERAL (
        SELECT x.* FROM lineage l
        CROSS JOIN LATERAL (
            SELECT y.* FROM invocations y
            WHERE y.execution_id = l.ancestor_id AND y.number = n.number AND y.number < l.number_limit OFFSET 0) x
        WHERE l.execution_id = body.execution_id ORDER BY l.depth LIMIT 1) x
    ON CONFLICT DO NOTHING;

    -- What was submitted and has not ended, or was not come to.
    UPDATE invocations i SET state = CASE WHEN body.outcome = 'failed' THEN 'not_reached' ELSE 'cancelled' END,
                             called = i.called OR i.started_at IS NOT NULL, finished_at = clock_timestamp()
    WHERE i.execution_id = body.execution_id AND i.state IN ('pending', 'waiting');

    UPDATE waits w SET state = 'aborted' WHERE w.execution_id = body.execution_id AND w.state = 'pending';

    UPDATE executions e
    SET state = CASE body.outcome WHEN 'returned' THEN 'completed' ELSE 'failed' END,
        result = body.result, failure = body.failure, body_epoch = body.epoch,
        finished_at = clock_timestamp(), last_event = e.last_event + 1
    WHERE e.id = body.execution_id;
    INSERT INTO events (execution_id, event, number, state)
    SELECT e.id, e.last_event, 0, e.state FROM executions e WHERE e.id = body.execution_id;
END
$$;

-- Claims ready tasks for sessions, within their credit, oldest first.
CREATE FUNCTION dispatch_claim(claims claim[], OUT tasks claimed_task[])
LANGUAGE plpgsql AS $$
DECLARE
    wanted claim;
    picked task_token[] := '{}';
    more task_token[];
BEGIN
    FOREACH wanted IN ARRAY claims LOOP
        WITH session AS (
            SELECT s.id FROM sessions s
            WHERE s.id = wanted.session_id AND s.generation = wanted.generation
        ), ready AS (
            SELECT kind.is_body, route.route, kind.quota
            FROM (VALUES (false, wanted.steps), (true, wanted.bodies)) kind(is_body, quota)
            CROSS JOIN LATERAL (
                -- Routes with ready work, by skipping from one to the next; then those that the session has.
                WITH RECURSIVE skip AS (
                    (SELECT t.route FROM tasks t WHERE t.session_id IS NULL AND t.is_body = kind.is_body
                     ORDER BY t.route LIMIT 1)
                    UNION ALL
                    SELECT (SELECT t.route FROM tasks t WHERE t.session_id IS NULL AND t.is_body = kind.is_body
                            AND t.route > skip.route ORDER BY t.route LIMIT 1)
                    FROM skip WHERE skip.route IS NOT NULL
                )
                SELECT skip.route FROM skip WHERE skip.route = ANY (wanted.routes)
            ) route
            WHERE kind.quota > 0
        ), candidates AS (
            SELECT c.*, row_number() OVER (PARTITION BY c.is_body ORDER BY c.lane, c.sequence) AS place, ready.quota
            FROM ready CROSS JOIN LATERAL (
                SELECT t.ctid AS address, t.is_body, t.lane, t.sequence
                FROM tasks t
                WHERE t.session_id IS NULL AND t.is_body = ready.is_body AND t.route = ready.route
                  AND t.available_at <= clock_timestamp()
                ORDER BY t.lane, t.sequence
                LIMIT ready.quota FOR UPDATE SKIP LOCKED) c
        ), leased AS (
            UPDATE tasks t SET session_id = session.id, epoch = t.epoch + 1, running = false
            FROM candidates c, session
            WHERE c.place <= c.quota AND t.ctid = c.address
            RETURNING t.execution_id, t.number, t.epoch, t.session_id
        )
        SELECT array_agg((l.execution_id, l.number, l.epoch, l.session_id)::task_token) INTO more FROM leased l;
        picked := picked || coalesce(more, '{}');
    END LOOP;

    IF cardinality(picked) = 0 THEN
        RETURN;
    END IF;

    WITH begun AS (
        SELECT e.id FROM executions e
        -- Written so that the index of open executions does not apply: it has all that are queued.
        WHERE e.id IN (SELECT p.execution_id FROM unnest(picked) p) AND (e.state = 'pending') IS TRUE
        ORDER BY e.id FOR UPDATE
    ), updated AS (
        UPDATE executions e
        SET state = 'running', started_at = clock_timestamp(), last_event = e.last_event + 1
        FROM begun WHERE e.id = begun.id RETURNING e.id, e.last_event
    )
    INSERT INTO events (execution_id, event, number, state) SELECT u.id, u.last_event, 0, 'running' FROM updated u;

    -- The lock orders the claim of a body against results of calls that an earlier body submitted: they either find
    -- this claim, or are found when the recorded calls are read.
    PERFORM FROM executions e
    WHERE e.id IN (SELECT p.execution_id FROM unnest(picked) p WHERE p.number = 0)
    ORDER BY e.id FOR UPDATE;

    SELECT array_agg((
        p.session_id, p.execution_id, p.number, p.epoch, e.project,
        coalesce(i.module, e.module), coalesce(i.name, e.flow), coalesce(i.pinned_digest, e.pinned_digest),
        i.invocation_id, i.inputs,
        CASE WHEN p.number = 0 OR i.reads_inputs <> '{}' THEN e.inputs END,
        i.options, i.attempt + 1, u.numbers, u.outputs,
        e.invocation_count, e.next_number, e.replay::text
    )::claimed_task) INTO tasks
    FROM unnest(picked) p
    JOIN executions e ON e.id = p.execution_id
    LEFT JOIN invocations i ON i.execution_id = p.execution_id AND i.number = p.number
    LEFT JOIN LATERAL (
        SELECT array_agg(n.number) AS numbers, array_agg(coalesce(o.override_outputs, o.outputs)) AS outputs
        FROM unnest(i.upstream) n(number)
        CROSS JOIN LATERAL (
            SELECT x.outputs, x.override_outputs
            FROM lineage l
            -- OFFSET 0 keeps each look-up one by the whole key, after the lineage, however small the tables are.
            CROSS JOIN LATERAL (
                SELECT y.outputs, y.override_outputs FROM invocations y
                WHERE y.execution_id = l.ancestor_id AND y.number = n.number AND y.number < l.number_limit OFFSET 0) x
            WHERE l.execution_id = i.execution_id ORDER BY l.depth LIMIT 1) o
        WHERE n.number <> ALL (i.after)
    ) u ON i.upstream <> '{}';
END
$$;

-- One round trip of the commit loop. Tokens are checked under locks, rows are locked in the order tasks, invocations,
-- executions, each by (execution, number).
CREATE FUNCTION dispatch_commit(
    p_results task_result[], p_calls body_call[], p_attempts failed_attempt[], p_ends body_end[],
    p_returned task_token[], p_claims claim[],
    OUT durable integer[], OUT claimed claimed_task[], OUT resolved resolved_call[], OUT moved uuid[],
    OUT changed uuid[], OUT requeued boolean)
LANGUAGE plpgsql AS $$
DECLARE
    results task_result[];
    calls body_call[];
    body body_end;
    changes state_change[] := '{}';
    made state_change[];
    raw resolved_call[];
    again boolean;
BEGIN
    durable := '{}';
    moved := '{}';
    requeued := false;

    IF cardinality(p_results) > 0 THEN
        SELECT array_agg(ok.r) INTO results FROM (
            SELECT r FROM (SELECT u AS r FROM unnest(p_results) u ORDER BY u.execution_id, u.number) sorted
            CROSS JOIN LATERAL (
                SELECT FROM tasks t
                WHERE t.execution_id = (r).execution_id AND t.number = (r).number
                  AND t.session_id IS NOT DISTINCT FROM (r).session_id AND t.epoch = (r).epoch
                FOR UPDATE OFFSET 0) held) ok;
        IF results IS NOT NULL THEN
            SELECT * INTO made, raw FROM dispatch_results(results);
            changes := changes || coalesce(made, '{}');
        END IF;
        -- Those that won are durable, now or since an earlier sending; all others are fenced.
        SELECT coalesce(array_agg(r.item), '{}') INTO durable
        FROM unnest(p_results) r
        JOIN invocations i ON i.execution_id = r.execution_id AND i.number = r.number AND i.epoch = r.epoch;
    END IF;

    IF cardinality(p_calls) > 0 THEN
        SELECT array_agg(ok.c) INTO calls FROM (
            SELECT c FROM (SELECT u AS c FROM unnest(p_calls) u ORDER BY u.execution_id) sorted
            CROSS JOIN LATERAL (
                SELECT FROM tasks t
                WHERE t.execution_id = (c).execution_id AND t.number = 0
                  AND t.session_id IS NOT DISTINCT FROM (c).session_id AND t.epoch = (c).epoch
                FOR UPDATE OFFSET 0) held) ok;
        IF calls IS NOT NULL THEN
            IF cardinality(p_attempts) > 0 THEN
                INSERT INTO attempts (execution_id, number, attempt, executor, started_at, finished_at, failure)
                SELECT a.execution_id, a.number, a.attempt, a.executor, a.started_at, a.finished_at, a.failure
                FROM unnest(p_attempts) a JOIN unnest(calls) c ON c.item = a.item
                ON CONFLICT DO NOTHING;
            END IF;
            made := dispatch_calls(calls);
            changes := changes || coalesce(made, '{}');
            durable := durable || (SELECT array_agg(c.item) FROM unnest(calls) c);
        END IF;
        IF cardinality(calls) IS DISTINCT FROM cardinality(p_calls) THEN
            durable := durable || (
                SELECT coalesce(array_agg(c.item), '{}') FROM unnest(p_calls) c
                JOIN invocations i ON i.execution_id = c.execution_id AND i.number = c.number AND i.epoch = c.epoch
                WHERE i.state <> 'pending' AND NOT c.item = ANY (durable));
        END IF;
    END IF;

    IF cardinality(p_returned) > 0 THEN
        UPDATE tasks t SET session_id = NULL, running = false
        WHERE t.ctid = ANY (ARRAY(
            SELECT held.ctid FROM (SELECT * FROM unnest(p_returned) u ORDER BY u.execution_id, u.number) r
            CROSS JOIN LATERAL (
                SELECT k.ctid FROM tasks k
                WHERE k.execution_id = r.execution_id AND k.number = r.number
                  AND k.epoch = r.epoch AND k.session_id IS NOT DISTINCT FROM r.session_id
                FOR UPDATE OFFSET 0) held));
        requeued := true;
    END IF;

    IF cardinality(changes) > 0 THEN
        moved := coalesce(dispatch_settle(changes), '{}');
        SELECT array_agg(DISTINCT c.execution_id) INTO changed FROM unnest(changes) c;
    END IF;

    -- After the executions' rows are locked: a body that was claimed meanwhile is found, or finds the outcome itself.
    IF cardinality(raw) > 0 THEN
        SELECT array_agg((t.session_id, t.execution_id, t.epoch, w.number, w.outputs, w.failure)::resolved_call)
        INTO resolved
        FROM unnest(raw) w
        CROSS JOIN LATERAL (
            SELECT b.session_id, b.execution_id, b.epoch FROM tasks b
            WHERE b.execution_id = w.execution_id AND b.number = 0 LIMIT 1) t
        WHERE t.session_id IS NOT NULL;

        -- A suspended flow waits once nothing else of it runs.
        WITH suspended AS (
            UPDATE executions e SET state = 'waiting', last_event = e.last_event + 1
            WHERE e.id IN (SELECT w.execution_id FROM unnest(raw) w)
              AND e.kind = 'flow' AND (e.state = 'running') IS TRUE
              AND NOT EXISTS (SELECT FROM tasks t WHERE t.execution_id = e.id)
            RETURNING e.id, e.last_event
        ), recorded AS (
            INSERT INTO events (execution_id, event, number, state)
            SELECT s.id, s.last_event, 0, 'waiting' FROM suspended s
        )
        SELECT moved || coalesce(array_agg(s.id), '{}') INTO moved FROM suspended s;
    END IF;

    IF cardinality(p_ends) > 0 THEN
        FOR body IN
            SELECT b.* FROM (SELECT * FROM unnest(p_ends) u ORDER BY u.execution_id) b
            CROSS JOIN LATERAL (
                SELECT FROM tasks t
                WHERE t.execution_id = b.execution_id AND t.number = 0
                  AND t.session_id IS NOT DISTINCT FROM b.session_id AND t.epoch = b.epoch
                FOR UPDATE OFFSET 0) held
        LOOP
            SELECT * INTO made, again FROM dispatch_body_end(body);
            requeued := requeued OR again;
            moved := moved || body.execution_id;
        END LOOP;
        durable := durable || (
            SELECT coalesce(array_agg(b.item), '{}') FROM unnest(p_ends) b
            JOIN executions e ON e.id = b.execution_id
            WHERE e.body_epoch = b.epoch
               OR (b.outcome = 'suspended' AND EXISTS (
                    SELECT FROM tasks t
                    WHERE t.execution_id = b.execution_id AND t.number = 0 AND t.epoch = b.epoch AND t.session_id IS NULL)));
    END IF;

    IF cardinality(p_claims) > 0 THEN
        claimed := dispatch_claim(p_claims);
    END IF;
END
$$;

-- Opens or reopens an executor's session. Tasks that it had and does not name any more go back; tasks that it names
-- and that are not its any more are returned.
CREATE FUNCTION open_session(
    p_id uuid, p_executor text, p_project text, p_routes text[], p_lease double precision, p_in_hand task_token[],
    OUT generation integer, OUT lost task_token[])
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sessions AS s (id, executor, project, expires_at)
    VALUES (p_id, p_executor, p_project, clock_timestamp() + make_interval(secs => p_lease))
    ON CONFLICT (id) DO UPDATE
    SET generation = s.generation + 1, expires_at = excluded.expires_at, executor = excluded.executor
    RETURNING s.generation INTO generation;

    DELETE FROM session_routes r WHERE r.session_id = p_id AND NOT r.route = ANY (p_routes);
    INSERT INTO session_routes (route, session_id) SELECT DISTINCT r, p_id FROM unnest(p_routes) r
    ON CONFLICT DO NOTHING;

    UPDATE tasks t SET session_id = NULL, running = false
    WHERE t.session_id = p_id AND NOT EXISTS (
        SELECT FROM unnest(p_in_hand) h
        WHERE h.execution_id = t.execution_id AND h.number = t.number AND h.epoch = t.epoch);

    SELECT array_agg(h) INTO lost FROM unnest(p_in_hand) h
    WHERE NOT EXISTS (
        SELECT FROM tasks t WHERE t.execution_id = h.execution_id AND t.number = h.number
                              AND t.epoch = h.epoch AND t.session_id = p_id);
END
$$;

-- Gives back the tasks of sessions whose lease has run out, by this database's clock, or that have ended.
CREATE FUNCTION close_sessions(p_ids uuid[], OUT closed integer, OUT returned integer)
LANGUAGE plpgsql AS $$
DECLARE
    gone uuid[];
BEGIN
    WITH locked AS (
        SELECT s.id FROM sessions s
        WHERE CASE WHEN p_ids IS NULL THEN s.expires_at < clock_timestamp() ELSE s.id = ANY (p_ids) END
        ORDER BY s.id FOR UPDATE
    ), deleted AS (
        DELETE FROM sessions s USING locked WHERE s.id = locked.id RETURNING s.id
    )
    SELECT coalesce(array_agg(id), '{}') INTO gone FROM deleted;
    closed := cardinality(gone);
    returned := 0;
    IF closed > 0 THEN
        DELETE FROM session_routes r WHERE r.session_id = ANY (gone);
        UPDATE tasks t
        SET session_id = NULL, running = false, losses = t.losses + CASE WHEN p_ids IS NULL THEN 1 ELSE 0 END
        WHERE t.session_id = ANY (gone);
        GET DIAGNOSTICS returned = ROW_COUNT;
    END IF;
END
$$;
