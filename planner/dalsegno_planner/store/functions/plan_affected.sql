-- What re-executes: roots that a request implies, what is downstream of them, and what is asked again.
--
-- PL/pgSQL keeps the plans of its queries as long as the connection lives. They are made once: their making would cost
-- more than most of them do, and each is an index look-up by design. OFFSET 0 keeps each step of the recursion one,
-- whatever Postgres expects of the sets.

-- Roots that the request does not name itself: what takes an overridden output, and what has nothing to reuse. `replaced`
-- are the overridden numbers, `keys` theirs in the request; `strict`: overridden outputs count for nothing.
CREATE OR REPLACE FUNCTION implied_roots(execution uuid, replaced integer[], keys text[], strict boolean)
RETURNS TABLE (number integer, reason text, cause text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    IF replaced <> '{}' THEN
        RETURN QUERY
        SELECT i.number, 'checkpoint_override', given.key
        FROM unnest(replaced, keys) AS given (number, key)
        CROSS JOIN lineage
        CROSS JOIN LATERAL (
            SELECT row.*
            FROM edges JOIN invocations AS row ON row.execution_id = lineage.ancestor_id AND row.number = edges.downstream
            WHERE edges.execution_id = lineage.ancestor_id AND edges.upstream = given.number
              AND edges.downstream < lineage.number_limit
            OFFSET 0
        ) AS i
        WHERE lineage.execution_id = execution
          AND given.number <> ALL (i.after)
          AND (i.called OR i.state <> 'not_reached')
          AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, i.number) AS near));
    END IF;
    RETURN QUERY
    SELECT i.number, 'not_completed', ''
    FROM lineage
    CROSS JOIN LATERAL (
        SELECT row.number FROM invocations AS row
        WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit
          AND row.state NOT IN ('completed', 'reused') AND row.kind = 'step' AND (row.called OR row.state <> 'not_reached')
          AND (strict OR (row.override_outputs IS NULL AND row.number <> ALL (replaced)))
        OFFSET 0
    ) AS i
    WHERE lineage.execution_id = execution
      AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, i.number) AS near));
END
$$;

-- The roots and everything downstream of them, `most` at most, null for all. `is_replay`: the execution can have ancestors;
-- `of_flow`: tombstones can have edges.
CREATE OR REPLACE FUNCTION descendants(execution uuid, roots integer[], is_replay boolean, of_flow boolean, most integer)
RETURNS SETOF integer
LANGUAGE plpgsql STABLE ROWS 100 AS $$
BEGIN
    IF is_replay THEN
        RETURN QUERY
        WITH RECURSIVE affected (number) AS (
            SELECT number FROM unnest(roots) AS root (number)
            UNION
            SELECT next.downstream
            FROM affected
            CROSS JOIN LATERAL (
                SELECT edges.downstream
                FROM lineage
                CROSS JOIN LATERAL (
                    SELECT edges.downstream FROM edges
                    WHERE edges.execution_id = lineage.ancestor_id AND edges.upstream = affected.number
                      AND edges.downstream < lineage.number_limit
                    OFFSET 0
                ) AS edges
                WHERE lineage.execution_id = execution
                  AND (NOT of_flow OR NOT EXISTS (
                      SELECT FROM invocations AS i
                      WHERE i.execution_id = lineage.ancestor_id AND i.number = edges.downstream
                        AND i.state = 'not_reached' AND NOT i.called
                      OFFSET 0))
                  AND (lineage.depth = 0
                       OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, edges.downstream) AS near))
                OFFSET 0
            ) AS next
        )
        SELECT number FROM affected LIMIT most;
        RETURN;
    END IF;
    RETURN QUERY
    WITH RECURSIVE affected (number) AS (
        SELECT number FROM unnest(roots) AS root (number)
        UNION
        SELECT next.downstream
        FROM affected
        CROSS JOIN LATERAL (
            SELECT edges.downstream
            FROM edges
            WHERE edges.execution_id = execution AND edges.upstream = affected.number
              AND (NOT of_flow OR NOT EXISTS (
                  SELECT FROM invocations AS i
                  WHERE i.execution_id = execution AND i.number = edges.downstream
                    AND i.state = 'not_reached' AND NOT i.called
                  OFFSET 0))
            OFFSET 0
        ) AS next
    )
    SELECT number FROM affected LIMIT most;
END
$$;

-- What a replay asks again: every wait.
CREATE OR REPLACE FUNCTION waits_to_ask(execution uuid) RETURNS SETOF integer
LANGUAGE sql STABLE AS $$
    SELECT i.number
    FROM lineage
    CROSS JOIN LATERAL (
        SELECT row.* FROM invocations AS row
        WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit AND row.kind = 'wait'
        OFFSET 0
    ) AS i
    WHERE lineage.execution_id = execution
      AND (i.called OR i.state <> 'not_reached')
      AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, i.number) AS near))
$$;
