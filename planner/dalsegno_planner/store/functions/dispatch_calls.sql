-- Records a call of which there may be a row: in this execution, or, where it is reused, in one that this one replays.
CREATE OR REPLACE FUNCTION dispatch_known_call(c body_call, OUT changes state_change[])
LANGUAGE plpgsql AS $$
DECLARE
    written record;
BEGIN
    -- One that is made with other inputs leaves its old edges.
    DELETE FROM edges e
    USING invocations i CROSS JOIN LATERAL unnest(i.upstream) u(number)
    WHERE i.execution_id = c.execution_id AND i.number = c.number AND i.upstream <> c.upstream
      AND (i.state IN ('pending', 'reused') OR i.state = 'not_reached' AND NOT i.called)
      AND e.execution_id = c.execution_id AND e.upstream = u.number AND e.downstream = c.number;

    INSERT INTO invocations AS i (
        execution_id, number, position, invocation_id, name, kind, state, module, pinned_digest, code_digest,
        attempt, epoch, called, stale_inputs, started_at, finished_at, upstream, after, reads_inputs, inputs, outputs,
        failure, options, supplier_id)
    SELECT c.execution_id, c.number, c.position, c.invocation_id, c.name, c.kind,
           CASE c.action WHEN 'completed' THEN 'completed' WHEN 'failed' THEN 'failed' WHEN 'reused' THEN 'reused'
                         WHEN 'wait' THEN 'waiting' ELSE 'pending' END,
           c.module, c.pinned_digest, coalesce(s.code_digest, c.code_digest), coalesce(s.attempt, c.attempt),
           CASE c.action WHEN 'submitted' THEN 0 ELSE c.epoch END, c.action <> 'started', c.stale_inputs,
           coalesce(s.started_at, c.started_at),
           CASE WHEN c.action IN ('completed', 'failed', 'reused')
                THEN coalesce(s.finished_at, c.finished_at, clock_timestamp()) END,
           c.upstream, c.after, c.reads_inputs, c.inputs, coalesce(s.outputs, c.outputs), c.failure, c.options,
           s.supplier
    FROM (SELECT) one
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
        code_digest = excluded.code_digest,
        -- Of one that is submitted again, its acknowledgement having been lost, attempts may have failed since.
        attempt = CASE excluded.state WHEN 'pending' THEN greatest(i.attempt, excluded.attempt) ELSE excluded.attempt END,
        -- Of one that has not ended it stays: after a retry its tasks go on from there.
        epoch = CASE excluded.state WHEN 'pending' THEN i.epoch ELSE excluded.epoch END,
        called = excluded.called, stale_inputs = excluded.stale_inputs, started_at = excluded.started_at,
        finished_at = excluded.finished_at, upstream = excluded.upstream, after = excluded.after,
        reads_inputs = excluded.reads_inputs, inputs = excluded.inputs, outputs = excluded.outputs,
        failure = excluded.failure, options = excluded.options, supplier_id = excluded.supplier_id
    -- A tombstone that a running execution has is of a call that earlier ones did not make: this one makes it.
    WHERE i.state IN ('pending', 'reused') OR i.state = 'not_reached' AND NOT i.called
    RETURNING i.state, i.started_at, i.xmax = 0 AS fresh INTO written;
    IF FOUND THEN
        changes := ARRAY[(
            c.execution_id, c.number,
            CASE WHEN written.state = 'pending' AND written.started_at IS NOT NULL THEN 'running' ELSE written.state END,
            CASE WHEN written.fresh THEN 1 ELSE 0 END
        )::state_change];
    END IF;
END
$$;

