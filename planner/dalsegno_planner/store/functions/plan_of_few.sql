-- Plans that affect little are found and read in one go, in arrays: nothing is written, and nothing is left behind.

-- All that planning looks at of few marks, told apart by their roles: what is `affected`; waits that are asked again
-- (`wait`); reused invocations of which something affected takes an output that is not there, or may be in the object store
-- (`needed`); and what to warn of, 21 of each at most, which is one more than are named: reused steps whose code is known
-- and none of today's (`changed`), and that read an overridden flow input (`reading`).
--
-- `affected` and `waits` are found already, as are the `roots` with their `reasons` and `causes`; `replaced` are overridden
-- numbers. `opens_inputs`: whether values are looked for in inputs; `needs_outputs`: whether outputs are needed at all. The
-- inputs of `apart` are not those recorded: they take what is `taken`, by the steps `takers`. Where `compares_code`, today's
-- is that of `modules`, `names` and `digests`, as steps_with_other_code has it. `inputs` are overridden flow inputs.
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
-- does, or marks nothing. `named` are those roots; `alone`: they alone re-execute; `replaced` and `keys` are those of
-- implied_roots, and the rest those of few_marks.
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
