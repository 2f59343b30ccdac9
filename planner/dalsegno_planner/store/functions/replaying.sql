-- Replays: written as nothing but what differs from their source, in one round trip.

-- The rows that execute. In the order of numbers, pages of tables and indexes are read and filled one after the other.
-- $3 and $4 overridden outputs, $5 to $7 pinned code, $8 rows whose inputs or code are not those recorded, $9 numbers that
-- the source does not have.
CREATE OR REPLACE FUNCTION write_affected(
    replay uuid, origin uuid, is_pipeline boolean, replaced integer[], new_outputs bytea[],
    pin_modules text[], pin_names text[], pin_digests text[], written replay_row[], added integer[]
) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    apart integer[] := ARRAY(SELECT one.number FROM unnest(written) AS one);
BEGIN
    INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, module, pinned_digest,
                             called, blocked_by, upstream, after, reads_inputs, overridden_inputs, inputs,
                             override_outputs, options)
    SELECT replay, i.number, i.position, i.invocation_id, i.name, i.kind, 'pending', i.module, coalesce(pin.digest, ''),
           is_pipeline,
           CASE WHEN is_pipeline THEN (
               SELECT count(*) FROM unnest(i.upstream) AS u (number)
               JOIN replay_marks AS marks ON marks.number = u.number
               WHERE marks.role = 'affected' AND NOT marks.overridden) ELSE 0 END,
           i.upstream, i.after, i.reads_inputs, i.overridden_inputs, i.inputs,
           coalesce(own.outputs, i.override_outputs), i.options
    FROM (SELECT * FROM replay_marks ORDER BY number OFFSET 0) AS mark
    CROSS JOIN LATERAL shown_invocation(origin, mark.number) AS i
    LEFT JOIN unnest(replaced, new_outputs) AS own (number, outputs) ON own.number = i.number
    LEFT JOIN unnest(pin_modules, pin_names, pin_digests) AS pin (module, name, digest)
           ON pin.module = i.module AND pin.name = i.name
    WHERE mark.role <> 'removed' AND mark.number <> ALL (apart);
    -- A number that is affected and overridden blocks nothing. What earlier replays have overridden stays so.
    IF written <> '{}' THEN
        INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, module, pinned_digest,
                                 code_digest, called, blocked_by, upstream, after, reads_inputs, overridden_inputs, inputs,
                                 override_outputs, options)
        SELECT replay, one.number, one.position, one.invocation_id, one.name, 'step', 'pending', one.module,
               one.pinned_digest, one.code_digest, is_pipeline,
               CASE WHEN is_pipeline THEN (
                   SELECT count(*) FROM unnest(one.upstream) AS u (number)
                   LEFT JOIN replay_marks AS marks ON marks.number = u.number
                   WHERE u.number = ANY (added) OR (marks.role = 'affected' AND NOT marks.overridden)) ELSE 0 END,
               one.upstream, one.after, one.reads_inputs,
               ARRAY(SELECT unnest(one.overridden_inputs) UNION SELECT unnest(before.overridden_inputs) ORDER BY 1),
               one.inputs, coalesce(own.outputs, before.override_outputs), one.options
        FROM unnest(written) AS one
        LEFT JOIN unnest(replaced, new_outputs) AS own (number, outputs) ON own.number = one.number
        LEFT JOIN LATERAL shown_invocation(origin, one.number) AS before ON true;
    END IF;
END
$$;

