-- Planning. What few plans affect is found and read in one go, in arrays: nothing is written, and nothing is left behind.
-- The sets of larger plans are kept in temporary tables of the connection, so that a plan of any size stays in Postgres.
--
-- PL/pgSQL keeps the plans of its queries as long as the connection lives. They are made once: their making would cost
-- more than most of them do, and each is an index look-up by design. OFFSET 0 keeps each step of the recursion one,
-- whatever Postgres expects of the sets; `name >= ''` lets a query use the index of names.

-- What selectors may mean: $2 invocation IDs, $3 numbers, $4 names, $5 how many of each name.
CREATE OR REPLACE FUNCTION selector_candidates(execution uuid, ids text[], numbers integer[], names text[], each integer)
RETURNS TABLE (number integer, invocation_id text, name text, kind text, supplier_id uuid)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    found integer[] := numbers;
BEGIN
    IF ids <> '{}' THEN
        found := found || ARRAY(
            SELECT i.number
            FROM unnest(ids) AS wanted (invocation_id)
            CROSS JOIN lineage
            CROSS JOIN LATERAL (
                SELECT row.number FROM invocations AS row
                WHERE row.execution_id = lineage.ancestor_id
                  AND row.invocation_id BETWEEN wanted.invocation_id AND wanted.invocation_id
                ORDER BY row.invocation_id LIMIT 1
            ) AS i
            WHERE lineage.execution_id = execution AND i.number < lineage.number_limit);
    END IF;
    IF names <> '{}' THEN
        found := found || ARRAY(
            SELECT one.number
            FROM unnest(names) AS wanted (name)
            CROSS JOIN lineage
            CROSS JOIN LATERAL (
                SELECT i.number FROM invocations AS i
                WHERE i.execution_id = lineage.ancestor_id AND i.name BETWEEN wanted.name AND wanted.name AND i.name >= ''
                  AND (i.called OR i.state <> 'not_reached')
                  AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth(execution, i.number) AS near))
                ORDER BY i.name LIMIT each
            ) AS one
            WHERE lineage.execution_id = execution AND one.number < lineage.number_limit);
    END IF;
    -- What an ancestor has of a number may be hidden by another one: it is what is shown that has to fit.
    RETURN QUERY
    SELECT i.number, i.invocation_id, i.name, i.kind, coalesce(i.supplier_id, i.execution_id)
    FROM (SELECT DISTINCT one.number FROM unnest(found) AS one (number)) AS wanted
    CROSS JOIN LATERAL shown_invocation(execution, wanted.number) AS i
    WHERE (i.called OR i.state <> 'not_reached')
      AND (i.invocation_id = ANY (ids) OR i.number = ANY (numbers) OR i.name = ANY (names))
    ORDER BY i.number;
END
$$;

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

-- How many steps and waits an execution shows.
CREATE OR REPLACE FUNCTION shown_count(execution uuid) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT count(*)
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

