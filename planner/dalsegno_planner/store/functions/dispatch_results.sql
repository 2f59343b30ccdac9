-- The ends of steps' tasks, in few and simple statements: what one costs is above all the making of its plan's state, for
-- each table that it writes some 20 µs before the first row.

-- Records an attempt that failed and is tried again. Says whether its token held.
CREATE OR REPLACE FUNCTION dispatch_retry(r task_result) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    attempts_made integer;
BEGIN
    UPDATE tasks t
    SET session_id = NULL, running = false,
        available_at = CASE WHEN r.delay > 0 THEN clock_timestamp() + make_interval(secs => r.delay) ELSE '-infinity' END
    WHERE t.execution_id = r.execution_id AND t.number = r.number AND t.epoch = r.epoch
      AND t.session_id IS NOT DISTINCT FROM r.session_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE invocations i
    SET attempt = i.attempt + 1, epoch = r.epoch, outputs = NULL, failure = NULL,
        code_digest = coalesce(nullif(r.code_digest, ''), i.code_digest), started_at = r.started_at, finished_at = NULL
    WHERE i.execution_id = r.execution_id AND i.number = r.number
    RETURNING i.attempt INTO attempts_made;
    INSERT INTO attempts (execution_id, number, attempt, executor, started_at, finished_at, failure)
    VALUES (r.execution_id, r.number, attempts_made, r.executor, r.started_at, r.finished_at, r.failure)
    ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

-- Of the reports that ended no task: records those of attempts that are tried again, and returns them with those that won
-- when they were sent before. The rest are fenced.
CREATE OR REPLACE FUNCTION dispatch_others(results task_result[], ended integer[]) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
    r task_result;
    durable integer[] := '{}';
BEGIN
    FOR r IN SELECT u.* FROM unnest(results) u WHERE u.item <> ALL (ended) ORDER BY u.execution_id, u.number LOOP
        IF r.outcome = 'retry' AND dispatch_retry(r) THEN
            durable := durable || r.item;
            CONTINUE;
        END IF;
        PERFORM FROM invocations i
        WHERE i.execution_id = r.execution_id AND i.number = r.number AND i.epoch = r.epoch;
        IF FOUND THEN
            durable := durable || r.item;
        END IF;
    END LOOP;
    RETURN durable;
END
$$;

