-- Invocations as an execution sees them: of each number, the row of the nearest execution in its lineage that has one.

-- name: page
-- $1 execution, $2 after this number, $3 how many, $4 whether only what it ran itself.
-- Each execution of the lineage contributes no more than a page, in the order of its primary key.
SELECT DISTINCT ON (row.number)
       row.depth, coalesce(row.supplier_id, row.execution_id) AS supplier_id, row.number,
       row.position, row.invocation_id, row.name, row.kind, row.state, row.module, row.pinned_digest, row.code_digest,
       row.attempts_before + row.attempt AS attempt, row.stale_inputs, row.override_outputs IS NOT NULL AS output_overridden, row.started_at,
       row.finished_at, row.after, row.overridden_inputs, row.inputs,
       coalesce(row.override_outputs, row.outputs) AS outputs, row.failure, row.options, row.progress,
       row.original_call_id,
       task.number IS NOT NULL AS has_task, task.session_id IS NOT NULL AS given_out, coalesce(task.running, false) AS running,
       coalesce(task.available_at <= clock_timestamp(), false) AS available,
       EXISTS (SELECT FROM tasks WHERE execution_id = $1 AND number = 0 AND session_id IS NOT NULL) AS body_held
FROM lineage
CROSS JOIN LATERAL (
    SELECT invocations.*, lineage.depth FROM invocations
    WHERE invocations.execution_id = lineage.ancestor_id
      AND invocations.number > $2 AND invocations.number < lineage.number_limit
      AND (NOT $4 OR (lineage.depth = 0 AND invocations.state <> 'reused'))
    ORDER BY invocations.number
    LIMIT $3
) AS row
LEFT JOIN tasks AS task ON task.execution_id = $1 AND task.number = row.number AND row.depth = 0
WHERE lineage.execution_id = $1
ORDER BY row.number, row.depth
LIMIT $3;

-- name: some
-- $1 execution, $2 numbers, $3 whether only what it ran itself.
SELECT DISTINCT ON (row.number)
       lineage.depth, coalesce(row.supplier_id, row.execution_id) AS supplier_id, row.number,
       row.position, row.invocation_id, row.name, row.kind, row.state, row.module, row.pinned_digest, row.code_digest,
       row.attempts_before + row.attempt AS attempt, row.stale_inputs, row.override_outputs IS NOT NULL AS output_overridden, row.started_at,
       row.finished_at, row.after, row.overridden_inputs, row.inputs,
       coalesce(row.override_outputs, row.outputs) AS outputs, row.failure, row.options, row.progress,
       row.original_call_id,
       task.number IS NOT NULL AS has_task, task.session_id IS NOT NULL AS given_out, coalesce(task.running, false) AS running,
       coalesce(task.available_at <= clock_timestamp(), false) AS available,
       EXISTS (SELECT FROM tasks WHERE execution_id = $1 AND number = 0 AND session_id IS NOT NULL) AS body_held
FROM lineage
JOIN invocations AS row
  ON row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit AND row.number = ANY ($2::integer[])
LEFT JOIN tasks AS task ON task.execution_id = $1 AND task.number = row.number AND lineage.depth = 0
WHERE lineage.execution_id = $1 AND (NOT $3 OR (lineage.depth = 0 AND row.state <> 'reused'))
ORDER BY row.number, lineage.depth;

-- name: mark
-- $1 execution, $2 number, $3 attempt, $4 stale, $5 overridden inputs, $6 whether its outputs are an override, $7 what it
-- returned itself. One that completed by its override alone is as replays have it: reused, with no outputs of its own.
UPDATE invocations
SET attempt = $3, stale_inputs = $4, overridden_inputs = $5,
    override_outputs = CASE WHEN $6 THEN outputs END,
    outputs = CASE WHEN $6 THEN $7 ELSE outputs END,
    state = CASE WHEN $6 AND $7 IS NULL AND state = 'completed' THEN 'reused' ELSE state END
WHERE execution_id = $1 AND number = $2;

-- name: outputs
-- What the consumers of some invocations receive: $1 execution, $2 numbers.
-- The sub-select hides how many they are, for which Postgres would make another plan each time.
SELECT i.number, coalesce(i.override_outputs, i.outputs) AS outputs
FROM unnest((SELECT $2::integer[])) AS wanted (number)
CROSS JOIN LATERAL shown_invocation($1, wanted.number) AS i;

-- name: attempts
SELECT attempt, executor, started_at, finished_at, failure
FROM attempts
WHERE execution_id = $1 AND ($2 = 0 OR number = $2)
ORDER BY finished_at, number, attempt
LIMIT $3;