-- What an earlier replay overrides of a call stays overridden, also where it turns out to be no longer reused as it is.
CREATE OR REPLACE FUNCTION dispatch_inherit(execution uuid, call integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    ancestor record;
    changed text[];
    output bytea;
BEGIN
    FOR ancestor IN
        SELECT l.ancestor_id, l.number_limit FROM lineage l WHERE l.execution_id = execution AND l.depth > 0 ORDER BY l.depth
    LOOP
        CONTINUE WHEN call >= ancestor.number_limit;
        SELECT i.overridden_inputs, i.override_outputs INTO changed, output FROM invocations i
        WHERE i.execution_id = ancestor.ancestor_id AND i.number = call;
        EXIT WHEN FOUND;
    END LOOP;
    IF changed <> '{}' OR output IS NOT NULL THEN
        UPDATE invocations i SET overridden_inputs = changed, override_outputs = output
        WHERE i.execution_id = execution AND i.number = call
          AND i.overridden_inputs = '{}' AND i.override_outputs IS NULL;
    END IF;
END
$$;

-- Records durable calls of bodies, of those whose tokens hold; they come in the order of their executions, which is that of
-- the locks. A call that has ended is never written again.
CREATE OR REPLACE FUNCTION dispatch_calls(
    reported body_call[], failures failed_attempt[], OUT durable integer[], OUT changes state_change[])
LANGUAGE plpgsql AS $$
DECLARE
    one body_call;
    calls body_call[] := '{}';
    now_in text;
    fresh boolean;
    execution uuid;
    source uuid;
    producer integer;
    waits_made boolean := false;
    submitted boolean := false;
    yielded boolean := false;
BEGIN
    durable := '{}';
    changes := '{}';
    FOREACH one IN ARRAY reported LOOP
        PERFORM FROM tasks t
        WHERE t.execution_id = one.execution_id AND t.number = 0 AND t.epoch = one.epoch
          AND t.session_id IS NOT DISTINCT FROM one.session_id
        FOR UPDATE;
        IF NOT FOUND THEN
            -- Fenced, unless it was recorded when it was sent before.
            PERFORM FROM invocations i
            WHERE i.execution_id = one.execution_id AND i.number = one.number AND i.epoch = one.epoch
              AND i.state <> 'pending';
            IF FOUND THEN
                durable := durable || one.item;
            END IF;
            CONTINUE;
        END IF;
        durable := durable || one.item;
        calls := calls || one;
        -- What is rare is asked for at once, to spare its statements.
        waits_made := waits_made OR one.action = 'wait';
        submitted := submitted OR one.action = 'submitted';
        yielded := yielded OR cardinality(one.yielded) > 0;

        fresh := false;
        IF one.action <> 'reused' THEN
            now_in := CASE one.action WHEN 'completed' THEN 'completed' WHEN 'failed' THEN 'failed'
                                      WHEN 'wait' THEN 'waiting' ELSE 'pending' END;
            INSERT INTO invocations (
                execution_id, number, position, invocation_id, name, kind, state, module, pinned_digest, code_digest,
                attempt, epoch, called, stale_inputs, started_at, finished_at, upstream, after, reads_inputs, inputs,
                outputs, failure, options)
            VALUES (
                one.execution_id, one.number, one.position, one.invocation_id, one.name, one.kind, now_in, one.module,
                one.pinned_digest, one.code_digest, one.attempt,
                CASE one.action WHEN 'submitted' THEN 0 ELSE one.epoch END, one.action <> 'started',
                one.stale_inputs, one.started_at,
                CASE WHEN one.action IN ('completed', 'failed') THEN coalesce(one.finished_at, clock_timestamp()) END,
                one.upstream, one.after, one.reads_inputs, one.inputs, one.outputs, one.failure, one.options)
            ON CONFLICT (execution_id, number) DO NOTHING;
            fresh := FOUND;
        END IF;
        IF fresh THEN
            changes := changes || (
                one.execution_id, one.number, CASE one.action WHEN 'started' THEN 'running' ELSE now_in END, 1)::state_change;
        ELSE
            changes := changes || dispatch_known_call(one);
        END IF;
        IF one.execution_id IS DISTINCT FROM execution THEN
            SELECT e.id, e.source_id INTO execution, source FROM executions e WHERE e.id = one.execution_id;
        END IF;
        IF source IS NOT NULL THEN
            PERFORM dispatch_inherit(one.execution_id, one.number);
        END IF;
        FOREACH producer IN ARRAY one.upstream LOOP
            INSERT INTO edges (execution_id, upstream, downstream) VALUES (one.execution_id, producer, one.number)
            ON CONFLICT DO NOTHING;
        END LOOP;
    END LOOP;

    IF calls = '{}' THEN
        RETURN;
    END IF;

    IF cardinality(failures) > 0 THEN
        INSERT INTO attempts (execution_id, number, attempt, executor, started_at, finished_at, failure)
        SELECT a.execution_id, a.number, a.attempt, a.executor, a.started_at, a.finished_at, a.failure
        FROM unnest(failures) a JOIN unnest(calls) c ON c.item = a.item
        ON CONFLICT DO NOTHING;
    END IF;

    IF yielded THEN
        -- Two calls of a batch may both report what was yielded before they began.
        INSERT INTO yields (execution_id, place, number)
        SELECT DISTINCT ON (c.execution_id, y.place) c.execution_id, y.place, y.number
        FROM unnest(calls) c CROSS JOIN LATERAL unnest(c.yield_places, c.yielded) y(place, number)
        ON CONFLICT (execution_id, place) DO UPDATE SET number = excluded.number;
    END IF;

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
                                AND u.override_outputs IS NULL
                                -- One that has ended comes to this call yet where it is still telling its consumers.
                                AND (u.state = 'pending' OR u.state = 'completed' AND EXISTS (
                                    SELECT FROM tasks t
                                    WHERE t.execution_id = u.execution_id AND t.number = -u.number AND t.epoch < i.number
                                    FOR SHARE)))
            FROM unnest(calls) c
            WHERE c.action = 'submitted' AND i.execution_id = c.execution_id AND i.number = c.number
              AND i.state = 'pending'
            RETURNING i.execution_id, i.number, i.epoch, i.blocked_by, i.module, i.name, i.pinned_digest, i.options, c.delay
        )
        INSERT INTO tasks (execution_id, number, epoch, is_body, lane, route, available_at, limited_by, at_most)
        SELECT b.execution_id, b.number, b.epoch, false, e.lane, task_route(e.project, b.module, b.name, b.pinned_digest),
               CASE WHEN b.delay > 0 THEN clock_timestamp() + make_interval(secs => b.delay) ELSE '-infinity' END,
               l.limited_by, l.at_most
        FROM blocked b JOIN executions e ON e.id = b.execution_id CROSS JOIN LATERAL task_limit(e.project, b.options) l
        WHERE b.blocked_by = 0
        ON CONFLICT DO NOTHING;
    END IF;
END
$$;
