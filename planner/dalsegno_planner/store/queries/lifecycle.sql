-- Retry, in place, and resumption. The execution's row is locked first: an execution that has ended has no tasks, so that
-- no commit holds rows of it.

-- name: lock
SELECT state, kind, debug, failure, retry_request_id, coalesce(replay -> 'roots', '[]') AS roots,
       EXISTS (SELECT FROM lineage WHERE lineage.execution_id = $1 AND lineage.depth > 0) AS has_ancestors,
       EXISTS (SELECT FROM lineage WHERE lineage.ancestor_id = $1 AND lineage.depth > 0) AS has_readers
FROM executions WHERE id = $1 FOR UPDATE;

-- name: keep_for_readers
-- Replays that read from the execution get rows of their own of what the retry may change, as it is now, so that they
-- stay as they are. A flow's replay that runs again may write any number that it shows: of that one all are kept.
-- What is hidden stays so: a tombstone at position 0 is of no call.
-- $1 execution, $2 whether all.
WITH kept AS (
    INSERT INTO invocations (execution_id, number, position, invocation_id, name, kind, state, called, module, code_digest,
                             attempt, supplier_id, stale_inputs, started_at, finished_at, upstream, after, reads_inputs,
                             overridden_inputs, inputs, outputs, override_outputs, failure, options)
    SELECT reader.execution_id, i.number, CASE shown.state WHEN 'reused' THEN i.position ELSE 0 END, i.invocation_id, i.name, i.kind, shown.state, i.called, i.module,
           i.code_digest, i.attempts_before + i.attempt,
           CASE shown.state WHEN 'reused' THEN coalesce(i.supplier_id, i.execution_id) END, i.stale_inputs, i.started_at,
           i.finished_at, i.upstream, i.after, i.reads_inputs, i.overridden_inputs, i.inputs, i.outputs, i.override_outputs,
           i.failure, i.options
    FROM effective_invocations($1) AS i
    CROSS JOIN LATERAL (
        SELECT CASE WHEN i.state = 'not_reached' AND NOT i.called THEN 'not_reached' ELSE 'reused' END AS state) AS shown
    JOIN lineage AS reader ON reader.ancestor_id = $1 AND reader.depth > 0 AND i.number < reader.number_limit
    WHERE ($2 OR i.state NOT IN ('completed', 'reused'))
      AND NOT EXISTS (
          SELECT FROM lineage AS near
          CROSS JOIN LATERAL (
              SELECT FROM invocations AS x
              WHERE x.execution_id = near.ancestor_id AND x.number = i.number AND x.number < near.number_limit OFFSET 0) AS n
          WHERE near.execution_id = reader.execution_id AND near.depth < reader.depth)
    ON CONFLICT DO NOTHING
    RETURNING execution_id, number, upstream
)
INSERT INTO edges (execution_id, upstream, downstream)
SELECT DISTINCT kept.execution_id, u.number, kept.number FROM kept CROSS JOIN LATERAL unnest(kept.upstream) AS u (number)
ON CONFLICT DO NOTHING;

-- name: keep_yields_for_readers
-- They keep the order of futures as well: $1 execution.
INSERT INTO yields (execution_id, place, number)
SELECT reader.execution_id, y.place, y.number
FROM effective_yields($1) AS y
JOIN lineage AS reader ON reader.ancestor_id = $1 AND reader.depth > 0 AND y.number < reader.number_limit
WHERE NOT EXISTS (
    SELECT FROM lineage AS near
    JOIN yields AS x ON x.execution_id = near.ancestor_id AND x.place = y.place AND x.number < near.number_limit
    WHERE near.execution_id = reader.execution_id AND near.depth < reader.depth)
ON CONFLICT DO NOTHING;

-- name: forget_promotions
-- What each invocation has to wait for is counted anew.
DELETE FROM tasks WHERE execution_id = $1 AND number < 0;

