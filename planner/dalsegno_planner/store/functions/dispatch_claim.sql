-- Where a task may go: executors announce routes, tasks carry one.
CREATE OR REPLACE FUNCTION task_route(project text, module text, name text, pinned_digest text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT project || '/' || module || ':' || name || CASE pinned_digest WHEN '' THEN '' ELSE '@' || pinned_digest END
$$;

-- Claims tasks of one rank for one session, up to `quota`: of each execution the same number, beginning with those after
-- `last_turn`. Returns also how many each was allowed; one that had fewer has no more.
CREATE OR REPLACE FUNCTION dispatch_take(
    wanted claim, bodies boolean, rank smallint, last_turn uuid, quota integer,
    OUT taken task_token[], OUT share integer)
LANGUAGE plpgsql AS $$
BEGIN
    WITH RECURSIVE session AS (
        -- Locked until this is committed: who ends or reopens the session meanwhile finds what is claimed here.
        SELECT s.id FROM sessions s WHERE s.id = wanted.session_id AND s.generation = wanted.generation
        FOR SHARE
    ), skip AS (
        -- Routes with ready work, by skipping from one to the next; then those that the session has.
        (SELECT t.route FROM ready_tasks t WHERE t.is_body = bodies AND t.lane = rank
         ORDER BY t.route LIMIT 1)
        UNION ALL
        SELECT (SELECT t.route FROM ready_tasks t
                WHERE t.is_body = bodies AND t.lane = rank AND t.route > skip.route
                ORDER BY t.route LIMIT 1)
        FROM skip WHERE skip.route IS NOT NULL
    ), queue AS MATERIALIZED (
        SELECT skip.route, turn.execution_id
        FROM skip CROSS JOIN LATERAL (
            -- In the same way, executions: first those after the last turn, then, wrapped around, those up to it.
            WITH RECURSIVE next AS (
                SELECT (SELECT t.execution_id FROM ready_tasks t
                        WHERE t.is_body = bodies AND t.lane = rank AND t.route = skip.route
                          AND t.execution_id > last_turn ORDER BY t.execution_id LIMIT 1) AS execution_id,
                       false AS wrapped, 1 AS place
                UNION ALL
                SELECT CASE
                       WHEN n.execution_id IS NULL THEN
                           (SELECT t.execution_id FROM ready_tasks t
                            WHERE t.is_body = bodies AND t.lane = rank AND t.route = skip.route
                              AND t.execution_id <= last_turn ORDER BY t.execution_id LIMIT 1)
                       WHEN n.wrapped THEN
                           (SELECT t.execution_id FROM ready_tasks t
                            WHERE t.is_body = bodies AND t.lane = rank AND t.route = skip.route
                              AND t.execution_id > n.execution_id AND t.execution_id <= last_turn
                            ORDER BY t.execution_id LIMIT 1)
                       ELSE
                           (SELECT t.execution_id FROM ready_tasks t
                            WHERE t.is_body = bodies AND t.lane = rank AND t.route = skip.route
                              AND t.execution_id > n.execution_id ORDER BY t.execution_id LIMIT 1)
                       END,
                       n.wrapped OR n.execution_id IS NULL, n.place + 1
                FROM next n
                WHERE n.place <= quota AND NOT (n.wrapped AND n.execution_id IS NULL)
            )
            SELECT next.execution_id FROM next WHERE next.execution_id IS NOT NULL OFFSET 0) turn
        WHERE skip.route = ANY (wanted.routes)
        ORDER BY turn.execution_id <= last_turn, turn.execution_id
        LIMIT quota
    ), each AS MATERIALIZED (
        SELECT (quota + count(*) - 1) / greatest(count(*), 1) AS share FROM queue
    ), candidates AS (
        SELECT c.address
        FROM each CROSS JOIN queue CROSS JOIN LATERAL (
            SELECT t.address FROM ready_tasks t
            WHERE t.is_body = bodies AND t.lane = rank AND t.route = queue.route
              AND t.execution_id = queue.execution_id
            ORDER BY t.number
            LIMIT each.share FOR UPDATE SKIP LOCKED) c
        LIMIT quota
    ), leased AS (
        UPDATE tasks t SET session_id = session.id, epoch = t.epoch + 1, running = false
        FROM candidates c, session
        WHERE t.ctid = c.address
        RETURNING t.execution_id, t.number, t.epoch, t.session_id
    )
    SELECT array_agg((l.execution_id, l.number, l.epoch, l.session_id)::task_token), (SELECT e.share FROM each e)
    INTO taken, share FROM leased l;
END
$$;

-- Claims ready tasks for sessions, within their credit: those of the lowest rank first, of each rank in turn.
CREATE OR REPLACE FUNCTION dispatch_claim(claims claim[], OUT tasks claimed_task[])
LANGUAGE plpgsql AS $$
DECLARE
    wanted claim;
    bodies boolean;
    quota integer;
    rank smallint;
    last_turn uuid;
    more task_token[];
    share integer;
    picked task_token[] := '{}';
BEGIN
    FOREACH wanted IN ARRAY claims LOOP
        FOREACH bodies IN ARRAY '{true,false}'::boolean[] LOOP
            quota := CASE WHEN bodies THEN wanted.bodies ELSE wanted.steps END;
            last_turn := CASE WHEN bodies THEN wanted.last_body ELSE wanted.last_step END;
            rank := wanted.lowest - 1;
            share := NULL;
            WHILE quota > 0 LOOP
                -- Of a rank that had more than its share there may be some left.
                IF share IS NULL THEN
                    SELECT t.lane INTO rank FROM ready_tasks t
                    WHERE t.is_body = bodies AND t.lane > rank AND t.lane <= wanted.highest
                    ORDER BY t.lane LIMIT 1;
                    EXIT WHEN rank IS NULL;
                END IF;
                SELECT * INTO more, share FROM dispatch_take(wanted, bodies, rank, last_turn, quota);
                picked := picked || coalesce(more, '{}');
                quota := quota - coalesce(cardinality(more), 0);
                IF coalesce(cardinality(more), 0) < share OR more IS NULL THEN
                    share := NULL;
                END IF;
            END LOOP;
        END LOOP;
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
        e.invocation_count, e.next_number, e.replay::text, i.attempts_before, e.lane
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
