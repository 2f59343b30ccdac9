-- The ends of bodies and of executions.

-- Ends the task of one body whose token has been checked. Says whether there is work to look for: it is ready again, or
-- what was limited with it has ended.
CREATE OR REPLACE FUNCTION dispatch_body_end(body body_end) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    frees boolean;
BEGIN
    PERFORM FROM executions e WHERE e.id = body.execution_id FOR UPDATE;

    IF cardinality(body.yielded) > 0 THEN
        INSERT INTO yields (execution_id, place, number)
        SELECT body.execution_id, y.place, y.number FROM unnest(body.yield_places, body.yielded) y(place, number)
        ON CONFLICT (execution_id, place) DO UPDATE SET number = excluded.number;
    END IF;

    IF body.outcome = 'suspended' THEN
        IF (SELECT bool_and(w.state = 'pending') FROM waits w
            WHERE w.execution_id = body.execution_id AND w.number = ANY (body.waits)) IS NOT TRUE THEN
            -- Answered while the body was on its way out; or never asked, and then nobody would ever answer.
            UPDATE tasks t SET session_id = NULL, running = false
            WHERE t.execution_id = body.execution_id AND t.number = 0;
            RETURN true;
        END IF;
        DELETE FROM tasks t WHERE t.execution_id = body.execution_id AND t.number = 0;
        UPDATE executions e
        SET body_epoch = body.epoch,
            state = CASE WHEN EXISTS (SELECT FROM tasks t WHERE t.execution_id = e.id) THEN e.state ELSE 'waiting' END,
            last_event = e.last_event + 1
        WHERE e.id = body.execution_id;
        INSERT INTO events (execution_id, event, number, state)
        SELECT e.id, e.last_event, 0, e.state FROM executions e WHERE e.id = body.execution_id;
        RETURN false;
    END IF;

    -- What still runs with a token of this execution is fenced, also after a retry of the execution. Where some of it was
    -- limited, others may begin.
    WITH ended AS (
        DELETE FROM tasks t WHERE t.execution_id = body.execution_id
        RETURNING t.number, t.epoch, t.session_id IS NOT NULL AND t.limited_by <> '' AS frees
    ), fenced AS (
        UPDATE invocations i SET epoch = ended.epoch + 1
        FROM ended WHERE i.execution_id = body.execution_id AND i.number = ended.number
    )
    SELECT coalesce(bool_or(ended.frees), false) INTO frees FROM ended;
    -- What was made ready while the above waited for whoever did so.
    DELETE FROM tasks t WHERE t.execution_id = body.execution_id;

    IF cardinality(body.not_reached) > 0 THEN
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
    END IF;

    WITH left_over AS (
        -- What was submitted and has not ended, or was not come to.
        UPDATE invocations i SET state = CASE WHEN body.outcome = 'failed' THEN 'not_reached' ELSE 'cancelled' END,
                                 called = i.called OR i.started_at IS NOT NULL, finished_at = clock_timestamp()
        WHERE i.execution_id = body.execution_id AND i.state IN ('pending', 'waiting')
    ), asked AS (
        UPDATE waits w SET state = 'aborted' WHERE w.execution_id = body.execution_id AND w.state = 'pending'
    ), ended AS (
        UPDATE executions e
        SET state = CASE body.outcome WHEN 'returned' THEN 'completed' ELSE 'failed' END,
            result = body.result, failure = body.failure, body_epoch = body.epoch,
            finished_at = clock_timestamp(), last_event = e.last_event + 1
        WHERE e.id = body.execution_id
        RETURNING e.id, e.last_event, e.state
    )
    INSERT INTO events (execution_id, event, number, state) SELECT e.id, e.last_event, 0, e.state FROM ended e;
    RETURN frees;
END
$$;

