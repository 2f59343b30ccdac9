-- What is to be known of what is reused: whether its code is today's, and whether it reads what is overridden.

-- The code in a project of an execution's steps, of `most` names at most: of connected executors, else what was recorded
-- last.
CREATE OR REPLACE FUNCTION todays_steps(project text, execution uuid, most integer)
RETURNS TABLE (module text, name text, digest text)
LANGUAGE sql STABLE AS $$
    SELECT known.module, known.name, known.digest
    FROM (
        SELECT d.module, d.name, d.digest, live.is_live,
               bool_or(live.is_live) OVER (PARTITION BY d.module, d.name) AS any_live,
               row_number() OVER (PARTITION BY d.module, d.name ORDER BY d.recorded_at DESC, d.digest) AS age
        FROM definitions AS d
        CROSS JOIN LATERAL (
            SELECT EXISTS (
                SELECT FROM session_routes AS route JOIN sessions ON sessions.id = route.session_id
                WHERE route.route = task_route(d.project, d.module, d.name, d.digest)
                  AND sessions.expires_at > clock_timestamp()
            ) AS is_live
        ) AS live
        WHERE d.project = todays_steps.project AND d.kind = 'step' AND d.digest <> ''
          AND d.name = ANY (ARRAY(SELECT step.name FROM step_names(execution, most) AS step))
    ) AS known
    WHERE known.is_live OR (known.age = 1 AND NOT known.any_live)
$$;

-- The steps of an execution and the digests of their code, by skipping from one to the next.
CREATE OR REPLACE FUNCTION recorded_code(execution uuid) RETURNS TABLE (name text, digest text)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE skip AS (
        (SELECT i.name, i.code_digest AS digest FROM invocations AS i
         WHERE i.execution_id = execution AND i.name >= '' ORDER BY i.name, i.code_digest LIMIT 1)
        UNION ALL
        SELECT next.name, next.digest
        FROM skip
        CROSS JOIN LATERAL (
            SELECT i.name, i.code_digest AS digest FROM invocations AS i
            WHERE i.execution_id = execution AND i.name >= '' AND (i.name, i.code_digest) > (skip.name, skip.digest)
            ORDER BY i.name, i.code_digest LIMIT 1) AS next
    )
    SELECT skip.name, skip.digest FROM skip
$$;

-- Whether code of an execution may be another today, by what is known of steps of these names at all. `names` and `digests`
-- are those of steps_with_other_code. As a rule nothing is, and which code counts today need not be found out.
CREATE OR REPLACE FUNCTION code_may_differ(execution uuid, project text, names text[], digests text[])
RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    looked_at CONSTANT integer := 200;
    steps text[];
    codes text[];
BEGIN
    SELECT array_agg(one.name), array_agg(one.digest) INTO steps, codes
    FROM (
        SELECT code.name, code.digest
        FROM lineage CROSS JOIN LATERAL recorded_code(lineage.ancestor_id) AS code
        WHERE lineage.execution_id = execution AND code.digest <> ''
        LIMIT looked_at
    ) AS one;
    RETURN cardinality(steps) = looked_at OR EXISTS (
        SELECT FROM definitions AS d
        JOIN unnest(steps, codes) AS recorded (name, digest) ON recorded.name = d.name AND recorded.digest <> d.digest
        WHERE d.project = code_may_differ.project AND d.kind = 'step' AND d.digest <> ''
    ) OR EXISTS (
        SELECT FROM unnest(names, digests) AS sent (name, digest)
        JOIN unnest(steps, codes) AS recorded (name, digest)
          ON recorded.name = sent.name AND recorded.digest <> sent.digest
    );
END
$$;

-- The digests of the code of a step's recorded calls, by skipping from one to the next.
CREATE OR REPLACE FUNCTION code_digests(execution uuid, step text) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE skip AS (
        (SELECT i.code_digest AS digest FROM invocations AS i
         WHERE i.execution_id = execution AND i.name BETWEEN step AND step AND i.name >= ''
         ORDER BY i.name, i.code_digest LIMIT 1)
        UNION ALL
        SELECT (SELECT i.code_digest FROM invocations AS i
                WHERE i.execution_id = execution AND i.name = step AND i.name >= '' AND i.code_digest > skip.digest
                ORDER BY i.name, i.code_digest LIMIT 1)
        FROM skip WHERE skip.digest IS NOT NULL
    )
    SELECT skip.digest FROM skip WHERE skip.digest IS NOT NULL
$$;

-- Steps whose code is known and none of today's: that of `modules`, `names` and `digests`, and of other steps what executors
-- of the project have; `most` of each step and digest.
CREATE OR REPLACE FUNCTION steps_with_other_code(
    execution uuid, project text, modules text[], names text[], digests text[], most bigint
) RETURNS TABLE (number integer, invocation_id text)
LANGUAGE sql STABLE AS $$
    WITH sent AS (
        SELECT module, name, digest FROM unnest(modules, names, digests) AS one (module, name, digest)
    ), today AS (
        SELECT module, name, array_agg(digest) AS digests
        FROM (SELECT module, name, digest FROM sent
              UNION ALL
              SELECT known.module, known.name, known.digest
              FROM todays_steps(steps_with_other_code.project, execution, 200) AS known
              WHERE NOT EXISTS (SELECT FROM sent WHERE sent.module = known.module AND sent.name = known.name)) AS every
        GROUP BY module, name
    )
    SELECT i.number, i.invocation_id
    FROM today
    CROSS JOIN lineage
    CROSS JOIN LATERAL code_digests(lineage.ancestor_id, today.name) AS other (digest)
    CROSS JOIN LATERAL (
        SELECT row.number, row.invocation_id FROM invocations AS row
        WHERE row.execution_id = lineage.ancestor_id AND row.name = today.name AND row.name >= ''
          AND row.code_digest = other.digest
          AND row.number < lineage.number_limit AND row.module = today.module
          AND row.kind = 'step' AND (row.called OR row.state <> 'not_reached')
          AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, row.number) AS near))
        LIMIT most
    ) AS i
    WHERE lineage.execution_id = execution AND other.digest <> '' AND other.digest <> ALL (today.digests)
$$;

-- Steps that read one of these flow inputs: the first `most` of each execution in the lineage.
CREATE OR REPLACE FUNCTION steps_reading(execution uuid, inputs text[], most bigint)
RETURNS TABLE (number integer, invocation_id text)
LANGUAGE sql STABLE AS $$
    SELECT i.number, i.invocation_id
    FROM lineage
    CROSS JOIN LATERAL (
        SELECT row.number, row.invocation_id FROM invocations AS row
        WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit AND row.reads_inputs <> '{}'
          AND row.reads_inputs && steps_reading.inputs AND row.kind = 'step' AND (row.called OR row.state <> 'not_reached')
          AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, row.number) AS near))
        ORDER BY row.number LIMIT most
    ) AS i
    WHERE lineage.execution_id = execution
$$;
