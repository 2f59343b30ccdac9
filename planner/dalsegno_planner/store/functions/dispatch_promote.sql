-- Makes ready what is left of the consumers of a producer that has ended, a thousand at a time.
--
-- What is left is a task of no executor: its number is that of the producer, below zero, its epoch the number of the last
-- consumer that was told, and it is available at the end of time. So it goes wherever the tasks of its execution go, and any
-- planner goes on with it. Its lock keeps calls that are added meanwhile from being told of the producer twice, or never.
CREATE OR REPLACE FUNCTION dispatch_promote(OUT promoted integer)
LANGUAGE plpgsql AS $$
DECLARE
    work record;
    last integer;
BEGIN
    SELECT t.execution_id, -t.number AS producer, t.epoch AS last INTO work FROM tasks t
    WHERE t.available_at = 'infinity' AND t.number < 0
    LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    -- A statement of its own: it sees the edges that were added before the lock was there.
    WITH reached AS MATERIALIZED (
        SELECT x.downstream FROM edges x
        WHERE x.execution_id = work.execution_id AND x.upstream = work.producer AND x.downstream > work.last
        ORDER BY x.downstream LIMIT 1000
    ), locked AS MATERIALIZED (
        SELECT held.number
        FROM (SELECT * FROM reached r ORDER BY r.downstream) sorted
        CROSS JOIN LATERAL (
            SELECT i.number FROM invocations i
            WHERE i.execution_id = work.execution_id AND i.number = sorted.downstream AND i.state = 'pending' AND i.called
            FOR UPDATE OFFSET 0) held
    ), unblocked AS (
        UPDATE invocations i SET blocked_by = i.blocked_by - 1
        FROM locked WHERE i.execution_id = work.execution_id AND i.number = locked.number
        RETURNING i.execution_id, i.number, i.epoch, i.blocked_by, i.module, i.name, i.pinned_digest, i.options
    ), ready AS (
        INSERT INTO tasks (execution_id, number, epoch, is_body, lane, route, limited_by, at_most)
        SELECT u.execution_id, u.number, u.epoch, false, e.lane,
               task_route(e.project, u.module, u.name, u.pinned_digest), l.limited_by, l.at_most
        FROM unblocked u JOIN executions e ON e.id = u.execution_id CROSS JOIN LATERAL task_limit(e.project, u.options) l
        WHERE u.blocked_by = 0
        ON CONFLICT DO NOTHING
    )
    SELECT count(*), max(r.downstream) INTO promoted, last FROM reached r;

    IF promoted = 1000 THEN
        UPDATE tasks t SET epoch = last WHERE t.execution_id = work.execution_id AND t.number = -work.producer;
    ELSE
        DELETE FROM tasks t WHERE t.execution_id = work.execution_id AND t.number = -work.producer;
        -- All consumers may have ended without it.
        PERFORM FROM executions e WHERE e.id = work.execution_id FOR UPDATE;
        PERFORM dispatch_rest(ARRAY[work.execution_id]);
    END IF;
END
$$;
