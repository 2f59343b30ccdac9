-- The graph that an execution shows, read through its lineage: of each number the nearest row counts, and that row
-- hides the edges of older ones. `not_reached AND NOT called` is a call that the execution did not make: a tombstone.
-- A delta of a call that did not succeed, and is reused because its output is overridden, has no outputs of its own.

-- name: rows
-- $1 execution, $2 numbers.
SELECT i.number, i.position, i.invocation_id, i.name, i.kind, i.state, i.module, i.code_digest, i.upstream, i.after,
       i.reads_inputs, i.overridden_inputs, i.inputs, coalesce(i.override_outputs, i.outputs) AS outputs, i.options,
       i.override_outputs IS NOT NULL AS overridden, coalesce(i.supplier_id, i.execution_id) AS supplier_id,
       i.state = 'completed' OR (i.state = 'reused' AND i.outputs IS NOT NULL) AS succeeded
FROM unnest($2::integer[]) AS wanted (number)
CROSS JOIN LATERAL shown_invocation($1, wanted.number) AS i
WHERE i.called OR i.state <> 'not_reached'
ORDER BY i.number;

-- name: all_rows
-- $1 execution. Outputs only of steps that declare none, for the names.
SELECT i.number, i.position, i.invocation_id, i.name, i.kind, i.state, i.module, i.code_digest, i.upstream, i.after,
       i.reads_inputs, i.overridden_inputs, i.inputs,
       CASE i.options WHEN '' THEN coalesce(i.override_outputs, i.outputs) END AS outputs, i.options,
       i.override_outputs IS NOT NULL AS overridden, coalesce(i.supplier_id, i.execution_id) AS supplier_id,
       i.state = 'completed' OR (i.state = 'reused' AND i.outputs IS NOT NULL) AS succeeded
FROM shown_calls($1) AS i
ORDER BY i.number;

-- name: candidates
-- What selectors may mean: $1 execution, $2 invocation IDs, $3 numbers, $4 names, $5 how many of each name.
SELECT number, invocation_id, name, kind, supplier_id FROM selector_candidates($1, $2, $3, $4, $5);

-- name: suppliers
-- Every number with the execution whose call it shows: $1 execution.
SELECT i.number, coalesce(i.supplier_id, i.execution_id) AS supplier_id
FROM shown_calls($1) AS i;

-- name: step_names
-- $1 execution, $2 how many at most.
SELECT name FROM step_names($1, $2);

-- name: some_invocation_ids
-- $1 execution, $2 how many at most.
SELECT ids.invocation_id
FROM lineage
CROSS JOIN LATERAL (
    SELECT i.invocation_id FROM invocations AS i
    WHERE i.execution_id = lineage.ancestor_id AND i.number < lineage.number_limit
      AND (i.called OR i.state <> 'not_reached')
    ORDER BY i.number LIMIT $2
) AS ids
WHERE lineage.execution_id = $1
LIMIT $2;

-- name: consumers
-- Invocations whose inputs take an output: $1 execution, $2 the number upstream, $3 how many at most.
SELECT i.number, i.module, i.name, i.code_digest, i.inputs
FROM lineage
CROSS JOIN LATERAL (
    SELECT row.* FROM edges JOIN invocations AS row ON row.execution_id = lineage.ancestor_id AND row.number = edges.downstream
    WHERE edges.execution_id = lineage.ancestor_id AND edges.upstream = $2 AND edges.downstream < lineage.number_limit
    OFFSET 0
) AS i
WHERE lineage.execution_id = $1
  AND $2 <> ALL (i.after) AND (i.called OR i.state <> 'not_reached')
  AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth($1, i.number) AS near))
ORDER BY i.number
LIMIT $3;

-- name: invocation_ids
-- $1 execution, $2 numbers; of steps only.
SELECT i.number, i.invocation_id
FROM unnest($2::integer[]) AS wanted (number)
CROSS JOIN LATERAL shown_invocation($1, wanted.number) AS i
WHERE i.kind = 'step';

-- name: todays_steps
-- $1 project, $2 execution, $3 of how many names at most.
SELECT module, name, digest FROM todays_steps($1, $2, $3);

-- name: definitions
-- $1 project, then the keys: $2 kinds, $3 modules, $4 names, $5 digests.
SELECT d.kind, d.module, d.name, d.digest, d.document
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS wanted (kind, module, name, digest)
JOIN definitions AS d ON d.project = $1 AND d.kind = wanted.kind AND d.module = wanted.module AND d.name = wanted.name
                     AND d.digest = wanted.digest;

-- name: numbers_of_name
-- Every call of a step: $1 execution, $2 name.
SELECT i.number
FROM shown_calls_of($1, $2) AS i
ORDER BY i.number;
