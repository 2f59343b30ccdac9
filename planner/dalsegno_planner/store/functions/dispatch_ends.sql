-- The ends of bodies and of executions.

-- Ends the task of one body whose token has been checked.
CREATE OR REPLACE FUNCTION dispatch_body_end(body body_end, OUT changes state_change[], OUT requeued boolean)
LANGUAGE plpgsql AS $$
BEGIN
    requeued := false;
    PERFORM FROM executions e WHERE e.id = body.execution_id FOR UPDATE;

    IF cardinality(body.yielded) > 0 THEN
        INSERT INTO yields (execution_id, place, number)
        SELECT body.execution_id, y.place, y.number FROM unnest(body.yield_places, body.yielded) y(place, number)
        ON CONFLICT (execution_id, place) DO UPDATE SET number = excluded.number;
    END IF;

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

    -- Overrides stay with them, for replays of this one that come to the calls after all.
    INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, called, module, code_digest,
                             attempt, supplier_id, started_at, finished_at, upstream, after, reads_inputs,
                             overridden_inputs, inputs, outputs, override_outputs, options)
    SELECT body.execution_id, x.number, x.position, x.invocation_id, x.name, x.kind, 'not_reached', false, x.module,
           x.code_digest, x.attempt, coalesce(x.supplier_id, x.execution_id), x.started_at, x.finished_at, x.upstream,
           x.after, x.reads_inputs, x.overridden_inputs, x.inputs, x.outputs, x.override_outputs, x.options
    FROM unnest(body.not_reached) n(number)
    CROSS JOIN LATERAL shown_invocation(body.execution_id, n.number) x
    WHERE x.overridden_inputs <> '{}' OR x.override_outputs IS NOT NULL
    ON CONFLICT DO NOTHING;

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

-- Counts what ended, ends executions whose last invocation has, and records the events, under the locks of the
-- executions' rows, which are taken last and in order.
CREATE OR REPLACE FUNCTION dispatch_settle(changes state_change[], OUT ended uuid[])
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
