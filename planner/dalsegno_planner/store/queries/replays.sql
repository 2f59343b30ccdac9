-- Planning and creating replays. The roots and what is affected are kept in temporary tables of the connection, so that
-- a plan of any size stays in Postgres.

-- name: open
-- The source of a replay, in the columns of core.execution.Execution, with what its record does not tell and what selectors
-- may mean; the arguments are those of the function.
SELECT e.id, e.project, e.name, e.flow, e.kind, e.state, e.module, e.pinned_digest, e.source_id, e.debug, e.single_step,
       e.requested_by, e.invocation_count, e.last_event, e.created_at, e.started_at, e.finished_at, e.inputs, e.result,
       e.failure, e.result_binding, e.replay, e.time_limit, e.deadline, e.lane AS rank,
       opened.code_digest, opened.shaping_inputs, opened.next_number, opened.lineage_length, opened.size,
       opened.candidate_numbers, opened.candidate_ids, opened.candidate_names, opened.candidate_kinds,
       opened.candidate_suppliers, opened.foreseen
FROM executions AS e CROSS JOIN LATERAL open_plan(e.id, $2, $3, $4, $5, $6, $7, $8, $9) AS opened
WHERE e.id = $1;

-- name: plan_of_few
-- The arguments are those of the function.
SELECT number, role, invocation_id, name, kind, seconds, overridden, objects, reasons, causes, taker, outputs
FROM plan_of_few($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18);

-- name: few_marks
-- What the temporary tables hold, where that is little; $2 and on are the arguments of the function after the roots.
SELECT found.number, found.role, found.invocation_id, found.name, found.kind, found.seconds, found.overridden,
       found.objects, found.reasons, found.causes, found.taker, found.outputs
FROM (SELECT coalesce(array_agg(number), '{}') AS numbers, coalesce(array_agg(reason), '{}') AS reasons,
             coalesce(array_agg(cause), '{}') AS causes
      FROM replay_roots) AS root
CROSS JOIN LATERAL few_marks(
    $1, ARRAY(SELECT number FROM replay_marks WHERE role = 'affected'),
    ARRAY(SELECT number FROM replay_marks WHERE role = 'wait'), root.numbers, root.reasons, root.causes,
    $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS found;

-- name: begin_marks
SELECT begin_marks();

-- name: store_marks
-- $1 numbers, $2 their roles, $3 whether their outputs are overridden.
SELECT store_marks($1, $2, $3);

-- name: mark_affected
-- Beginning from the roots that are there; the arguments are those of the function.
SELECT mark_affected($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: numbers_of_roots
SELECT DISTINCT number FROM replay_roots ORDER BY number;

-- name: numbers_of_affected
SELECT number FROM replay_marks WHERE role = 'affected' ORDER BY number;

-- name: root_numbers
INSERT INTO replay_roots (number, reason, cause)
SELECT number, reason, cause FROM unnest($1::integer[], $2::text[], $3::text[]) AS given (number, reason, cause)
ON CONFLICT DO NOTHING;

-- name: root_name
-- Every call of a step: $1 execution, $2 name, $3 reason, $4 cause.
INSERT INTO replay_roots (number, reason, cause)
SELECT i.number, $3, $4
FROM shown_calls_of($1, $2) AS i
ON CONFLICT DO NOTHING;

-- name: root_replaced
-- What did not succeed, though an earlier replay has overridden its output: $1 execution, $2 reason.
-- Only replays have deltas, so that first recordings need no look.
INSERT INTO replay_roots (number, reason, cause)
SELECT i.number, $2, ''
FROM lineage
JOIN executions AS replay ON replay.id = lineage.ancestor_id AND replay.source_id IS NOT NULL
CROSS JOIN LATERAL (
    SELECT row.number FROM invocations AS row
    WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit
      AND row.state = 'reused' AND row.outputs IS NULL AND row.kind = 'step'
    OFFSET 0
) AS i
WHERE lineage.execution_id = $1
  AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth($1, i.number) AS near))
ON CONFLICT DO NOTHING;

-- name: root_changed
-- Steps whose code is none of today's: $1 execution, $2 modules, $3 names, $4 digests, $5 reason.
INSERT INTO replay_roots (number, reason, cause)
SELECT i.number, $5, ''
FROM shown_calls($1) AS i
LEFT JOIN unnest($2::text[], $3::text[], $4::text[]) AS today (module, name, digest)
       ON today.module = i.module AND today.name = i.name AND today.digest = i.code_digest AND i.code_digest <> ''
