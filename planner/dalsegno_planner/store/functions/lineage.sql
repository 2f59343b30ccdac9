-- Reading through a lineage: which row of a number an execution shows.

-- The rows that an execution shows: its own, and those of its ancestors that no nearer row hides.
CREATE OR REPLACE FUNCTION effective_invocations(execution uuid) RETURNS SETOF invocations
LANGUAGE sql STABLE AS $$
    SELECT i.*
    FROM lineage l
    JOIN invocations i ON i.execution_id = l.ancestor_id AND i.number < l.number_limit
    WHERE l.execution_id = execution
      AND NOT EXISTS (
          SELECT FROM lineage n
          CROSS JOIN LATERAL (
              SELECT FROM invocations h
              WHERE h.execution_id = n.ancestor_id AND h.number = i.number AND h.number < n.number_limit OFFSET 0) h
          WHERE n.execution_id = execution AND n.depth < l.depth)
$$;

-- What an execution shows of one number. This and the functions below are inlined where they are called in FROM.
--
-- OFFSET 0 keeps the order of the joins: the lineage first, the nearest entry first of all, and each row by its whole key.
-- Otherwise planners come to think that rows of that number in all executions are few.
CREATE OR REPLACE FUNCTION shown_invocation(execution uuid, wanted integer) RETURNS SETOF invocations
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
CREATE OR REPLACE FUNCTION shown_depth(execution uuid, wanted integer) RETURNS TABLE (depth smallint)
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

-- The calls that an execution shows: no rows that a nearer one hides, and no tombstones. The check for a nearer row is a
-- scalar subquery, which cannot become a join over everything, and an execution's own rows (depth 0) need none: then the
-- cost is that of the rows that are asked for.
--
-- Who looks for some of them by an index says all of this himself, with his condition beside those of the look-up: behind
-- OFFSET 0 no index would serve it. A function for the check alone would not be inlined, for its subquery.
CREATE OR REPLACE FUNCTION shown_calls(execution uuid) RETURNS SETOF invocations
LANGUAGE sql STABLE AS $$
    SELECT i.*
    FROM lineage
    CROSS JOIN LATERAL (
        SELECT row.* FROM invocations AS row
        WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit
        OFFSET 0
    ) AS i
    WHERE lineage.execution_id = execution
      AND (i.called OR i.state <> 'not_reached')
      AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, i.number) AS near))
$$;

-- Those of one step or wait; `name >= ''` lets a query use the index of names.
CREATE OR REPLACE FUNCTION shown_calls_of(execution uuid, wanted text) RETURNS SETOF invocations
LANGUAGE sql STABLE AS $$
    SELECT i.*
    FROM lineage
    CROSS JOIN LATERAL (
        SELECT row.* FROM invocations AS row
        WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit
          AND row.name = wanted AND row.name >= ''
        OFFSET 0
    ) AS i
    WHERE lineage.execution_id = execution
      AND (i.called OR i.state <> 'not_reached')
      AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, i.number) AS near))
$$;

-- At which places `as_completed` gave the body futures: those of the execution, and those of its ancestors that no nearer
-- row hides.
CREATE OR REPLACE FUNCTION effective_yields(execution uuid) RETURNS TABLE (place integer, number integer)
LANGUAGE sql STABLE AS $$
    SELECT y.place, y.number
    FROM lineage l
    JOIN yields y ON y.execution_id = l.ancestor_id AND y.number < l.number_limit
    WHERE l.execution_id = execution
      AND NOT EXISTS (
          SELECT FROM lineage n
          CROSS JOIN LATERAL (
              SELECT FROM yields h
              WHERE h.execution_id = n.ancestor_id AND h.place = y.place AND h.number < n.number_limit OFFSET 0) h
          WHERE n.execution_id = execution AND n.depth < l.depth)
$$;

-- The distinct names of steps and waits, by skipping from one to the next; `name >= ''` lets it use the index of names.
CREATE OR REPLACE FUNCTION step_names(execution uuid, most integer) RETURNS TABLE (name text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT DISTINCT names.name
    FROM lineage
    CROSS JOIN LATERAL (
        WITH RECURSIVE skip AS (
            (SELECT i.name FROM invocations AS i
             WHERE i.execution_id = lineage.ancestor_id AND i.name >= '' ORDER BY i.name LIMIT 1)
            UNION ALL
            SELECT (SELECT i.name FROM invocations AS i
                    WHERE i.execution_id = lineage.ancestor_id AND i.name >= '' AND i.name > skip.name
                    ORDER BY i.name LIMIT 1)
            FROM skip WHERE skip.name IS NOT NULL
        )
        SELECT skip.name FROM skip WHERE skip.name IS NOT NULL LIMIT most
    ) AS names
    WHERE lineage.execution_id = execution
    ORDER BY names.name
    LIMIT most;
END
$$;
