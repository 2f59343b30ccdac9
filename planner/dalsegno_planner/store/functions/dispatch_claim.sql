-- Claims: which ready tasks an executor's session gets, and what it has to know of them.
--
-- Ready work is found by probes of its index, some 5 µs each. Rows are compared, below, where columns are equal, because that
-- is of use to no other index: one that is no larger seems as good while the table is empty, and its plans are kept.

-- Leases tasks of one kind and rank, up to `quota`: of each execution the same number, beginning with those after
-- `last_turn`. Says whether there is no more for this session, and whether there is work under a limit that somebody else
-- leases from at this moment.
CREATE OR REPLACE FUNCTION dispatch_take(
    wanted claim, bodies boolean, rank smallint, last_turn uuid, quota integer,
    OUT taken task_token[], OUT exhausted boolean, OUT busy boolean)
LANGUAGE plpgsql AS $$
DECLARE
    here_route text := '';
    here_limit text := '';
    here_most integer := -1;
    room integer;
    execution uuid;
    wrapped boolean;
    routes text[] := '{}';
    limits text[] := '{}';
    mosts integer[] := '{}';
    executions uuid[] := '{}';
    share integer;
    limited boolean := false;
    turn record;
    token task_token;
BEGIN
    taken := '{}';
    busy := false;
    LOOP
        -- Routes with ready work, and the limits of each, by skipping from one to the next.
        SELECT t.route, t.limited_by, t.at_most INTO here_route, here_limit, here_most FROM ready_tasks t
        WHERE t.is_body = bodies AND t.lane = rank
          AND (t.route, t.limited_by, t.at_most) > (here_route, here_limit, here_most)
        ORDER BY t.route, t.limited_by, t.at_most LIMIT 1;
        EXIT WHEN NOT FOUND;
        CONTINUE WHEN NOT here_route = ANY (wanted.routes);
        IF here_limit <> '' THEN
            room := limit_room(here_limit, here_most);
            busy := busy OR room IS NULL;
            CONTINUE WHEN coalesce(room, 0) <= 0;
            limited := true;
        END IF;
        -- In the same way, executions: first those after the last turn, then, wrapped around, those up to it.
        execution := last_turn;
        wrapped := false;
        FOR place IN 0..quota LOOP
            SELECT t.execution_id INTO execution FROM ready_tasks t
            WHERE t.is_body = bodies AND t.lane = rank AND t.route = here_route
              AND (t.limited_by, t.at_most, t.execution_id) > (here_limit, here_most, execution)
              AND (t.limited_by, t.at_most, t.execution_id) <= (
                  here_limit, here_most,
                  CASE WHEN wrapped THEN last_turn ELSE 'ffffffff-ffff-ffff-ffff-ffffffffffff' END)
            ORDER BY t.limited_by, t.at_most, t.execution_id LIMIT 1;
            IF FOUND THEN
                routes := routes || here_route;
                limits := limits || here_limit;
                mosts := mosts || here_most;
                executions := executions || execution;
            ELSE
                EXIT WHEN wrapped;
                wrapped := true;
                execution := '00000000-0000-0000-0000-000000000000';
            END IF;
        END LOOP;
    END LOOP;

    share := (quota + cardinality(executions) - 1) / greatest(least(cardinality(executions), quota), 1);
    FOR turn IN
        SELECT * FROM unnest(routes, limits, mosts, executions) q(route, limited_by, at_most, execution)
        ORDER BY q.execution <= last_turn, q.execution LIMIT quota
    LOOP
        room := least(share, quota - cardinality(taken));
        IF turn.limited_by <> '' THEN
            -- Several routes and executions may have work under one limit: what was leased just now is counted.
            room := least(room, coalesce(limit_room(turn.limited_by, turn.at_most), 0));
        END IF;
        FOR token IN
            UPDATE tasks t SET session_id = wanted.session_id, epoch = t.epoch + 1, running = false
            WHERE t.ctid = ANY (ARRAY(
                SELECT r.address FROM ready_tasks r
                WHERE r.is_body = bodies AND r.lane = rank AND r.route = turn.route
                  AND (r.limited_by, r.at_most, r.execution_id) >= (turn.limited_by, turn.at_most, turn.execution)
                  AND (r.limited_by, r.at_most, r.execution_id) <= (turn.limited_by, turn.at_most, turn.execution)
                ORDER BY r.limited_by, r.at_most, r.execution_id, r.number
                LIMIT room FOR UPDATE SKIP LOCKED))
            RETURNING t.execution_id, t.number, t.epoch, t.session_id
        LOOP
            taken := taken || token;
        END LOOP;
        EXIT WHEN cardinality(taken) = quota;
    END LOOP;
    -- An execution that had fewer than its share has no more; where a limit has cut shares, others may.
    exhausted := taken = '{}' OR (cardinality(taken) < share AND NOT limited);