WHERE i.kind = 'step' AND today.name IS NULL
ON CONFLICT DO NOTHING;

-- name: root_readers
-- Steps that read an overridden flow input: $1 execution, $2 input names, $3 reason.
INSERT INTO replay_roots (number, reason, cause)
SELECT i.number, $3, wanted.name
FROM lineage
CROSS JOIN LATERAL (
    SELECT row.* FROM invocations AS row
    WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit AND row.reads_inputs <> '{}'
    OFFSET 0
) AS i
CROSS JOIN LATERAL unnest(i.reads_inputs) AS wanted (name)
WHERE lineage.execution_id = $1
  AND i.reads_inputs && $2::text[] AND wanted.name = ANY ($2)
  AND i.kind = 'step' AND (i.called OR i.state <> 'not_reached')
  AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth($1, i.number) AS near))
ON CONFLICT DO NOTHING;

-- name: affect_numbers
INSERT INTO replay_marks (number, role) SELECT number, $2 FROM unnest($1::integer[]) AS given (number)
ON CONFLICT DO NOTHING;

-- name: mark_overridden
-- Outputs that this request overrides.
UPDATE replay_marks SET overridden = true WHERE number = ANY ($1::integer[]);

-- name: mark_overridden_before
-- Outputs that an earlier replay overrode; $1 execution.
UPDATE replay_marks SET overridden = true
WHERE (SELECT i.override_outputs IS NOT NULL FROM shown_invocation($1, replay_marks.number) AS i);

-- name: expect_much
-- Large sets are worth a plan of their own.
SET LOCAL plan_cache_mode = force_custom_plan;
SET LOCAL enable_seqscan = on;

-- name: analyze
ANALYZE replay_roots, replay_marks;

-- name: counts
-- How many roots and affected there are, and what identifies the sets whatever their order.
SELECT root.count AS roots, root.hash AS roots_hash, mark.affected, mark.waits, mark.hash AS marks_hash
FROM (SELECT count(DISTINCT number), coalesce(bit_xor(hashtextextended(number || ' ' || reason, 0)), 0) AS hash
      FROM (SELECT DISTINCT number, reason FROM replay_roots) AS distinct_roots) AS root,
     (SELECT count(*) FILTER (WHERE role = 'affected') AS affected, count(*) FILTER (WHERE role = 'wait') AS waits,
             coalesce(bit_xor(hashtextextended(number || ' ' || role, 0)), 0) AS hash
      FROM replay_marks) AS mark;

-- name: roots_among
SELECT number, array_agg(reason ORDER BY reason, cause) AS reasons, array_agg(cause ORDER BY reason, cause) AS causes
FROM replay_roots
WHERE number = ANY ($1::integer[])
GROUP BY number;

-- name: page_of_marks
-- $1 execution, $2 roles, $3 only roots, $4 only waits, $5 after this number, $6 how many.
SELECT i.number, i.invocation_id, i.name, i.kind, mark.role, mark.overridden,
       coalesce(date_part('epoch', i.finished_at - i.started_at), 0) AS seconds, root.reasons, root.causes
FROM (
    SELECT marks.* FROM replay_marks AS marks
    WHERE marks.number > $5 AND marks.role = ANY ($2::text[])
      AND (NOT $3 OR EXISTS (SELECT FROM replay_roots AS one WHERE one.number = marks.number))
      AND (NOT $4 OR marks.role = 'wait'
           OR (SELECT call.kind = 'wait' FROM shown_invocation($1, marks.number) AS call))
    ORDER BY marks.number LIMIT $6
) AS mark
CROSS JOIN LATERAL shown_invocation($1, mark.number) AS i
CROSS JOIN LATERAL (
    SELECT array_agg(one.reason ORDER BY one.reason, one.cause) AS reasons,
           array_agg(one.cause ORDER BY one.reason, one.cause) AS causes
    FROM replay_roots AS one WHERE one.number = mark.number
) AS root
ORDER BY i.number;