-- What the source's record does not tell, and what the selectors of a request may mean: $2 invocation IDs, $3 numbers,
-- $4 names, $5 how many candidates of each name, $6 up to which size flows are counted: their records tell no more than
-- how many calls were made. `next_number` is the first that no invocation has.
--
-- A request that says no more than from where it replays is planned at once, if its selector can mean one invocation alone:
-- $7 that selector, else null, $8 whether nothing else re-executes, $9 as `few` of plan_of_few. `foreseen` is what that
-- returns, or null.
CREATE OR REPLACE FUNCTION open_plan(
    source uuid, ids text[], numbers integer[], names text[], each integer, counted integer, selector text, alone boolean,
    few integer
) RETURNS TABLE (
    code_digest text, shaping_inputs text[], next_number integer, lineage_length integer, size integer,
    candidate_numbers integer[], candidate_ids text[], candidate_names text[], candidate_kinds text[],
    candidate_suppliers uuid[], foreseen plan_row[]
)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    is_flow boolean;
BEGIN
    SELECT e.code_digest, e.shaping_inputs, greatest(e.next_number, 1 + highest.number), highest.entries,
           e.invocation_count, e.kind = 'flow'
    INTO code_digest, shaping_inputs, next_number, lineage_length, size, is_flow
    FROM executions AS e
    CROSS JOIN LATERAL (
        SELECT coalesce(max(own.number), 0) AS number, count(*) AS entries
        FROM lineage
        CROSS JOIN LATERAL (
            SELECT max(i.number) AS number FROM invocations AS i
            WHERE i.execution_id = lineage.ancestor_id AND i.number < lineage.number_limit
        ) AS own
        WHERE lineage.execution_id = source
    ) AS highest
    WHERE e.id = source;
    IF is_flow AND size <= counted THEN
        size := shown_count(source);
    END IF;
    IF ids <> '{}' OR numbers <> '{}' OR names <> '{}' THEN
        SELECT array_agg(one.number), array_agg(one.invocation_id), array_agg(one.name), array_agg(one.kind),
               array_agg(one.supplier_id)
        INTO candidate_numbers, candidate_ids, candidate_names, candidate_kinds, candidate_suppliers
        FROM selector_candidates(source, ids, numbers, names, each) AS one;
    END IF;
    IF selector IS NOT NULL AND cardinality(candidate_numbers) = 1 THEN
        foreseen := ARRAY(
            SELECT mark FROM plan_of_few(
                source, candidate_numbers, '{from}', ARRAY[selector], '{}', '{}', alone, few, alone OR NOT is_flow, true,
                '{}', '{}', '{}', NOT alone, '{}', '{}', '{}', '{}') AS mark);
    END IF;
    RETURN NEXT;
END
$$;

-- Empties the temporary tables of a plan, and sets how its queries are planned until the transaction ends.
--
-- They are emptied at the start, because `ON COMMIT DELETE ROWS` truncates, which makes every query plan anew; but where
-- many rows have died in them, which would be looked at by all later ones.
CREATE OR REPLACE FUNCTION begin_marks() RETURNS void
LANGUAGE plpgsql AS $$
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
    ELSIF pg_relation_size('pg_temp.replay_marks') + pg_relation_size('pg_temp.replay_roots') > 256 * 1024 THEN
        TRUNCATE replay_roots, replay_marks;
    ELSE
        DELETE FROM replay_roots;
        DELETE FROM replay_marks;
    END IF;
END
$$;

