-- Marks what comes after failed steps of a pipeline as not reached, a part at a time, so that a step with very many
-- descendants does not hold up all others when it fails.
--
-- What is left is kept as dispatch_promote keeps it, with a route of its own: each step that has not ended well and has
-- consumers that are still pending has a task of no executor. Its number is the step's, below zero, and its epoch that of
-- the last consumer that is dealt with. A step that is marked is marked in one transaction alone, and that one leaves its
-- task. Until then what is still pending cannot become ready, and its execution cannot end: it counts as unfinished.

-- How many steps one transaction marks.
CREATE OR REPLACE FUNCTION dispatch_part() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1000';

-- The consumers of a step, after one of them, that are pending; `goes_on` where what comes after these does not take an
-- override. Inlined where it is called in FROM; OFFSET 0 keeps the edges first, and each consumer a look-up by its key.
CREATE OR REPLACE FUNCTION pending_consumers(execution uuid, step integer, last integer)
RETURNS TABLE (number integer, goes_on boolean)
LANGUAGE sql STABLE AS $$
    SELECT i.number, i.goes_on
    FROM (SELECT x.downstream FROM edges x
          WHERE x.execution_id = execution AND x.upstream = step AND x.downstream > last
          ORDER BY x.downstream OFFSET 0) e
    CROSS JOIN LATERAL (
        SELECT x.number, x.override_outputs IS NULL AS goes_on FROM invocations x
        WHERE x.execution_id = execution AND x.number = e.downstream AND x.state = 'pending'
        OFFSET 0) i
    ORDER BY e.downstream
$$;

-- Marks a part of what comes after some steps of one execution, of which consumers up to `lasts` are dealt with, and says
-- whether anything is left.
CREATE OR REPLACE FUNCTION dispatch_mark(
    execution uuid, steps integer[], lasts integer[], OUT changes state_change[], OUT unfinished boolean)
LANGUAGE plpgsql AS $$
DECLARE
    addresses tid[];
    marked integer[];
BEGIN
    -- What is not pending has been marked by another, who has left a task where something comes after it.
    WITH RECURSIVE stopped (number, goes_on) AS (
        SELECT c.number, c.goes_on FROM unnest(steps, lasts) s (number, last)
        CROSS JOIN LATERAL pending_consumers(execution, s.number, s.last) c
        UNION
        SELECT c.number, c.goes_on FROM stopped s
        CROSS JOIN LATERAL pending_consumers(execution, s.number, 0) c
        WHERE s.goes_on
    )
    SELECT array_agg(held.address) INTO addresses
    FROM (SELECT part.number FROM (SELECT s.number FROM stopped s LIMIT dispatch_part()) part ORDER BY part.number) s
    CROSS JOIN LATERAL (
        SELECT i.ctid AS address FROM invocations i
        WHERE i.execution_id = execution AND i.number = s.number AND i.state = 'pending'
        FOR UPDATE OFFSET 0) held;

    -- A statement of its own: one that locks does not see the version of a row for which it has waited.
    WITH ended AS (
        UPDATE invocations i SET state = 'not_reached', finished_at = clock_timestamp() WHERE i.ctid = ANY (addresses)
        RETURNING i.number, i.override_outputs IS NULL AS goes_on
    )
    SELECT coalesce(array_agg((execution, e.number, 'not_reached', NULL)::state_change), '{}'),
           coalesce(array_agg(e.number) FILTER (WHERE e.goes_on), '{}')
    INTO changes, marked FROM ended e;

    -- Another one: it sees what has been marked.
    INSERT INTO tasks (execution_id, number, epoch, is_body, route, available_at)
    SELECT execution, -s.number, next.number - 1, false, 'unreached', 'infinity'
    FROM (SELECT * FROM unnest(steps, lasts) UNION ALL SELECT number, 0 FROM unnest(marked) m (number)) s (number, last)
    CROSS JOIN LATERAL (SELECT c.number FROM pending_consumers(execution, s.number, s.last) c LIMIT 1) next
    ON CONFLICT DO NOTHING;
    unfinished := FOUND;
END
$$;

-- Marks a part of what comes after steps of pipelines that have just failed.
CREATE OR REPLACE FUNCTION dispatch_mark_failed(failed task_result[], OUT changes state_change[], OUT unfinished boolean)
LANGUAGE plpgsql AS $$
DECLARE
    one record;
    part record;
BEGIN
    changes := '{}';
    unfinished := false;
    FOR one IN
        SELECT r.execution_id, array_agg(r.number) AS steps
        FROM unnest(failed) r
        JOIN executions e ON e.id = r.execution_id AND e.kind = 'pipeline'
        JOIN invocations i ON i.execution_id = r.execution_id AND i.number = r.number AND i.override_outputs IS NULL
        GROUP BY r.execution_id ORDER BY r.execution_id
    LOOP
        SELECT * INTO part FROM dispatch_mark(
            one.execution_id, one.steps, array_fill(0, ARRAY[cardinality(one.steps)]));
        changes := changes || part.changes;
        unfinished := unfinished OR part.unfinished;
    END LOOP;
END
$$;

-- Marks a part of what was left of one execution. Says how much that was, null where nothing was left of any, and which
-- execution has changed or ended.
CREATE OR REPLACE FUNCTION dispatch_mark_unreached(OUT marked integer, OUT changed uuid[], OUT moved uuid[])
LANGUAGE plpgsql AS $$
DECLARE
    home uuid;
    steps integer[];
    lasts integer[];
    changes state_change[];
BEGIN
    SELECT t.execution_id INTO home FROM tasks t
    WHERE t.available_at = 'infinity' AND t.number < 0 AND t.route = 'unreached'
    LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    WITH taken AS (
        DELETE FROM tasks t WHERE t.ctid = ANY (ARRAY(
            SELECT x.ctid FROM tasks x
            WHERE x.execution_id = home AND x.number < 0 AND x.route = 'unreached'
            ORDER BY x.number DESC LIMIT dispatch_part() FOR UPDATE SKIP LOCKED))
        RETURNING -t.number AS number, t.epoch
    )
    SELECT array_agg(t.number), array_agg(t.epoch) INTO steps, lasts FROM taken t;

    SELECT m.changes INTO changes FROM dispatch_mark(home, steps, lasts) m;
    marked := cardinality(changes);
    IF marked > 0 THEN
        SELECT s.changed, s.ended INTO changed, moved FROM dispatch_settle(changes) s;
    END IF;
END
$$;