END
$$;

-- Leases tasks of one kind for a session, within its credit: those of the lowest rank first, of each rank in turn.
CREATE OR REPLACE FUNCTION dispatch_pick(
    wanted claim, bodies boolean, quota integer, last_turn uuid, OUT picked task_token[], OUT busy boolean)
LANGUAGE plpgsql AS $$
DECLARE
    ready integer;
    limited boolean;
    rank smallint := wanted.lowest - 1;
    exhausted boolean := true;
    contended boolean;
    token task_token;
    more task_token[];
BEGIN
    picked := '{}';
    busy := false;
    SELECT count(*), bool_or(t.limited_by <> '') INTO ready, limited FROM (
        SELECT r.limited_by FROM ready_tasks r
        WHERE r.is_body = bodies AND r.lane >= wanted.lowest AND r.lane <= wanted.highest
        LIMIT quota + 1) t;
    IF ready <= quota AND NOT limited THEN
        -- All that it may have: then whose turn it is does not matter. The index is not asked for each route of the session.
        FOR token IN
            UPDATE tasks t SET session_id = wanted.session_id, epoch = t.epoch + 1, running = false
            WHERE t.ctid = ANY (ARRAY(
                SELECT r.address FROM ready_tasks r
                WHERE r.is_body = bodies AND r.lane >= wanted.lowest AND r.lane <= wanted.highest
                  AND r.limited_by = '' AND r.route || '' = ANY (wanted.routes)
                LIMIT quota FOR UPDATE SKIP LOCKED))
            RETURNING t.execution_id, t.number, t.epoch, t.session_id
        LOOP
            picked := picked || token;
        END LOOP;
        RETURN;
    END IF;

    WHILE ready > 0 AND cardinality(picked) < quota LOOP
        IF exhausted THEN
            SELECT t.lane INTO rank FROM ready_tasks t
            WHERE t.is_body = bodies AND t.lane > rank AND t.lane <= wanted.highest
            ORDER BY t.lane LIMIT 1;
            EXIT WHEN NOT FOUND;
        END IF;
        SELECT * INTO more, exhausted, contended
        FROM dispatch_take(wanted, bodies, rank, last_turn, quota - cardinality(picked));
        picked := picked || more;
        busy := busy OR contended;
    END LOOP;
END
$$;

-- How many bytes a task may carry of what its step takes. What is more than that is left out, so that the step fails, and
-- not every claim that comes to it: Postgres returns no more than a gigabyte.
CREATE OR REPLACE FUNCTION dispatch_most_of_a_task() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 134217728';

-- The outputs of the invocations that one reads, of those that the execution shows, as their consumers receive them.
CREATE OR REPLACE FUNCTION dispatch_upstream(
    execution uuid, upstream integer[], after integer[], OUT numbers integer[], OUT outputs bytea[])
LANGUAGE plpgsql AS $$
DECLARE
    producer integer;
    output bytea;
    size bigint := 0;
BEGIN
    FOREACH producer IN ARRAY upstream LOOP
        CONTINUE WHEN producer = ANY (after);
        SELECT coalesce(i.override_outputs, i.outputs) INTO output FROM invocations i
        WHERE i.execution_id = execution AND i.number = producer;
        IF NOT FOUND THEN
            SELECT coalesce(i.override_outputs, i.outputs) INTO output FROM shown_invocation(execution, producer) i;
        END IF;
        size := size + coalesce(octet_length(output), 0);
        numbers := numbers || producer;
        outputs := outputs || CASE WHEN size <= dispatch_most_of_a_task() THEN output END;
    END LOOP;
END
$$;

-- How many bytes the tasks that one commit claims may carry, unless one alone carries more: all are in memory at once, here
-- and in the planner.
CREATE OR REPLACE FUNCTION dispatch_most_of_a_claim() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 16777216';

