-- What a plan looks at first: the execution that is replayed, and what selectors may mean in it.
--
-- Look-ups by name or invocation ID are ranges in the order of their index: on an empty table, where plans are made
-- when an engine is new, an equality could as well be a filter behind the primary key.

-- What selectors may mean: calls with one of these invocation IDs, numbers or names; of each name `each` at most.
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

-- How many steps and waits an execution shows.
CREATE OR REPLACE FUNCTION shown_count(execution uuid) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT count(*) FROM shown_calls(execution)
$$;

-- What the source's record does not tell, and what the selectors of a request may mean; the arguments are those of
-- selector_candidates. Flows are counted up to the size `counted`: their records tell no more than how many calls were made.
-- `next_number` is the first that no invocation has.
--
-- A request that says no more than from where it replays is planned at once, if its `selector`, else null, can mean one
-- invocation alone: `foreseen` is what plan_of_few returns, or null. `alone` and `few` are those of plan_of_few.
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