-- What is reused and differs from what is stored. $3 and $4 overridden outputs, $5 overridden parameters whose readers are
-- stale, $6 whether everything else is copied too, so that no ancestors are needed, $7 whether recorded steps are left out.
-- A reused row without outputs is of a call that did not succeed; one that did has at least empty ones.
CREATE OR REPLACE FUNCTION write_reused(
    replay uuid, origin uuid, replaced integer[], new_outputs bytea[], stale_readers text[], detached boolean,
    leaves_out boolean
) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF replaced <> '{}' THEN
        INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, module, code_digest,
                                 attempt, supplier_id, started_at, finished_at, upstream, after, reads_inputs,
                                 overridden_inputs, inputs, outputs, override_outputs, options)
        SELECT replay, i.number, i.position, i.invocation_id, i.name, i.kind, 'reused', i.module, i.code_digest, i.attempt,
               coalesce(i.supplier_id, i.execution_id), i.started_at, i.finished_at, i.upstream, i.after, i.reads_inputs,
               i.overridden_inputs, i.inputs,
               CASE i.state WHEN 'completed' THEN coalesce(i.outputs, '') ELSE i.outputs END, own.outputs, i.options
        FROM unnest(replaced, new_outputs) AS own (number, outputs)
        CROSS JOIN LATERAL shown_invocation(origin, own.number) AS i
        WHERE NOT EXISTS (SELECT FROM replay_marks AS marks WHERE marks.number = own.number);
    END IF;
    IF stale_readers <> '{}' THEN
        INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, module, code_digest,
                                 attempt, supplier_id, stale_inputs, started_at, finished_at, upstream, after, reads_inputs,
                                 overridden_inputs, inputs, outputs, override_outputs, options)
        SELECT replay, i.number, i.position, i.invocation_id, i.name, i.kind, 'reused', i.module, i.code_digest, i.attempt,
               coalesce(i.supplier_id, i.execution_id), true, i.started_at, i.finished_at, i.upstream, i.after,
               i.reads_inputs, i.overridden_inputs, i.inputs,
               CASE i.state WHEN 'completed' THEN coalesce(i.outputs, '') ELSE i.outputs END, i.override_outputs, i.options
        FROM lineage
        CROSS JOIN LATERAL (
            SELECT row.* FROM invocations AS row
            WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit AND row.reads_inputs <> '{}'
            OFFSET 0
        ) AS i
        WHERE lineage.execution_id = origin
          AND i.reads_inputs && stale_readers AND i.kind = 'step' AND (i.called OR i.state <> 'not_reached')
          AND NOT EXISTS (SELECT FROM replay_marks AS marks WHERE marks.number = i.number)
          AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(origin, i.number) AS near))
        ON CONFLICT (execution_id, number) DO UPDATE SET stale_inputs = true;
    END IF;
    IF detached THEN
        -- What is hidden in the source, and overridden, stays both: a tombstone at position 0 is of no call.
        INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, called, module,
                                 code_digest, attempt, supplier_id, stale_inputs, started_at, finished_at, upstream,
                                 after, reads_inputs, overridden_inputs, inputs, outputs, override_outputs, failure,
                                 options)
        SELECT replay, i.number, CASE WHEN made.made THEN i.position ELSE 0 END, i.invocation_id, i.name, i.kind,
               CASE WHEN made.made THEN 'reused' ELSE 'not_reached' END, made.made, i.module, i.code_digest, i.attempt,
               CASE WHEN made.made THEN coalesce(i.supplier_id, i.execution_id) END, i.stale_inputs, i.started_at,
               i.finished_at, i.upstream, i.after, i.reads_inputs, i.overridden_inputs, i.inputs,
               CASE i.state WHEN 'completed' THEN coalesce(i.outputs, '') ELSE i.outputs END, i.override_outputs, NULL,
               i.options
        FROM lineage
        CROSS JOIN LATERAL (
            SELECT row.* FROM invocations AS row
            WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit
            OFFSET 0
        ) AS i
        CROSS JOIN LATERAL (SELECT i.called OR i.state <> 'not_reached' AS made) AS made
        WHERE lineage.execution_id = origin
          AND (made.made OR i.overridden_inputs <> '{}' OR i.override_outputs IS NOT NULL)
          AND NOT EXISTS (SELECT FROM replay_marks AS marks WHERE marks.number = i.number)
          AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(origin, i.number) AS near))
        ON CONFLICT DO NOTHING;
        INSERT INTO yields (execution_id, place, number)
        SELECT replay, y.place, y.number FROM effective_yields(origin) AS y;
    END IF;
    IF leaves_out THEN
        INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, module, called)
        SELECT replay, i.number, i.position, i.invocation_id, i.name, i.kind, 'not_reached', i.module, false
        FROM replay_marks AS mark
        CROSS JOIN LATERAL shown_invocation(origin, mark.number) AS i
        WHERE mark.role = 'removed';
    END IF;
END
$$;