-- name: page_of_reused
-- $1 execution, $2 overridden numbers, $3 after this number, $4 how many. Each execution contributes no more than a page.
SELECT DISTINCT ON (i.number)
       i.number, i.invocation_id, i.name, i.kind, i.state = 'not_reached' AND NOT i.called AS hidden,
       i.override_outputs IS NOT NULL OR i.number = ANY ($2::integer[]) AS overridden,
       coalesce(date_part('epoch', i.finished_at - i.started_at), 0) AS seconds,
       coalesce(i.supplier_id, i.execution_id) AS supplier_id
FROM lineage
CROSS JOIN LATERAL (
    SELECT row.* FROM invocations AS row
    WHERE row.execution_id = lineage.ancestor_id AND row.number > $3 AND row.number < lineage.number_limit
      AND NOT EXISTS (SELECT FROM replay_marks AS marks WHERE marks.number = row.number)
    ORDER BY row.number LIMIT $4
) AS i
WHERE lineage.execution_id = $1
ORDER BY i.number, lineage.depth
LIMIT $4;

-- name: reused_with_other_code
-- Reused steps whose code is known and none of today's; the arguments are those of the function, but for the last.
SELECT one.number, one.invocation_id
FROM steps_with_other_code($1, $2, $3, $4, $5, 21 + (SELECT count(*) FROM replay_marks)) AS one
WHERE NOT EXISTS (SELECT FROM replay_marks AS marks WHERE marks.number = one.number)
ORDER BY one.number LIMIT 21;

-- name: reused_readers
-- Reused steps that read an overridden flow input: $1 execution, $2 input names.
SELECT one.number, one.invocation_id
FROM steps_reading($1, $2, 21 + (SELECT count(*) FROM replay_marks)) AS one
WHERE NOT EXISTS (SELECT FROM replay_marks AS marks WHERE marks.number = one.number)
ORDER BY one.number LIMIT 21;

-- name: overridden_anyway
-- What re-executes although its output is overridden: $1 execution.
SELECT mark.number, i.invocation_id
FROM (SELECT marks.number FROM replay_marks AS marks
      WHERE marks.overridden AND marks.role = 'affected' ORDER BY marks.number LIMIT 21) AS mark
CROSS JOIN LATERAL shown_invocation($1, mark.number) AS i
ORDER BY mark.number;

-- name: needed_outputs
-- Reused invocations of which something affected takes an output that is not there, or may be in the object store (its
-- keys begin with blobs/): $1 execution, $2 overridden numbers, $3 affected numbers whose inputs are looked at apart,
-- $4 how many.
SELECT taken.number, o.invocation_id, taken.consumer AS taker, coalesce(o.override_outputs, o.outputs) AS outputs,
       count(*) OVER () AS count
FROM (
    SELECT u.number, min(i.invocation_id) AS consumer
    FROM replay_marks AS mark
    CROSS JOIN LATERAL shown_invocation($1, mark.number) AS i
    CROSS JOIN LATERAL unnest(i.upstream) AS u (number)
    WHERE mark.role = 'affected' AND mark.number <> ALL ($3::integer[])
      AND u.number <> ALL (i.after) AND u.number <> ALL ($2::integer[])
      AND NOT EXISTS (SELECT FROM replay_marks AS marks WHERE marks.number = u.number OFFSET 0)
    GROUP BY u.number
) AS taken
CROSS JOIN LATERAL shown_invocation($1, taken.number) AS o
WHERE o.kind = 'step'
  AND (coalesce(o.override_outputs, o.outputs, '') = ''
       OR position('blobs/'::bytea IN coalesce(o.override_outputs, o.outputs)) > 0)
ORDER BY coalesce(o.override_outputs, o.outputs, '') <> '', taken.number
LIMIT $4;