-- name: reset_pipeline
-- What failed and what never ran: $1 execution, pinned code ($2 modules, $3 names, $4 digests).
UPDATE invocations AS i
SET state = 'pending', attempts_before = i.attempts_before + i.attempt, attempt = 0, started_at = NULL, finished_at = NULL,
    outputs = NULL, failure = NULL, progress = NULL,
    pinned_digest = coalesce((
        SELECT pin.digest FROM unnest($2::text[], $3::text[], $4::text[]) AS pin (module, name, digest)
        WHERE pin.module = i.module AND pin.name = i.name LIMIT 1), '')
WHERE i.execution_id = $1 AND i.called AND i.state IN ('failed', 'cancelled', 'not_reached')
RETURNING i.number;

-- name: block
-- How many upstream invocations each has to wait for now. OFFSET 0: each is looked up by its key; joined, all that are
-- pending are gone through for every one.
UPDATE invocations AS i
SET blocked_by = (
    SELECT count(*) FROM unnest(i.upstream) AS u (number)
    CROSS JOIN LATERAL (
        SELECT FROM invocations AS p
        WHERE p.execution_id = $1 AND p.number = u.number AND p.state = 'pending' AND p.override_outputs IS NULL
        OFFSET 0) AS p)
WHERE i.execution_id = $1 AND i.state = 'pending';

-- name: insert_tasks
-- The epochs go on where they ended, so that what still runs with an old token stays fenced.
INSERT INTO tasks (execution_id, number, epoch, is_body, lane, route, limited_by, at_most)
SELECT i.execution_id, i.number, i.epoch, false, e.lane, task_route(e.project, i.module, i.name, i.pinned_digest),
       l.limited_by, l.at_most
FROM invocations AS i JOIN executions AS e ON e.id = i.execution_id CROSS JOIN LATERAL task_limit(e.project, i.options) AS l
WHERE i.execution_id = $1 AND i.state = 'pending' AND i.blocked_by = 0
ORDER BY i.number;

-- name: failures_to_repeat
-- Of a flow's calls that failed: the one that the execution's failure names, what was not reached for its sake, and those
-- after whose failure the body made no further call. A body that went on after a failure has caught it: that one stays.
-- $1 execution, $2 invocation ID that the failure names, $3 whether the body has ended by itself.
WITH made AS (
    SELECT max(first.event) AS last FROM (
        SELECT min(events.event) AS event FROM events WHERE events.execution_id = $1 AND events.number > 0
        GROUP BY events.number) AS first
), named AS (
    SELECT i.number, i.failure FROM invocations AS i WHERE i.execution_id = $1 AND i.invocation_id = $2
)
SELECT i.number
FROM invocations AS i
WHERE i.execution_id = $1 AND i.number IN (SELECT named.number FROM named)
  AND (i.state = 'failed' OR i.kind = 'wait' OR (i.state = 'not_reached' AND i.failure IS NOT NULL))
UNION
SELECT i.number
FROM invocations AS i
WHERE i.execution_id = $1 AND i.state NOT IN ('completed', 'reused')
  AND (i.state = 'failed' OR (i.state = 'not_reached' AND i.called AND i.failure IS NOT NULL))
  AND (i.failure = (SELECT named.failure FROM named)
       OR ($3 AND (SELECT made.last FROM made) < (
           SELECT max(events.event) FROM events
           WHERE events.execution_id = $1 AND events.number = i.number AND events.state IN ('failed', 'not_reached'))));

-- name: forget_tombstones
-- What the body of a replay did not come to is reused again: rows that say nothing else, of calls that are no roots.
-- $1 execution, $2 roots.
DELETE FROM invocations AS i
WHERE i.execution_id = $1 AND i.state = 'not_reached' AND NOT i.called AND i.supplier_id IS NULL AND i.kind = 'step'
  AND i.position > 0 AND i.inputs = '' AND i.options = '' AND i.upstream = '{}' AND i.override_outputs IS NULL AND i.number <> ALL ($2::integer[])
  AND EXISTS (
      SELECT FROM lineage
      -- OFFSET 0: by the whole key, and not by the number in all executions.
      CROSS JOIN LATERAL (
          SELECT FROM invocations AS x
          WHERE x.execution_id = lineage.ancestor_id AND x.number = i.number AND x.number < lineage.number_limit
          OFFSET 0) AS found
      WHERE lineage.execution_id = $1 AND lineage.depth > 0);