-- Has suspended flows wait of which nothing else runs, and returns them. The caller has locked their rows before, so that a
-- body that is suspended meanwhile has been, or finds the same itself.
CREATE OR REPLACE FUNCTION dispatch_rest(ids uuid[]) RETURNS uuid[]
LANGUAGE sql AS $$
    WITH suspended AS (
        UPDATE executions e SET state = 'waiting', last_event = e.last_event + 1
        WHERE e.id = ANY (ids) AND e.kind = 'flow' AND (e.state = 'running') IS TRUE
          AND NOT EXISTS (SELECT FROM tasks t WHERE t.execution_id = e.id)
        RETURNING e.id, e.last_event
    ), recorded AS (
        INSERT INTO events (execution_id, event, number, state)
        SELECT s.id, s.last_event, 0, 'waiting' FROM suspended s
    )
    SELECT coalesce(array_agg(s.id), '{}') FROM suspended s
$$;

-- Whether a pipeline ends where so many more of its invocations have ended.
CREATE OR REPLACE FUNCTION ends_pipeline(e executions, more integer) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT e.kind = 'pipeline' AND e.unfinished = more AND e.state IN ('pending', 'running')
$$;

-- Counts what ended and what is new, says whether it is of flows, ends executions whose last invocation has, and records
-- the events, under the locks of the executions' rows, which are taken last and in order.
CREATE OR REPLACE FUNCTION dispatch_settle(changes state_change[], OUT changed uuid[], OUT ended uuid[], OUT flows boolean)
LANGUAGE plpgsql AS $$
DECLARE
    counts record;
    execution record;
BEGIN
    changed := '{}';
    ended := '{}';
    flows := false;
    FOR counts IN
        SELECT c.execution_id AS id, array_agg(c.number) AS numbers, array_agg(c.state) AS states,
               count(*)::integer AS events,
               count(*) FILTER (WHERE c.state IN ('completed', 'failed', 'not_reached', 'cancelled'))::integer AS ended,
               count(*) FILTER (WHERE c.state = 'failed')::integer AS failed,
               coalesce(sum(c.fresh), 0)::integer AS fresh,
               coalesce(max(c.number) FILTER (WHERE c.fresh IS NOT NULL), 0) AS highest
        FROM unnest(changes) c GROUP BY c.execution_id ORDER BY c.execution_id
    LOOP
        UPDATE executions e
        SET state = CASE WHEN ends_pipeline(e, counts.ended)
                         THEN CASE WHEN e.failures + counts.failed > 0 THEN 'failed' ELSE 'completed' END
                         ELSE e.state END,
            finished_at = CASE WHEN ends_pipeline(e, counts.ended) THEN clock_timestamp() ELSE e.finished_at END,
            last_event = e.last_event + counts.events + ends_pipeline(e, counts.ended)::integer,
            next_number = greatest(e.next_number, counts.highest + 1),
            -- In a replay, a delta of a recorded call is a fresh row, but no further invocation.
            invocation_count = e.invocation_count + CASE
                WHEN e.source_id IS NULL THEN counts.fresh ELSE greatest(counts.highest + 1 - e.next_number, 0) END,
            failures = e.failures + counts.failed,
            unfinished = CASE e.kind WHEN 'pipeline' THEN e.unfinished - counts.ended ELSE e.unfinished END
        WHERE e.id = counts.id
        RETURNING e.kind, e.state, e.last_event,
                  e.kind = 'pipeline' AND e.unfinished = 0 AND counts.ended > 0 AND e.state IN ('completed', 'failed') AS ends
        INTO execution;
        IF execution.ends THEN
            counts.numbers := counts.numbers || 0;
            counts.states := counts.states || execution.state;
            ended := ended || counts.id;
        END IF;
        INSERT INTO events (execution_id, event, number, state)
        SELECT counts.id, execution.last_event - cardinality(counts.numbers) + c.place, c.number, c.state
        FROM unnest(counts.numbers, counts.states) WITH ORDINALITY c(number, state, place);
        IF execution.ends AND execution.state = 'failed' THEN
            -- The failure of a pipeline is that of its first failed invocation.
            UPDATE executions e
            SET failure = (
                SELECT i.failure FROM invocations i
                WHERE i.execution_id = counts.id AND i.state = 'failed' ORDER BY i.finished_at, i.number LIMIT 1)
            WHERE e.id = counts.id;
        END IF;
        changed := changed || counts.id;
        flows := flows OR execution.kind = 'flow';
    END LOOP;
END
$$;
