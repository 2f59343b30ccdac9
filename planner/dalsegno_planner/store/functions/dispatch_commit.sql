-- One round trip of the commit loop. Tokens are checked under locks, rows are locked in the order tasks, invocations,
-- executions, each by (execution, number).
CREATE OR REPLACE FUNCTION dispatch_commit(
    p_results task_result[], p_calls body_call[], p_attempts failed_attempt[], p_ends body_end[],
    p_returned task_token[], p_claims claim[],
    OUT durable integer[], OUT claimed claimed_task[], OUT resolved resolved_call[], OUT moved uuid[],
    OUT changed uuid[], OUT requeued boolean, OUT promoting boolean)
LANGUAGE plpgsql AS $$
DECLARE
    results task_result[];
    calls body_call[];
    body body_end;
    changes state_change[] := '{}';
    made state_change[];
    grown growth[] := '{}';
    items integer[];
    flows boolean := false;
    raw resolved_call[];
    again boolean;
    busy boolean;
BEGIN
    durable := '{}';
    moved := '{}';
    requeued := false;
    promoting := false;

    IF cardinality(p_results) > 0 THEN
        SELECT array_agg(ok.r) INTO results FROM (
            SELECT r FROM (SELECT u AS r FROM unnest(p_results) u ORDER BY u.execution_id, u.number) sorted
            CROSS JOIN LATERAL (
                SELECT FROM tasks t
                WHERE t.execution_id = (r).execution_id AND t.number = (r).number
                  AND t.session_id IS NOT DISTINCT FROM (r).session_id AND t.epoch = (r).epoch
                FOR UPDATE OFFSET 0) held) ok;
        IF results IS NOT NULL THEN
            SELECT * INTO made, raw, promoting FROM dispatch_results(results);
            changes := changes || coalesce(made, '{}');
        END IF;
        -- Those that won are durable, now or since an earlier sending; all others are fenced.
        SELECT coalesce(array_agg(r.item), '{}') INTO durable
        FROM unnest(p_results) r
        JOIN invocations i ON i.execution_id = r.execution_id AND i.number = r.number AND i.epoch = r.epoch;
    END IF;

    IF cardinality(p_calls) > 0 THEN
        SELECT array_agg(ok.c), array_agg((ok.c).item) INTO calls, items FROM (
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
            SELECT * INTO made, grown FROM dispatch_calls(calls);
            changes := changes || made;
            durable := durable || items;
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
        SELECT * INTO changed, moved, flows FROM dispatch_settle(changes, grown);
    END IF;

    -- After the executions' rows are locked: a body that was claimed meanwhile is found, or finds the outcome itself.
    IF flows AND cardinality(raw) > 0 THEN
        SELECT array_agg((t.session_id, t.execution_id, t.epoch, w.number, w.outputs, w.failure)::resolved_call)
        INTO resolved
        FROM unnest(raw) w
        CROSS JOIN LATERAL (
            SELECT b.session_id, b.execution_id, b.epoch FROM tasks b
            WHERE b.execution_id = w.execution_id AND b.number = 0 LIMIT 1) t
        WHERE t.session_id IS NOT NULL;

        moved := moved || dispatch_rest(ARRAY(SELECT w.execution_id FROM unnest(raw) w));
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
        SELECT * INTO claimed, busy FROM dispatch_claim(p_claims);
        requeued := requeued OR busy;
    END IF;
END
$$;
