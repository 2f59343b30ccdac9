-- Planning: the sets of a plan, kept in temporary tables of the connection, so that a plan of any size stays in Postgres.
--
-- PL/pgSQL keeps the plans of its queries as long as the connection lives. OFFSET 0 keeps each step of the recursion an
-- index look-up, whatever Postgres expects of the sets.

-- Empties the sets, and returns what the source's record does not tell: the first number that no invocation has, too, and
-- how many entries its lineage has.
--
-- Query plans are made once: their making would cost more than most of them do, and each is an index look-up by design.
-- The tables are emptied at the start, because `ON COMMIT DELETE ROWS` truncates, which makes every query plan anew; but
-- after a plan that affected very much, whose dead rows would be looked at by all later ones.
CREATE OR REPLACE FUNCTION begin_plan(source uuid)
RETURNS TABLE (code_digest text, shaping_inputs text[], next_number integer, lineage_length bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true);
    IF to_regclass('pg_temp.replay_marks') IS NULL THEN
        CREATE TEMPORARY TABLE replay_roots (
            number integer NOT NULL, reason text NOT NULL, cause text NOT NULL, PRIMARY KEY (number, reason, cause)
        );
        -- Role: `affected`, `wait` for one that is asked again without being affected, `removed` for one that today's
        -- graph lacks.
        CREATE TEMPORARY TABLE replay_marks (
            number integer PRIMARY KEY, role text NOT NULL, overridden boolean NOT NULL DEFAULT false
        );
    ELSIF pg_relation_size('pg_temp.replay_marks') > 1024 * 1024 THEN
        TRUNCATE replay_roots, replay_marks;
    ELSE
        DELETE FROM replay_roots;
        DELETE FROM replay_marks;
    END IF;
    RETURN QUERY
    SELECT e.code_digest, e.shaping_inputs, greatest(e.next_number, 1 + coalesce((
        SELECT max(highest.number) FROM lineage
        CROSS JOIN LATERAL (
            SELECT max(i.number) AS number FROM invocations AS i
            WHERE i.execution_id = lineage.ancestor_id AND i.number < lineage.number_limit) AS highest
        WHERE lineage.execution_id = source), 0)),
        (SELECT count(*) FROM lineage WHERE lineage.execution_id = source)
    FROM executions AS e WHERE e.id = source;
END
$$;

-- Roots that the request does not name itself: what takes an overridden output, and what has nothing to reuse.
-- $2 overridden numbers, $3 their keys, $4 whether overridden outputs count for nothing.
CREATE OR REPLACE FUNCTION mark_implied_roots(execution uuid, replaced integer[], keys text[], strict boolean)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF replaced <> '{}' THEN
        INSERT INTO replay_roots (number, reason, cause)
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
          AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, i.number) AS near))
        ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO replay_roots (number, reason, cause)
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
      AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, i.number) AS near))
    ON CONFLICT DO NOTHING;
END
$$;

-- The roots and everything downstream of them: $2 whether it can have ancestors, $3 whether tombstones with edges.
CREATE OR REPLACE FUNCTION mark_descendants(execution uuid, is_replay boolean, of_flow boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF is_replay THEN
        WITH RECURSIVE affected (number) AS (
            SELECT number FROM replay_roots
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
        INSERT INTO replay_marks (number, role) SELECT number, 'affected' FROM affected;
        RETURN;
    END IF;
    WITH RECURSIVE affected (number) AS (
        SELECT number FROM replay_roots
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
    INSERT INTO replay_marks (number, role) SELECT number, 'affected' FROM affected;
END
$$;

-- What a replay asks again: every wait.
CREATE OR REPLACE FUNCTION mark_waits(execution uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO replay_marks (number, role)
    SELECT i.number, 'wait'
    FROM lineage
    CROSS JOIN LATERAL (
        SELECT row.* FROM invocations AS row
        WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit AND row.kind = 'wait'
        OFFSET 0
    ) AS i
    WHERE lineage.execution_id = execution
      AND (i.called OR i.state <> 'not_reached')
      AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, i.number) AS near))
    ON CONFLICT DO NOTHING;
END
$$;

-- Marks what re-executes, beginning from the roots that are there already, and returns the marks where they are few, with
-- all that planning looks at. $2 further roots, $3 their reasons, $4 their causes, $5 overridden numbers, $6 their keys,
-- $7 whether overridden outputs count for nothing, $8 what re-executes: the `roots` alone, their `descendants`, or all
-- `others` than $9; $10 how many are few.
CREATE OR REPLACE FUNCTION mark_affected(
    execution uuid, named integer[], named_reasons text[], named_causes text[], replaced integer[], keys text[],
    strict boolean, scope text, kept integer[], few integer
) RETURNS TABLE (
    number integer, role text, invocation_id text, name text, kind text, seconds double precision, overridden boolean,
    upstream integer[], after integer[], objects boolean, reasons text[], causes text[]
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    is_replay boolean;
    of_flow boolean;
BEGIN
    SELECT e.source_id IS NOT NULL, e.kind = 'flow' AND scope <> 'roots' INTO is_replay, of_flow
    FROM executions AS e WHERE e.id = execution;
    INSERT INTO replay_roots (number, reason, cause)
    SELECT one.number, one.reason, one.cause FROM unnest(named, named_reasons, named_causes) AS one (number, reason, cause)
    ON CONFLICT DO NOTHING;
    IF scope <> 'roots' THEN
        PERFORM mark_implied_roots(execution, replaced, keys, strict);
    END IF;
    IF scope = 'roots' THEN
        INSERT INTO replay_marks (number, role) SELECT DISTINCT one.number, 'affected' FROM replay_roots AS one;
    ELSIF scope = 'descendants' THEN
        PERFORM mark_descendants(execution, is_replay, of_flow);
    ELSE
        INSERT INTO replay_marks (number, role)
        SELECT i.number, 'affected'
        FROM lineage
        CROSS JOIN LATERAL (
            SELECT row.* FROM invocations AS row
            WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit
            OFFSET 0
        ) AS i
        LEFT JOIN unnest(kept) AS one (number) ON one.number = i.number
        WHERE lineage.execution_id = execution
          AND i.kind = 'step' AND one.number IS NULL AND (i.called OR i.state <> 'not_reached')
          AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, i.number) AS near));
    END IF;
    IF of_flow THEN
        PERFORM mark_waits(execution);
    END IF;
    IF replaced <> '{}' THEN
        UPDATE replay_marks SET overridden = true WHERE number = ANY (replaced);
    END IF;
    IF is_replay THEN
        UPDATE replay_marks SET overridden = true
        WHERE (SELECT i.override_outputs IS NOT NULL FROM shown_invocation(execution, replay_marks.number) AS i);
    END IF;
    IF (SELECT count(*) FROM (SELECT FROM replay_marks LIMIT few + 1) AS first) <= few THEN
        RETURN QUERY
        SELECT i.number, mark.role, i.invocation_id, i.name, i.kind,
               coalesce(extract(epoch FROM i.finished_at - i.started_at)::double precision, 0), mark.overridden, i.upstream,
               i.after, NOT of_flow AND position('blobs/'::bytea IN i.inputs) > 0, root.reasons, root.causes
        FROM replay_marks AS mark
        CROSS JOIN LATERAL shown_invocation(execution, mark.number) AS i
        LEFT JOIN (
            SELECT one.number, array_agg(one.reason) AS reasons, array_agg(one.cause) AS causes
            FROM replay_roots AS one GROUP BY one.number
        ) AS root ON root.number = mark.number;
    END IF;
END
$$;