-- name: reuse_again
-- The same for what is reused with a difference.
UPDATE invocations SET state = 'reused', called = true
WHERE execution_id = $1 AND state = 'not_reached' AND NOT called AND supplier_id IS NOT NULL;

-- name: reset_flow
-- What the body is to call again: $1 execution, $2 numbers of calls that failed.
UPDATE invocations AS i
SET state = 'pending', called = false, blocked_by = 0, attempts_before = i.attempts_before + i.attempt, attempt = 0,
    started_at = NULL, finished_at = NULL, outputs = NULL, failure = NULL, progress = NULL
WHERE i.execution_id = $1 AND i.position > 0
  AND (i.number = ANY ($2::integer[]) OR i.state = 'cancelled' OR (i.state = 'not_reached' AND i.failure IS NULL))
RETURNING i.number;

-- name: forget_waits
-- They are asked again.
DELETE FROM waits AS w USING invocations AS i
WHERE w.execution_id = $1 AND i.execution_id = $1 AND i.number = w.number AND i.state = 'pending';

-- name: restart
-- $2 numbers of the invocations that are pending again, $3 pinned digest of the flow or pipeline, $4 request.
WITH left_over AS (
    SELECT count(*) FILTER (WHERE i.state = 'pending') AS pending,
           count(*) FILTER (WHERE i.state = 'failed' AND i.kind = 'step') AS failed
    FROM invocations AS i WHERE i.execution_id = $1 AND i.state NOT IN ('completed', 'reused')
), execution AS (
    UPDATE executions AS e
    SET state = 'running', started_at = coalesce(e.started_at, clock_timestamp()), finished_at = NULL, failure = NULL,
        result = NULL, unfinished = CASE e.kind WHEN 'pipeline' THEN left_over.pending ELSE 0 END,
        failures = left_over.failed, pinned_digest = $3, retry_request_id = $4,
        deadline = clock_timestamp() + make_interval(secs => e.time_limit),
        last_event = e.last_event + cardinality($2::integer[]) + 1
    FROM left_over WHERE e.id = $1
    RETURNING e.id, e.last_event
)
INSERT INTO events (execution_id, event, number, state)
SELECT execution.id, execution.last_event - cardinality($2::integer[]) - 1 + again.place, again.number, 'pending'
FROM execution, unnest($2::integer[]) WITH ORDINALITY AS again (number, place)
UNION ALL
SELECT execution.id, execution.last_event, 0, 'running' FROM execution;

-- name: insert_body
-- Puts the body of a flow back to work, unless it is there: $1 execution.
INSERT INTO tasks (execution_id, number, epoch, is_body, lane, route)
SELECT e.id, 0, e.body_epoch, true, e.lane, task_route(e.project, e.module, e.flow, e.pinned_digest)
FROM executions AS e WHERE e.id = $1
ON CONFLICT DO NOTHING
RETURNING number;

-- name: open_questions
SELECT i.invocation_id FROM waits AS w
JOIN invocations AS i ON i.execution_id = w.execution_id AND i.number = w.number
WHERE w.execution_id = $1 AND w.state = 'pending' ORDER BY i.position LIMIT 6;

-- name: resume
WITH execution AS (
    UPDATE executions SET state = 'running', last_event = last_event + 1 WHERE id = $1 AND state = 'waiting'
    RETURNING id, last_event
)
INSERT INTO events (execution_id, event, number, state) SELECT id, last_event, 0, 'running' FROM execution;