-- Puts the marks of a plan of few into the temporary tables, where pages of reused invocations and the replay's creation
-- look for them.
CREATE OR REPLACE FUNCTION store_marks(numbers integer[], roles text[], overridden boolean[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM begin_marks();
    INSERT INTO replay_marks (number, role, overridden) SELECT * FROM unnest(numbers, roles, overridden);
END
$$;

-- Roots that the request does not name itself: what takes an overridden output, and what has nothing to reuse.
-- $2 overridden numbers, $3 their keys, $4 whether overridden outputs count for nothing.
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


-- The roots and everything downstream of them: $3 whether the execution can have ancestors, $4 whether tombstones with
-- edges, $5 how many are wanted at most, null for all.
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

-- Marks what re-executes in the temporary tables, beginning from the roots that are there already, and returns how many
-- marks there are. $2 further roots, $3 their reasons, $4 their causes, $5 overridden numbers, $6 their keys, $7 whether
-- overridden outputs count for nothing, $8 what re-executes: the `roots` alone, their `descendants`, or all `others`
-- than $9.
CREATE OR REPLACE FUNCTION mark_affected(
    execution uuid, named integer[], named_reasons text[], named_causes text[], replaced integer[], keys text[],
    strict boolean, scope text, kept integer[]
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    is_replay boolean;
    of_flow boolean;
BEGIN
    SELECT e.source_id IS NOT NULL, e.kind = 'flow' AND scope <> 'roots' INTO is_replay, of_flow
    FROM executions AS e WHERE e.id = execution;
    INSERT INTO replay_roots (number, reason, cause)
    SELECT * FROM unnest(named, named_reasons, named_causes)
    ON CONFLICT DO NOTHING;
    IF scope <> 'roots' THEN
        INSERT INTO replay_roots (number, reason, cause)
        SELECT * FROM implied_roots(execution, replaced, keys, strict)
        ON CONFLICT DO NOTHING;
    END IF;
    IF scope = 'roots' THEN
        INSERT INTO replay_marks (number, role) SELECT DISTINCT root.number, 'affected' FROM replay_roots AS root;
    ELSIF scope = 'descendants' THEN
        INSERT INTO replay_marks (number, role)
        SELECT one.number, 'affected'
        FROM descendants(
            execution, ARRAY(SELECT DISTINCT root.number FROM replay_roots AS root), is_replay, of_flow, NULL
        ) AS one (number)
        ORDER BY one.number;  -- so that the index grows at its end
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
        INSERT INTO replay_marks (number, role) SELECT one.number, 'wait' FROM waits_to_ask(execution) AS one (number)
        ON CONFLICT DO NOTHING;
    END IF;
    IF replaced <> '{}' THEN
        UPDATE replay_marks SET overridden = true WHERE number = ANY (replaced);
    END IF;
    IF is_replay THEN
        UPDATE replay_marks SET overridden = true
        WHERE (SELECT i.override_outputs IS NOT NULL FROM shown_invocation(execution, replay_marks.number) AS i);
    END IF;
    RETURN (SELECT count(*) FROM replay_marks);
END
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

-- Whether code of an execution may be another today, by what is known of steps of these names at all; the arguments are
-- those of steps_with_other_code. As a rule nothing is, and which code counts today need not be found out.
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

-- Steps whose code is known and none of today's: that of $3 to $5, and of other steps what executors of the project have.
-- $6 how many of each step and digest.
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

-- All that planning looks at of few marks: of what is `affected`, and of waits that are asked again (`wait`); reused
-- invocations of which something affected takes an output that is not there, or may be in the object store (`needed`); and
-- what to warn of: reused steps whose code is known and none of today's (`changed`), and that read an overridden flow input
-- (`reading`), 21 of each at most.
--
-- $2 and $3 what is affected and what is asked again, $4 to $6 the roots with their reasons and causes, $7 overridden
-- numbers, $8 whether values are looked for in inputs, $9 whether outputs are needed at all, $10 affected numbers whose
-- inputs are looked at apart, $11 and $12 what those take, and which step does, $13 whether code is compared, $14 to $16
-- code that is known to be today's, $17 overridden flow inputs.
CREATE OR REPLACE FUNCTION few_marks(
    execution uuid, affected integer[], waits integer[], roots integer[], reasons text[], causes text[], replaced integer[],
    opens_inputs boolean, needs_outputs boolean, apart integer[], taken integer[], takers text[], compares_code boolean,
    modules text[], names text[], digests text[], inputs text[]
) RETURNS SETOF plan_row
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    marked integer[] := affected || waits;
    home text;
    is_replay boolean;
BEGIN
    SELECT e.project, e.source_id IS NOT NULL INTO home, is_replay FROM executions AS e WHERE e.id = execution;
    RETURN QUERY
    WITH mark AS MATERIALIZED (
        SELECT one.number, one.role, i.invocation_id, i.name, i.kind,
               coalesce(date_part('epoch', i.finished_at - i.started_at), 0) AS seconds,
               i.number = ANY (replaced) OR (is_replay AND i.override_outputs IS NOT NULL) AS overridden,
               i.upstream, i.after, opens_inputs AND position('blobs/'::bytea IN i.inputs) > 0 AS objects
        FROM (SELECT number, 'affected' FROM unnest(affected) AS one (number)
              UNION ALL SELECT number, 'wait' FROM unnest(waits) AS one (number)) AS one (number, role)
        CROSS JOIN LATERAL shown_invocation(execution, one.number) AS i
    ), needed AS (
        SELECT one.number, min(one.taker) AS taker
        FROM (
            SELECT u.number, mark.invocation_id
            FROM mark CROSS JOIN LATERAL unnest(mark.upstream) AS u (number)
            WHERE mark.role = 'affected' AND mark.number <> ALL (apart) AND u.number <> ALL (mark.after)
            UNION ALL
            SELECT number, taker FROM unnest(taken, takers) AS one (number, taker)
        ) AS one (number, taker)
        WHERE needs_outputs AND one.number <> ALL (replaced)
          AND NOT EXISTS (SELECT FROM mark WHERE mark.number = one.number)
        GROUP BY one.number
    )
    SELECT mark.number, mark.role, mark.invocation_id, mark.name, mark.kind, mark.seconds, mark.overridden, mark.objects,
           root.reasons, root.causes, NULL::text, NULL::bytea
    FROM mark
    LEFT JOIN (
        SELECT one.number, array_agg(one.reason) AS reasons, array_agg(one.cause) AS causes
        FROM unnest(roots, reasons, causes) AS one (number, reason, cause) GROUP BY one.number
    ) AS root ON root.number = mark.number
    UNION ALL
    SELECT needed.number, 'needed', o.invocation_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, needed.taker,
           coalesce(o.override_outputs, o.outputs)
    FROM needed
    CROSS JOIN LATERAL shown_invocation(execution, needed.number) AS o
    WHERE o.kind = 'step'
      AND (coalesce(o.override_outputs, o.outputs, '') = ''
           OR position('blobs/'::bytea IN coalesce(o.override_outputs, o.outputs)) > 0);
    IF compares_code AND code_may_differ(execution, home, names, digests) THEN
        RETURN QUERY
        SELECT one.number, 'changed', one.invocation_id, NULL, NULL, NULL::double precision, NULL::boolean, NULL::boolean,
               NULL::text[], NULL::text[], NULL, NULL::bytea
        FROM steps_with_other_code(execution, home, modules, names, digests, 21 + cardinality(marked)) AS one
        WHERE one.number NOT IN (SELECT number FROM unnest(marked) AS mark (number))
        ORDER BY one.number LIMIT 21;
    END IF;
    IF inputs <> '{}' THEN
        RETURN QUERY
        SELECT one.number, 'reading', one.invocation_id, NULL, NULL, NULL::double precision, NULL::boolean, NULL::boolean,
               NULL::text[], NULL::text[], NULL, NULL::bytea
        FROM steps_reading(execution, inputs, 21 + cardinality(marked)) AS one
        WHERE one.number NOT IN (SELECT number FROM unnest(marked) AS mark (number))
        ORDER BY one.number LIMIT 21;
    END IF;
END
$$;

-- A plan that begins from roots that the request names, as long as it marks no more than `few`; nothing comes back where it
-- does, or marks nothing. $2 those roots, $3 their reasons, $4 their causes, $5 overridden numbers, $6 their keys, $7
-- whether the roots alone re-execute; the others are those of few_marks.
CREATE OR REPLACE FUNCTION plan_of_few(
    execution uuid, named integer[], named_reasons text[], named_causes text[], replaced integer[], keys text[],
    alone boolean, few integer, opens_inputs boolean, needs_outputs boolean, apart integer[], taken integer[], takers text[],
    compares_code boolean, modules text[], names text[], digests text[], inputs text[]
) RETURNS SETOF plan_row
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    is_replay boolean;
    of_flow boolean;
    roots integer[] := named;
    reasons text[] := named_reasons;
    causes text[] := named_causes;
    affected integer[];
    waits integer[] := '{}';
BEGIN
    SELECT e.source_id IS NOT NULL, e.kind = 'flow' AND NOT alone INTO is_replay, of_flow
    FROM executions AS e WHERE e.id = execution;
    IF alone THEN
        affected := roots;
    ELSE
        SELECT roots || array_agg(root.number), reasons || array_agg(root.reason), causes || array_agg(root.cause)
        INTO roots, reasons, causes
        FROM (SELECT * FROM implied_roots(execution, replaced, keys, false) LIMIT few + 1) AS root;
        affected := ARRAY(SELECT descendants(execution, roots, is_replay, of_flow, few + 1));
    END IF;
    IF of_flow THEN
        waits := ARRAY(
            SELECT one.number FROM waits_to_ask(execution) AS one (number)
            WHERE one.number <> ALL (affected) LIMIT few + 1);
    END IF;
    IF cardinality(roots) <= few AND cardinality(affected) + cardinality(waits) <= few THEN
        RETURN QUERY SELECT * FROM few_marks(
            execution, affected, waits, roots, reasons, causes, replaced, opens_inputs, needs_outputs, apart, taken, takers,
            compares_code, modules, names, digests, inputs);
    END IF;
END
$$;
