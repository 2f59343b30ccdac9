-- What an export needs beyond what is shown of an execution.

-- name: header
SELECT shaping_inputs, code_digest FROM executions WHERE id = $1;

-- name: definitions
-- The code that the calls ran, and that of the execution: $1 execution, $2 its project, $3 whether only its own calls.
SELECT d.document
FROM executions AS e
JOIN definitions AS d ON d.project = e.project AND d.kind = e.kind AND d.module = e.module AND d.name = e.flow
                     AND d.digest = e.code_digest
WHERE e.id = $1
UNION ALL
SELECT d.document
FROM (
    SELECT DISTINCT i.module, i.name, i.code_digest FROM effective_invocations($1) AS i
    WHERE i.kind = 'step' AND i.code_digest <> '' AND (NOT $3 OR i.execution_id = $1)
) AS ran
JOIN definitions AS d ON d.project = $2 AND d.kind = 'step' AND d.module = ran.module AND d.name = ran.name
                     AND d.digest = ran.code_digest;

-- name: steps
-- $1 execution, $2 whether the order is that of the calls (a flow's), and not that of the numbers, $3 whether only its own.
-- Only where there was more than one attempt, or none succeeded, can there be failed ones.
SELECT i.attempts_before + i.attempt AS attempt, i.stale_inputs, i.overridden_inputs, i.outputs AS returned,
       CASE WHEN i.attempts_before + i.attempt > 1 OR i.failure IS NOT NULL THEN ARRAY(
           SELECT failed FROM attempts AS failed
           WHERE failed.execution_id = coalesce(i.supplier_id, i.execution_id) AND failed.number = i.number
           ORDER BY failed.attempt) END AS failed_attempts,
       i.number, i.invocation_id, i.name, i.kind, i.state, i.module, i.code_digest, i.upstream, i.after, i.inputs,
       coalesce(i.override_outputs, i.outputs) AS outputs, i.override_outputs IS NOT NULL AS overridden, i.failure,
       i.options, i.started_at, i.finished_at, coalesce(i.supplier_id, i.execution_id) AS supplier_id, i.original_call_id,
       w.question, w.schema, w.metadata, w.state AS wait_state, w.asked_at, w.deadline, w.answered_by, w.answered_at,
       y.place AS yielded
FROM effective_invocations($1) AS i
LEFT JOIN (SELECT number, min(place) AS place FROM effective_yields($1) GROUP BY number) AS y ON y.number = i.number
LEFT JOIN waits AS w ON w.execution_id = i.execution_id AND w.number = i.number
WHERE (i.called OR i.state <> 'not_reached') AND (NOT $3 OR (i.execution_id = $1 AND i.state <> 'reused'))
ORDER BY CASE WHEN $2 THEN i.position ELSE i.number END, i.number;

-- name: taken
-- What the calls of an execution have upstream: $1 execution.
SELECT coalesce(array_agg(DISTINCT taken.number), '{}')
FROM invocations AS i CROSS JOIN unnest(i.upstream) AS taken (number)
WHERE i.execution_id = $1;
