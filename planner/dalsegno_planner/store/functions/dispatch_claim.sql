-- Where a task may go: executors announce routes, tasks carry one.
CREATE OR REPLACE FUNCTION task_route(project text, module text, name text, pinned_digest text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT project || '/' || module || ':' || name || CASE pinned_digest WHEN '' THEN '' ELSE '@' || pinned_digest END
$$;

-- Claims ready tasks for sessions, within their credit, oldest first.
CREATE OR REPLACE FUNCTION dispatch_claim(claims claim[], OUT tasks claimed_task[])
LANGUAGE plpgsql AS $$
DECLARE
    wanted claim;
    picked task_token[] := '{}';
    more task_token[];
BEGIN
    FOREACH wanted IN ARRAY claims LOOP
        WITH session AS (
            -- Locked until this is committed: who ends or reopens the session meanwhile finds what is claimed here.
            SELECT s.id FROM sessions s
            WHERE s.id = wanted.session_id AND s.generation = wanted.generation
            FOR SHARE
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
        e.invocation_count, e.next_number, e.replay::text, i.attempts_before
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