-- name: needed_outputs_of_few
-- The same where most is affected: what is reused and has such an output, and then whether something affected takes it.
SELECT i.number, i.invocation_id, taking.consumer AS taker, i.outputs, count(*) OVER () AS count
FROM lineage
CROSS JOIN LATERAL (
    SELECT row.number, row.invocation_id, coalesce(row.override_outputs, row.outputs) AS outputs FROM invocations AS row
    WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit
      AND row.kind = 'step' AND row.number <> ALL ($2::integer[])
      AND (coalesce(row.override_outputs, row.outputs, '') = ''
           OR position('blobs/'::bytea IN coalesce(row.override_outputs, row.outputs)) > 0)
      AND NOT EXISTS (SELECT FROM replay_marks AS marks WHERE marks.number = row.number)
    OFFSET 0
) AS i
CROSS JOIN LATERAL (
    SELECT min(consumer.invocation_id) AS consumer
    FROM lineage AS near
    JOIN edges ON edges.execution_id = near.ancestor_id AND edges.upstream = i.number AND edges.downstream < near.number_limit
    JOIN replay_marks AS marks ON marks.number = edges.downstream
    CROSS JOIN LATERAL shown_invocation($1, edges.downstream) AS consumer
    WHERE near.execution_id = $1 AND marks.role = 'affected' AND edges.downstream <> ALL ($3::integer[])
      AND consumer.execution_id = edges.execution_id AND i.number <> ALL (consumer.after)
) AS taking
WHERE lineage.execution_id = $1 AND taking.consumer IS NOT NULL
  AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth($1, i.number) AS near))
ORDER BY coalesce(i.outputs, '') <> '', i.number
LIMIT $4;

-- name: needed_among
-- Which of these numbers ($3) are reused and have no output, or may have one in the object store: $1 execution,
-- $2 overridden numbers, $4 which step takes each.
SELECT wanted.number, o.invocation_id, wanted.taker, coalesce(o.override_outputs, o.outputs) AS outputs
FROM unnest($3::integer[], $4::text[]) AS wanted (number, taker)
CROSS JOIN LATERAL shown_invocation($1, wanted.number) AS o
WHERE wanted.number <> ALL ($2::integer[])
  AND o.kind = 'step'
  AND (coalesce(o.override_outputs, o.outputs, '') = ''
       OR position('blobs/'::bytea IN coalesce(o.override_outputs, o.outputs)) > 0)
  AND NOT EXISTS (SELECT FROM replay_marks AS marks WHERE marks.number = wanted.number)
ORDER BY wanted.number;

-- name: affected_among
SELECT number FROM replay_marks WHERE role = 'affected' AND number = ANY ($1::integer[]);

-- name: affected_with_objects
-- Affected steps whose inputs may be in the object store: $1 execution, $2 numbers that are looked at apart, $3 how many.
SELECT i.invocation_id, i.inputs, count(*) OVER () AS count
FROM replay_marks AS mark
CROSS JOIN LATERAL shown_invocation($1, mark.number) AS i
WHERE mark.role = 'affected' AND mark.number <> ALL ($2::integer[]) AND position('blobs/'::bytea IN i.inputs) > 0
ORDER BY mark.number
LIMIT $3;

-- name: affected_with_objects_of_few
-- The same where much is affected: those with such inputs have an index of their own, and as a rule are few.
SELECT i.invocation_id, i.inputs, count(*) OVER () AS count
FROM lineage
CROSS JOIN LATERAL (
    SELECT row.number, row.invocation_id, row.inputs FROM invocations AS row
    WHERE row.execution_id = lineage.ancestor_id AND row.number < lineage.number_limit
      AND position('blobs/'::bytea IN row.inputs) > 0
    OFFSET 0
) AS i
WHERE lineage.execution_id = $1 AND i.number <> ALL ($2::integer[])
  AND EXISTS (SELECT FROM replay_marks AS mark WHERE mark.number = i.number AND mark.role = 'affected')
  AND (lineage.depth = 0 OR lineage.depth = (SELECT near.depth FROM shown_depth($1, i.number) AS near))
ORDER BY i.number
LIMIT $3;

-- name: inputs_read
-- Which of these flow inputs ($2) an affected step reads: $1 execution.
SELECT wanted.name
FROM unnest($2::text[]) AS wanted (name)
WHERE EXISTS (
    SELECT FROM replay_marks AS mark
    CROSS JOIN LATERAL shown_invocation($1, mark.number) AS i
    WHERE mark.role = 'affected' AND wanted.name = ANY (i.reads_inputs));

-- name: create
-- The arguments are those of the function; the columns those of core.execution.Execution.
SELECT id, project, name, flow, kind, state, module, pinned_digest, source_id, debug, single_step, requested_by,
       invocation_count, last_event, created_at, started_at, finished_at, inputs, result, failure, result_binding, replay,
       time_limit, deadline, lane AS rank
FROM create_replay($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
                   $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42);

-- name: options_of
SELECT options FROM shown_invocation($1, $2);