-- Tells the consumers of what has been completed, and says whether there are more than a thousand of them: those that come
-- after these are left to dispatch_promote.
CREATE OR REPLACE FUNCTION dispatch_consumers(ended task_result[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    executions uuid[];
    producers integer[];
    consumers integer[];
BEGIN
    -- A statement of its own: an edge that was added while others waited for a lock is seen by this one.
    SELECT array_agg(x.execution_id), array_agg(x.upstream), array_agg(x.downstream)
    INTO executions, producers, consumers
    FROM (
        SELECT e.* FROM unnest(ended) r
        CROSS JOIN LATERAL (
            SELECT d.execution_id, d.upstream, d.downstream FROM edges d
            WHERE d.execution_id = r.execution_id AND d.upstream = r.number
            ORDER BY d.downstream LIMIT 1001 OFFSET 0) e
        JOIN invocations p ON p.execution_id = e.execution_id AND p.number = e.upstream
        WHERE r.outcome = 'completed' AND p.override_outputs IS NULL
        ORDER BY e.execution_id, e.upstream, e.downstream LIMIT 1001) x;
    IF executions IS NULL THEN
        RETURN false;
    END IF;
    PERFORM dispatch_release(executions[:1000], consumers[:1000]);
    IF cardinality(executions) <= 1000 THEN
        RETURN false;
    END IF;
    -- How far each producer has come, the number of a consumer, stays in the row by which it is gone on with.
    INSERT INTO tasks (execution_id, number, epoch, is_body, route, available_at)
    SELECT r.execution_id, -r.number,
           CASE WHEN (r.execution_id, r.number) = (executions[1000], producers[1000]) THEN consumers[1000] ELSE 0 END,
           false, '', 'infinity'
    FROM unnest(ended) r JOIN invocations p ON p.execution_id = r.execution_id AND p.number = r.number
    WHERE r.outcome = 'completed' AND p.override_outputs IS NULL
      AND (r.execution_id, r.number) >= (executions[1000], producers[1000])
      AND EXISTS (SELECT FROM edges d WHERE d.execution_id = r.execution_id AND d.upstream = r.number)
    ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

-- Records what follows from steps that have failed: their last attempts, and that their descendants are not reached. Of
-- those of flows the bodies that wait for them are told; what comes after steps of pipelines is up to
-- dispatch_mark_failed.
CREATE OR REPLACE FUNCTION dispatch_failures(failed task_result[], OUT changes state_change[], OUT unreached resolved_call[])
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO attempts (execution_id, number, attempt, executor, started_at, finished_at, failure)
    SELECT r.execution_id, r.number, i.attempt, r.executor, r.started_at, r.finished_at, r.failure
    FROM unnest(failed) r JOIN invocations i ON i.execution_id = r.execution_id AND i.number = r.number
    ON CONFLICT DO NOTHING;

    WITH RECURSIVE stopped AS (
        SELECT e.execution_id, e.downstream AS number, r.failure
        FROM unnest(failed) r
        JOIN edges e ON e.execution_id = r.execution_id AND e.upstream = r.number
        JOIN executions x ON x.id = r.execution_id AND x.kind = 'flow'
        JOIN invocations p ON p.execution_id = r.execution_id AND p.number = r.number
        WHERE p.override_outputs IS NULL
        UNION
        SELECT e.execution_id, e.downstream, s.failure
        FROM stopped s
        JOIN invocations p ON p.execution_id = s.execution_id AND p.number = s.number AND p.override_outputs IS NULL
        JOIN edges e ON e.execution_id = s.execution_id AND e.upstream = s.number
    ), marked AS (
        -- A flow's body that asks again for the outcome is given the failure.
        UPDATE invocations i
        SET state = 'not_reached', finished_at = clock_timestamp(), failure = s.failure
        FROM (SELECT DISTINCT ON (execution_id, number) * FROM stopped ORDER BY execution_id, number) s
        WHERE i.execution_id = s.execution_id AND i.number = s.number AND i.state = 'pending' AND i.called
        RETURNING i.execution_id, i.number, s.failure
    )
    SELECT array_agg((m.execution_id, m.number, 'not_reached', NULL)::state_change),
           array_agg((NULL, m.execution_id, NULL, m.number, NULL, m.failure)::resolved_call)
    INTO changes, unreached FROM marked m;
END
$$;

-- Records the ends of tasks whose tokens hold, and makes ready what that unblocks: a thousand edges in one transaction, so
-- that it is short. Says whether there are more, which dispatch_promote goes on with.
CREATE OR REPLACE FUNCTION dispatch_results(
    results task_result[], OUT durable integer[], OUT changes state_change[], OUT outcomes resolved_call[],
    OUT promoting boolean)
LANGUAGE plpgsql AS $$
DECLARE
    won task_result[];
    addresses tid[];
    failed task_result[];
    more state_change[];
    unreached resolved_call[];
    is_left boolean;
BEGIN
    -- Looked up one by one: joined, all tasks are gone through where statistics are of a time when there were none. Deleted by
    -- a statement of its own: one that locks does not see the version of a row for which it has waited.
    SELECT array_agg(o.r), array_agg(held.address) INTO won, addresses
    FROM (SELECT u AS r FROM unnest(results) u WHERE u.outcome <> 'retry' ORDER BY u.execution_id, u.number) o
    CROSS JOIN LATERAL (
        SELECT t.ctid AS address FROM tasks t
        WHERE t.execution_id = (o.r).execution_id AND t.number = (o.r).number
          AND t.epoch = (o.r).epoch AND t.session_id IS NOT DISTINCT FROM (o.r).session_id
        FOR UPDATE OFFSET 0) held;
    DELETE FROM tasks t WHERE t.ctid = ANY (addresses);

    UPDATE invocations i
    SET state = r.outcome, attempt = i.attempt + 1, epoch = r.epoch, outputs = r.outputs, failure = r.failure,
        code_digest = coalesce(nullif(r.code_digest, ''), i.code_digest), started_at = r.started_at,
        finished_at = coalesce(r.finished_at, clock_timestamp())
    FROM unnest(won) r
    WHERE i.execution_id = r.execution_id AND i.number = r.number;

    SELECT coalesce(array_agg(r.item), '{}'),
           coalesce(array_agg((r.execution_id, r.number, r.outcome, NULL)::state_change), '{}'),
           array_agg((NULL, r.execution_id, NULL, r.number, r.outputs, r.failure)::resolved_call),
           array_agg(r) FILTER (WHERE r.outcome = 'failed')
    INTO durable, changes, outcomes, failed FROM unnest(won) r;

    promoting := dispatch_consumers(won);

    IF failed IS NOT NULL THEN
        SELECT * INTO more, unreached FROM dispatch_failures(failed);
        changes := changes || more;
        outcomes := outcomes || unreached;
        SELECT * INTO more, is_left FROM dispatch_mark_failed(failed);
        changes := changes || more;
        promoting := promoting OR is_left;
    END IF;

    IF cardinality(durable) < cardinality(results) THEN
        durable := durable || dispatch_others(results, durable);
    END IF;
END
$$;
