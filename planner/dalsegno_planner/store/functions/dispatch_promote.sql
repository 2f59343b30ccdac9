-- Makes ready what is left of the consumers of a producer that has ended, a thousand at a time.
--
-- What is left is a task of no executor: its number is that of the producer, below zero, its epoch the number of the last
-- consumer that was told, and it is available at the end of time. So it goes wherever the tasks of its execution go, and any
-- planner goes on with it. Its lock keeps calls that are added meanwhile from being told of the producer twice, or never.
CREATE OR REPLACE FUNCTION dispatch_promote(OUT promoted integer)
LANGUAGE plpgsql AS $$
DECLARE
    work record;
    consumers integer[];
BEGIN
    SELECT t.execution_id, -t.number AS producer, t.epoch AS last INTO work FROM tasks t
    WHERE t.available_at = 'infinity' AND t.number < 0 AND t.route = ''
    LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    -- A statement of its own: it sees the edges that were added before the lock was there.
    consumers := ARRAY(
        SELECT x.downstream FROM edges x
        WHERE x.execution_id = work.execution_id AND x.upstream = work.producer AND x.downstream > work.last
        ORDER BY x.downstream LIMIT 1000);
    promoted := cardinality(consumers);
    PERFORM dispatch_release(array_fill(work.execution_id, ARRAY[promoted]), consumers);

    IF promoted = 1000 THEN
        UPDATE tasks t SET epoch = consumers[1000] WHERE t.execution_id = work.execution_id AND t.number = -work.producer;
    ELSE
        DELETE FROM tasks t WHERE t.execution_id = work.execution_id AND t.number = -work.producer;
        -- All consumers may have ended without it.
        PERFORM FROM executions e WHERE e.id = work.execution_id FOR UPDATE;
        PERFORM dispatch_rest(ARRAY[work.execution_id]);
    END IF;
END
$$;
