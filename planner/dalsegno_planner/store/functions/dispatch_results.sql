-- Records the ends of steps' tasks whose tokens have been checked, and makes ready what that unblocks: a thousand edges in
-- one transaction, so that it is short. Says whether there are more, which dispatch_promote goes on with.
CREATE OR REPLACE FUNCTION dispatch_results(
    results task_result[], OUT changes state_change[], OUT resolved resolved_call[], OUT promoting boolean)
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
        SET session_id = NULL, running = false,
            available_at = CASE WHEN again.delay > 0 THEN clock_timestamp() + make_interval(secs => again.delay)
                                ELSE '-infinity' END
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
    WITH reached AS MATERIALIZED (
        SELECT e.execution_id, e.upstream, e.downstream,
               row_number() OVER (ORDER BY e.execution_id, e.upstream, e.downstream) AS place
        FROM unnest(results) r
        CROSS JOIN LATERAL (
            SELECT x.execution_id, x.upstream, x.downstream FROM edges x
            WHERE x.execution_id = r.execution_id AND x.upstream = r.number
            ORDER BY x.downstream LIMIT 1001 OFFSET 0) e
        JOIN invocations p ON p.execution_id = r.execution_id AND p.number = r.number
        WHERE r.outcome = 'completed' AND p.override_outputs IS NULL
    ), released AS (
        SELECT e.execution_id, e.downstream AS number, count(*)::integer AS producers
        FROM reached e WHERE e.place <= 1000
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
        RETURNING i.execution_id, i.number, i.epoch, i.blocked_by, i.module, i.name, i.pinned_digest, i.options
    ), ready AS (
        INSERT INTO tasks (execution_id, number, epoch, is_body, lane, route, limited_by, at_most, available_at)
        SELECT u.execution_id, u.number, u.epoch, false, e.lane,
               task_route(e.project, u.module, u.name, u.pinned_digest), l.limited_by, l.at_most,
               '-infinity'::timestamptz
        FROM unblocked u JOIN executions e ON e.id = u.execution_id CROSS JOIN LATERAL task_limit(e.project, u.options) l
        WHERE u.blocked_by = 0
        UNION ALL
        -- How far each producer has come, the number of a consumer, stays in the row by which it is gone on with.
        SELECT r.execution_id, -r.upstream, coalesce(max(d.downstream), 0), false, 0, '', '', 0, 'infinity'
        FROM (SELECT DISTINCT l.execution_id, l.upstream FROM reached l WHERE l.place > 1000) r
        LEFT JOIN reached d ON d.execution_id = r.execution_id AND d.upstream = r.upstream AND d.place <= 1000
        GROUP BY r.execution_id, r.upstream
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) > 1000 INTO promoting FROM reached;

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
