-- What an execution shows of one number. Both are inlined where they are called in FROM.
--
-- OFFSET 0 keeps the order of the joins: the lineage first, the nearest entry first of all, and each row by its whole key.
-- Otherwise planners come to think that rows of that number in all executions are few.

CREATE FUNCTION shown_invocation(execution uuid, wanted integer) RETURNS SETOF invocations
LANGUAGE sql STABLE AS $$
    SELECT i.*
    FROM lineage AS l
    CROSS JOIN LATERAL (
        SELECT x.* FROM invocations AS x
        WHERE x.execution_id = l.ancestor_id AND x.number = wanted AND x.number < l.number_limit
        OFFSET 0
    ) AS i
    WHERE l.execution_id = execution
    ORDER BY l.depth LIMIT 1
$$;

-- How far away the row is that is shown.
CREATE FUNCTION shown_depth(execution uuid, wanted integer) RETURNS TABLE (depth smallint)
LANGUAGE sql STABLE AS $$
    SELECT l.depth
    FROM lineage AS l
    CROSS JOIN LATERAL (
        SELECT FROM invocations AS x
        WHERE x.execution_id = l.ancestor_id AND x.number = wanted AND x.number < l.number_limit
        OFFSET 0
    ) AS i
    WHERE l.execution_id = execution
    ORDER BY l.depth LIMIT 1
$$;