-- Claims ready tasks for sessions, within their credit and as much as fits in. Says also whether there is more: others were
-- about to claim from it, or it did not fit in.
CREATE OR REPLACE FUNCTION dispatch_claim(claims claim[], OUT tasks claimed_task[], OUT busy boolean)
LANGUAGE plpgsql AS $$
DECLARE
    wanted claim;
    picked task_token[] := '{}';
    more task_token[];
    contended boolean;
    some_bodies boolean := false;
    one record;
    task claimed_task;
    size bigint := 0;
    starting uuid[] := '{}';
    too_many task_token[] := '{}';
BEGIN
    busy := false;
    FOREACH wanted IN ARRAY claims LOOP
        -- Locked until this is committed: who ends or reopens the session meanwhile finds what is claimed here.
        PERFORM FROM sessions s WHERE s.id = wanted.session_id AND s.generation = wanted.generation FOR SHARE;
        CONTINUE WHEN NOT FOUND;
        IF wanted.bodies > 0 THEN
            SELECT * INTO more, contended FROM dispatch_pick(wanted, true, wanted.bodies, wanted.last_body);
            picked := picked || more;
            some_bodies := some_bodies OR more <> '{}';
            busy := busy OR contended;
        END IF;
        IF wanted.steps > 0 THEN
            SELECT * INTO more, contended FROM dispatch_pick(wanted, false, wanted.steps, wanted.last_step);
            picked := picked || more;
            busy := busy OR contended;
        END IF;
    END LOOP;
    IF picked = '{}' THEN
        RETURN;
    END IF;

    -- The lock orders the claim of a body against results of calls that an earlier body submitted: they either find
    -- this claim, or are found when the recorded calls are read.
    IF some_bodies THEN
        PERFORM FROM executions e
        WHERE e.id IN (SELECT p.execution_id FROM unnest(picked) p WHERE p.number = 0)
        ORDER BY e.id FOR UPDATE;
    END IF;

    FOR one IN
        SELECT (p.session_id, p.execution_id, p.number, p.epoch, e.project,
                coalesce(i.module, e.module), coalesce(i.name, e.flow), coalesce(i.pinned_digest, e.pinned_digest),
                i.invocation_id, i.inputs, CASE WHEN p.number = 0 OR i.reads_inputs <> '{}' THEN e.inputs END,
                i.options, i.attempt + 1, NULL, NULL, e.invocation_count, e.next_number, e.replay::text,
                i.attempts_before, e.lane)::claimed_task AS task,
               i.upstream, i.after, e.state, p::task_token AS token
        FROM unnest(picked) p
        JOIN executions e ON e.id = p.execution_id
        LEFT JOIN invocations i ON i.execution_id = p.execution_id AND i.number = p.number
    LOOP
        IF size > dispatch_most_of_a_claim() THEN
            too_many := too_many || one.token;
            CONTINUE;
        END IF;
        task := one.task;
        size := size + coalesce(octet_length(task.inputs), 0) + coalesce(octet_length(task.flow_inputs), 0);
        IF one.upstream <> '{}' THEN
            SELECT u.numbers, u.outputs INTO task.upstream, task.upstream_outputs
            FROM dispatch_upstream(task.execution_id, one.upstream, one.after) u;
            size := size + coalesce(pg_column_size(task.upstream_outputs), 0);
        END IF;
        tasks := tasks || task;
        IF one.state = 'pending' THEN
            starting := starting || task.execution_id;
        END IF;
    END LOOP;

    IF too_many <> '{}' THEN
        busy := true;
        UPDATE tasks t SET session_id = NULL
        WHERE t.ctid = ANY (ARRAY(
            SELECT held.address FROM unnest(too_many) m
            CROSS JOIN LATERAL (
                SELECT x.ctid AS address FROM tasks x
                WHERE x.execution_id = m.execution_id AND x.number = m.number OFFSET 0) held));
    END IF;

    IF starting <> '{}' THEN
        WITH begun AS (
            SELECT e.id FROM executions e
            -- Written so that the index of open executions does not apply: it has all that are queued.
            WHERE e.id = ANY (starting) AND (e.state = 'pending') IS TRUE
            ORDER BY e.id FOR UPDATE
        ), updated AS (
            UPDATE executions e
            SET state = 'running', started_at = clock_timestamp(), last_event = e.last_event + 1
            FROM begun WHERE e.id = begun.id RETURNING e.id, e.last_event
        )
        INSERT INTO events (execution_id, event, number, state) SELECT u.id, u.last_event, 0, 'running' FROM updated u;
    END IF;
END
$$;
