-- Where a task may go: executors announce routes, tasks carry one.
CREATE OR REPLACE FUNCTION task_route(project text, module text, name text, pinned_digest text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT project || '/' || module || ':' || name || CASE pinned_digest WHEN '' THEN '' ELSE '@' || pinned_digest END
$$;

-- Claims tasks of one rank for one session, up to `quota`: of each execution the same number, beginning with those after
-- `last_turn`. Returns also how many each was allowed (one that had fewer has no more), whether some of it is limited, and
-- whether there is work under a limit that somebody else leases from at this moment.
CREATE OR REPLACE FUNCTION dispatch_take(
    wanted claim, bodies boolean, rank smallint, last_turn uuid, quota integer,
    OUT taken task_token[], OUT share integer, OUT limited boolean, OUT busy boolean)
LANGUAGE plpgsql AS $$
BEGIN
    WITH RECURSIVE session AS (
        -- Locked until this is committed: who ends or reopens the session meanwhile finds what is claimed here.
        SELECT s.id FROM sessions s WHERE s.id = wanted.session_id AND s.generation = wanted.generation
        FOR SHARE
    ), skip AS (
        -- Routes with ready work, and the limits of each, by skipping from one to the next; then those that the session
        -- has, and that there is room for.
        (SELECT t.route, t.limited_by, t.at_most FROM ready_tasks t
         WHERE t.is_body = bodies AND t.lane = rank
         ORDER BY t.route, t.limited_by, t.at_most LIMIT 1)
        UNION ALL
        SELECT following.* FROM skip CROSS JOIN LATERAL (
            SELECT t.route, t.limited_by, t.at_most FROM ready_tasks t
            WHERE t.is_body = bodies AND t.lane = rank
              AND (t.route, t.limited_by, t.at_most) > (skip.route, skip.limited_by, skip.at_most)
            ORDER BY t.route, t.limited_by, t.at_most LIMIT 1) following
    ), open AS MATERIALIZED (
        SELECT skip.*, CASE skip.limited_by WHEN '' THEN quota ELSE limit_room(skip.limited_by, skip.at_most) END AS room
        FROM skip WHERE skip.route = ANY (wanted.routes)
    ), queue AS MATERIALIZED (
        SELECT open.*, turn.execution_id
        FROM open CROSS JOIN LATERAL (
            -- In the same way, executions: first those after the last turn, then, wrapped around, those up to it. Rows are
            -- compared, here and below, where columns are equal, because that is of use to no other index: one that is no
            -- larger seems as good while the table is empty, and its plans are kept.
            WITH RECURSIVE next AS (
                SELECT last_turn AS execution_id, false AS wrapped, 0 AS place
                UNION ALL
                SELECT (SELECT t.execution_id FROM ready_tasks t
                        WHERE t.is_body = bodies AND t.lane = rank AND t.route = open.route
                          AND (t.limited_by, t.at_most, t.execution_id) > (
                              open.limited_by, open.at_most,
                              coalesce(n.execution_id, '00000000-0000-0000-0000-000000000000'))
                          AND (t.limited_by, t.at_most, t.execution_id) <= (
                              open.limited_by, open.at_most,
                              CASE WHEN n.wrapped OR n.execution_id IS NULL THEN last_turn
                                   ELSE 'ffffffff-ffff-ffff-ffff-ffffffffffff' END)
                        ORDER BY t.limited_by, t.at_most, t.execution_id LIMIT 1),
                       n.wrapped OR n.execution_id IS NULL, n.place + 1
                FROM next n
                WHERE n.place <= quota AND NOT (n.wrapped AND n.execution_id IS NULL)
            )
            SELECT next.execution_id FROM next WHERE next.place > 0 AND next.execution_id IS NOT NULL OFFSET 0) turn
        WHERE open.room > 0
        ORDER BY turn.execution_id <= last_turn, turn.execution_id
        LIMIT quota
    ), each AS MATERIALIZED (
        SELECT (quota + count(*) - 1) / greatest(count(*), 1) AS share FROM queue
    ), candidates AS (
        SELECT c.address
        FROM each CROSS JOIN queue CROSS JOIN LATERAL (
            SELECT t.address FROM ready_tasks t
            WHERE t.is_body = bodies AND t.lane = rank AND t.route = queue.route
              AND (t.limited_by, t.at_most, t.execution_id) >= (queue.limited_by, queue.at_most, queue.execution_id)
              AND (t.limited_by, t.at_most, t.execution_id) <= (queue.limited_by, queue.at_most, queue.execution_id)
            ORDER BY t.limited_by, t.at_most, t.execution_id, t.number
            LIMIT each.share FOR UPDATE SKIP LOCKED) c
        WHERE queue.limited_by = ''
        UNION ALL
        -- Of one limit several routes and executions may have work: together they have as much room as there is.
        SELECT counted.address
        FROM (
            SELECT c.address, queue.room, row_number() OVER (PARTITION BY queue.limited_by) AS place
            FROM each CROSS JOIN queue CROSS JOIN LATERAL (
                SELECT t.address FROM ready_tasks t
                WHERE t.is_body = bodies AND t.lane = rank AND t.route = queue.route
                  AND (t.limited_by, t.at_most, t.execution_id) >= (queue.limited_by, queue.at_most, queue.execution_id)
                  AND (t.limited_by, t.at_most, t.execution_id) <= (queue.limited_by, queue.at_most, queue.execution_id)
                ORDER BY t.limited_by, t.at_most, t.execution_id, t.number
                LIMIT least(each.share, queue.room) FOR UPDATE SKIP LOCKED) c
            WHERE queue.limited_by <> '') counted
        WHERE counted.place <= counted.room
        LIMIT quota
    ), leased AS (
        UPDATE tasks t SET session_id = session.id, epoch = t.epoch + 1, running = false
        FROM candidates c, session
        WHERE t.ctid = c.address
        RETURNING t.execution_id, t.number, t.epoch, t.session_id
    )
    SELECT array_agg((l.execution_id, l.number, l.epoch, l.session_id)::task_token), (SELECT e.share FROM each e),
           (SELECT bool_or(q.limited_by <> '') FROM queue q), (SELECT bool_or(o.room IS NULL) FROM open o)
    INTO taken, share, limited, busy FROM leased l;
END
$$;

-- Claims ready tasks for sessions, within their credit: those of the lowest rank first, of each rank in turn. Says also
-- whether there was more that others were about to claim from.
CREATE OR REPLACE FUNCTION dispatch_claim(claims claim[], OUT tasks claimed_task[], OUT busy boolean)
LANGUAGE plpgsql AS $$
DECLARE
    wanted claim;
    bodies boolean;
    quota integer;
    rank smallint;
    last_turn uuid;
    more task_token[];
    share integer;
    limited boolean;
    contended boolean;
    picked task_token[] := '{}';
BEGIN
    busy := false;
    FOREACH wanted IN ARRAY claims LOOP
        FOREACH bodies IN ARRAY '{true,false}'::boolean[] LOOP
            quota := CASE WHEN bodies THEN wanted.bodies ELSE wanted.steps END;
            last_turn := CASE WHEN bodies THEN wanted.last_body ELSE wanted.last_step END;
            rank := wanted.lowest - 1;
            share := NULL;
            WHILE quota > 0 LOOP
                -- Of a rank that had more than its share there may be some left; so there may where a limit has cut shares.
                IF share IS NULL THEN
                    SELECT t.lane INTO rank FROM ready_tasks t
                    WHERE t.is_body = bodies AND t.lane > rank AND t.lane <= wanted.highest
                    ORDER BY t.lane LIMIT 1;
                    EXIT WHEN rank IS NULL;
                END IF;
                SELECT * INTO more, share, limited, contended
                FROM dispatch_take(wanted, bodies, rank, last_turn, quota);
                busy := busy OR coalesce(contended, false);
                picked := picked || coalesce(more, '{}');
                quota := quota - coalesce(cardinality(more), 0);
                IF more IS NULL OR (cardinality(more) < share AND NOT limited) THEN
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
