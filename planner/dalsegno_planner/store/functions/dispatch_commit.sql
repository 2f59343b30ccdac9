-- One round trip of the commit loop. Tokens are checked under locks, rows are locked in the order tasks, invocations,
-- executions, each by (execution, number).
CREATE OR REPLACE FUNCTION dispatch_commit(
    p_results task_result[], p_calls body_call[], p_attempts failed_attempt[], p_ends body_end[],
    p_returned task_token[], p_claims claim[],
    OUT durable integer[], OUT claimed claimed_task[], OUT resolved resolved_call[], OUT moved uuid[],
    OUT changed uuid[], OUT requeued boolean, OUT promoting boolean)
LANGUAGE plpgsql AS $$
DECLARE
    body body_end;
    changes state_change[] := '{}';
    made state_change[];
    outcomes resolved_call[];
    items integer[];
    returned tid[];
    flows boolean := false;
    busy boolean;
BEGIN
    durable := '{}';
    moved := '{}';
    requeued := false;
    promoting := false;

    IF cardinality(p_results) > 0 THEN
        SELECT * INTO durable, made, outcomes, promoting FROM dispatch_results(p_results);
        changes := changes || made;
    END IF;

    IF cardinality(p_calls) > 0 THEN
        SELECT * INTO items, made FROM dispatch_calls(p_calls, p_attempts);
        changes := changes || made;
        durable := durable || items;
    END IF;

    IF cardinality(p_returned) > 0 THEN
        -- Two statements: one that locks does not see the version of a row for which it has waited.
        SELECT array_agg(held.address) INTO returned
        FROM (SELECT * FROM unnest(p_returned) u ORDER BY u.execution_id, u.number) r
        CROSS JOIN LATERAL (
            SELECT t.ctid AS address FROM tasks t
            WHERE t.execution_id = r.execution_id AND t.number = r.number
              AND t.epoch = r.epoch AND t.session_id IS NOT DISTINCT FROM r.session_id
            FOR UPDATE OFFSET 0) held;
        UPDATE tasks t SET session_id = NULL, running = false WHERE t.ctid = ANY (returned);
        requeued := true;
    END IF;

    IF cardinality(changes) > 0 THEN
        SELECT * INTO changed, moved, flows FROM dispatch_settle(changes);
    END IF;

    -- After the executions' rows are locked: a body that was claimed meanwhile is found, or finds the outcome itself.
    IF flows AND outcomes IS NOT NULL THEN
        SELECT array_agg((t.session_id, t.execution_id, t.epoch, o.number, o.outputs, o.failure)::resolved_call)
        INTO resolved
        FROM unnest(outcomes) o
        CROSS JOIN LATERAL (
            SELECT b.session_id, b.execution_id, b.epoch FROM tasks b
            WHERE b.execution_id = o.execution_id AND b.number = 0 LIMIT 1) t
        WHERE t.session_id IS NOT NULL;

        moved := moved || dispatch_rest(ARRAY(SELECT o.execution_id FROM unnest(outcomes) o));
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
            requeued := dispatch_body_end(body) OR requeued;
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