-- Creates a replay from the plan of this transaction, and returns its row; none comes back where the name or the request is
-- taken. The source must be as it was when `last_event` was its last.
--
-- The plan is in the temporary tables, or comes with `marks_*`. `done`: a pipeline of which nothing executes.
-- `limit_of_source`: numbers from there on are not of the source. `detached`: it has no ancestors. `body_route`: of a flow.
CREATE OR REPLACE FUNCTION create_replay(
    replay uuid, origin uuid, last_event bigint, project text, name text, flow text, kind text, module text,
    pinned_digest text, code_digest text, debug boolean, single_step boolean, requested_by text, request_id uuid,
    next_number integer, size integer, inputs bytea, done boolean, unfinished integer, result_binding bytea, about jsonb,
    limit_of_source integer, detached boolean, shaping_inputs text[], time_limit double precision, rank smallint,
    marks_numbers integer[], marks_roles text[], marks_overridden boolean[], artifact_ids uuid[], artifact_names text[],
    artifact_payloads bytea[], replaced integer[], new_outputs bytea[], pin_modules text[], pin_names text[],
    pin_digests text[], written replay_row[], added integer[], stale_readers text[], leaves_out boolean, body_route text
) RETURNS SETOF executions
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    made executions;
BEGIN
    IF marks_numbers IS NOT NULL THEN
        PERFORM store_marks(marks_numbers, marks_roles, marks_overridden);
    END IF;
    -- Others may replay it at the same time.
    PERFORM FROM executions AS e WHERE e.id = origin AND e.last_event = last_event FOR SHARE;
    IF NOT FOUND THEN
        RAISE serialization_failure USING MESSAGE = format('execution %s has changed while its replay was planned', origin);
    END IF;
    INSERT INTO executions (id, project, name, flow, kind, state, module, pinned_digest, code_digest, source_id, debug,
                            single_step, requested_by, request_id, next_number, invocation_count, unfinished, last_event,
                            started_at, finished_at, inputs, result_binding, replay, shaping_inputs, time_limit, deadline,
                            lane)
    VALUES (replay, project, name, flow, kind, CASE WHEN done THEN 'completed' ELSE 'pending' END, module, pinned_digest,
            code_digest, origin, debug, single_step, requested_by, request_id, next_number, size, unfinished,
            CASE WHEN done THEN 2 ELSE 1 END, CASE WHEN done THEN clock_timestamp() END,
            CASE WHEN done THEN clock_timestamp() END, inputs, result_binding, about, shaping_inputs, time_limit,
            clock_timestamp() + make_interval(secs => time_limit), rank)
    ON CONFLICT DO NOTHING
    RETURNING * INTO made;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO lineage (execution_id, depth, ancestor_id, number_limit)
    SELECT replay, 0, replay, 2147483647
    UNION ALL
    SELECT replay, l.depth + 1, l.ancestor_id,
           CASE l.depth WHEN 0 THEN limit_of_source ELSE least(l.number_limit, limit_of_source) END
    FROM lineage AS l WHERE l.execution_id = origin AND NOT detached;
    INSERT INTO events (execution_id, event, number, state) SELECT replay, 1, 0, 'pending';
    IF done THEN
        INSERT INTO events (execution_id, event, number, state) VALUES (replay, 2, 0, 'completed');
    END IF;
    IF artifact_ids <> '{}' THEN
        INSERT INTO artifacts (id, name, payload, created_by, execution_id)
        SELECT one.id, one.name, one.payload, requested_by, replay
        FROM unnest(artifact_ids, artifact_names, artifact_payloads) AS one (id, name, payload);
    END IF;
    PERFORM write_affected(
        replay, origin, kind = 'pipeline', replaced, new_outputs, pin_modules, pin_names, pin_digests, written, added);
    PERFORM write_reused(replay, origin, replaced, new_outputs, stale_readers, detached, leaves_out);
    INSERT INTO edges (execution_id, upstream, downstream)
    SELECT replay, u.number, i.number
    FROM invocations AS i CROSS JOIN LATERAL unnest(i.upstream) AS u (number)
    WHERE i.execution_id = replay
    ON CONFLICT DO NOTHING;
    IF kind = 'flow' THEN
        INSERT INTO tasks (execution_id, number, is_body, lane, route) VALUES (replay, 0, true, rank, body_route);
    ELSE
        INSERT INTO tasks (execution_id, number, is_body, lane, route, limited_by, at_most)
        SELECT replay, i.number, false, rank, task_route(project, i.module, i.name, i.pinned_digest), l.limited_by, l.at_most
        FROM invocations AS i CROSS JOIN LATERAL task_limit(project, i.options) AS l
        WHERE i.execution_id = replay AND i.state = 'pending' AND i.kind = 'step' AND i.blocked_by = 0
        ORDER BY i.number;
    END IF;
    RETURN NEXT made;
END
$$;
