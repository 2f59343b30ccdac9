-- name: commit
SELECT durable, claimed, resolved, moved, changed, requeued, promoting
FROM dispatch_commit($1::task_result[], $2::body_call[], $3::failed_attempt[], $4::body_end[], $5::task_token[], $6::claim[])

-- name: promote
-- How many consumers were told of the end of their producer; null where none are left to be told.
SELECT dispatch_promote()

-- name: mark_unreached
-- A part of what is left to be marked after failures: how much it was, null where nothing was left, and what has changed.
SELECT marked, changed, moved FROM dispatch_mark_unreached()

-- name: open_session
SELECT generation, lost FROM open_session($1, $2, $3, $4::text[], $5, $6::task_token[])

-- name: add_routes
INSERT INTO session_routes (route, session_id) SELECT route, $2 FROM unnest($1::text[]) route ON CONFLICT DO NOTHING

-- name: close_sessions
SELECT closed, returned FROM close_sessions($1)

-- name: close_stream
-- Ends a session whose executor has said goodbye on the stream of this generation, unless it has opened another since.
SELECT closed, returned
FROM close_sessions(ARRAY(SELECT s.id FROM sessions s WHERE s.id = $1 AND s.generation = $2 FOR UPDATE))

-- name: release_due
-- Tasks whose time to be tried again has come are ready. The time is one that stays the same, here and in what else is
-- due, so that an index ends where it is; compared with the clock, all that is to come is read.
UPDATE tasks SET available_at = '-infinity'
WHERE ctid = ANY (ARRAY(
    SELECT t.ctid FROM tasks t WHERE t.available_at > '-infinity' AND t.available_at <= statement_timestamp()
    ORDER BY t.available_at LIMIT 10000 FOR UPDATE SKIP LOCKED))

-- name: next_due
-- Seconds until the next task is to be tried again, if it is within $1 seconds.
SELECT date_part('epoch', t.available_at - clock_timestamp()) FROM tasks t
WHERE t.available_at > '-infinity' AND t.available_at <= statement_timestamp() + make_interval(secs => $1)
ORDER BY t.available_at LIMIT 1;

-- name: lost_tasks
-- Ready tasks that have been lost with their executors too often. The number is that of the index.
SELECT t.execution_id, t.number, t.epoch, i.invocation_id, i.attempts_before + i.attempt AS attempt
FROM tasks t LEFT JOIN invocations i ON i.execution_id = t.execution_id AND i.number = t.number
WHERE t.losses >= 15 AND t.session_id IS NULL
ORDER BY t.execution_id, t.number LIMIT 1000

-- name: extend_sessions
-- The sessions that still exist and have no other stream live on for another lease; the others have been given up.
UPDATE sessions s SET expires_at = clock_timestamp() + make_interval(secs => $3)
FROM unnest($1::uuid[], $2::integer[]) k(id, generation)
WHERE s.id = k.id AND s.generation = k.generation RETURNING s.id

-- name: clock
-- When the transaction began, in seconds, for comparing.
SELECT extract(epoch FROM now())::double precision

-- name: mark_running
WITH started AS (
    UPDATE tasks t SET running = true
    FROM unnest($1::task_token[]) k
    WHERE t.execution_id = k.execution_id AND t.number = k.number AND t.epoch = k.epoch
      AND t.session_id = k.session_id AND NOT t.running
    RETURNING t.execution_id, t.number
), counted AS (
    UPDATE executions e SET last_event = e.last_event + s.count
    FROM (SELECT execution_id, count(*) FROM started WHERE number > 0 GROUP BY execution_id) s
    WHERE e.id = s.execution_id
    RETURNING e.id, e.last_event - s.count AS before
), recorded AS (
    INSERT INTO events (execution_id, event, number, state)
    SELECT s.execution_id, c.before + row_number() OVER (PARTITION BY s.execution_id ORDER BY s.number), s.number, 'running'
    FROM started s JOIN counted c ON c.id = s.execution_id WHERE s.number > 0
)
SELECT DISTINCT execution_id FROM started

-- name: record_progress
-- How far calls have come: $1 tokens of the tasks in which they run, $2 numbers of the calls, $3 what they say.
-- Rows that a commit has locked are left to it: they are about to end.
WITH said AS (
    SELECT k.execution_id, k.number AS task, k.epoch, k.session_id, n.number, p.progress
    FROM unnest($1::task_token[]) WITH ORDINALITY AS k (execution_id, number, epoch, session_id, place)
    JOIN unnest($2::integer[]) WITH ORDINALITY AS n (number, place) ON n.place = k.place
    JOIN unnest($3::bytea[]) WITH ORDINALITY AS p (progress, place) ON p.place = k.place
), held AS (
    SELECT call.address, s.progress FROM (SELECT * FROM said ORDER BY execution_id, number) s
    CROSS JOIN LATERAL (
        SELECT FROM tasks t
        WHERE t.execution_id = s.execution_id AND t.number = s.task AND t.epoch = s.epoch AND t.session_id = s.session_id
        OFFSET 0) task
    CROSS JOIN LATERAL (
        SELECT i.ctid AS address FROM invocations i
        WHERE i.execution_id = s.execution_id AND i.number = s.number AND i.state = 'pending'
          AND i.progress IS DISTINCT FROM s.progress
        FOR UPDATE SKIP LOCKED OFFSET 0) call
), written AS (
    UPDATE invocations i SET progress = held.progress FROM held WHERE i.ctid = held.address
    RETURNING i.execution_id, i.number
), counts AS (
    SELECT e.id, w.count FROM (SELECT execution_id, count(*) FROM written GROUP BY execution_id ORDER BY execution_id) w
    CROSS JOIN LATERAL (SELECT x.id FROM executions x WHERE x.id = w.execution_id FOR UPDATE OFFSET 0) e
), counted AS (
    UPDATE executions e SET last_event = e.last_event + c.count FROM counts c WHERE e.id = c.id
    RETURNING e.id, e.last_event - c.count AS before
), recorded AS (
    INSERT INTO events (execution_id, event, number, state)
    SELECT w.execution_id, c.before + row_number() OVER (PARTITION BY w.execution_id ORDER BY w.number), w.number, 'running'
    FROM written w JOIN counted c ON c.id = w.execution_id
)
SELECT DISTINCT execution_id FROM written

-- name: lost_by_session
-- Of the tasks that an executor holds ($1), those that are not its any more.
SELECT k.execution_id, k.number, k.epoch FROM unnest($1::task_token[]) k
WHERE NOT EXISTS (
    SELECT FROM tasks t
    WHERE t.execution_id = k.execution_id AND t.number = k.number AND t.epoch = k.epoch AND t.session_id = k.session_id
    OFFSET 0)

-- name: recorded_calls
-- What a body finds recorded, in the order of the calls. Waits that an ancestor recorded are asked again. A call that was
-- not made has no position; what is overridden of it is so wherever it is made. What few calls have is looked up for
-- these alone.
SELECT i.number, i.place AS position, i.kind, i.name, i.invocation_id, i.state, i.inputs, i.failure, i.stale_inputs,
       i.overridden_inputs, coalesce(i.override_outputs, i.outputs) AS outputs,
       i.override_outputs IS NOT NULL AS output_overridden,
       CASE WHEN i.override_outputs IS NOT NULL THEN (
           SELECT e.replay -> 'overridden_numbers' @> to_jsonb(i.number) FROM executions e WHERE e.id = $1
       ) END IS TRUE AS override_is_new,
       i.execution_id = $1 AND i.supplier_id IS NULL AS own,
       CASE WHEN i.execution_id = $1 THEN i.attempts_before ELSE 0 END AS attempts_before,
       CASE WHEN i.state = 'pending' THEN i.called AND (i.blocked_by > 0 OR EXISTS (
           SELECT FROM tasks t WHERE t.execution_id = $1 AND t.number = i.number)) END IS TRUE AS outstanding,
       CASE WHEN i.kind = 'wait' THEN (
           SELECT w.state FROM waits w WHERE w.execution_id = i.execution_id AND w.number = i.number) END AS wait_state,
       -- All of it with the first row, so that it is no query of its own.
       CASE row_number() OVER (ORDER BY i.place, i.number) WHEN 1 THEN (
           SELECT array_agg(ARRAY[y.place, y.number]) FROM effective_yields($1) y) END AS yields
FROM lineage l
CROSS JOIN LATERAL (
    SELECT x.*, CASE WHEN x.called OR x.state <> 'not_reached' THEN x.position ELSE 0 END AS place
    FROM invocations x
    WHERE x.execution_id = l.ancestor_id AND x.number < l.number_limit
      AND (x.called OR x.state <> 'not_reached' OR x.overridden_inputs <> '{}' OR x.override_outputs IS NOT NULL)
    OFFSET 0) i
WHERE l.execution_id = $1
  -- Hidden by no row of a nearer execution.
  AND (l.depth = 0 OR NOT EXISTS (
      SELECT FROM lineage n
      CROSS JOIN LATERAL (
          SELECT FROM invocations h
          WHERE h.execution_id = n.ancestor_id AND h.number = i.number AND h.number < n.number_limit OFFSET 0) h
      WHERE n.execution_id = $1 AND n.depth < l.depth))
ORDER BY i.place, i.number

-- name: count_listeners
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dalsegno-notify' AND datname = current_database()

-- name: notify
SELECT pg_notify($1, word) FROM unnest($2::text[]) word

-- name: outcomes
-- Of calls ($1 executions, $2 numbers) those that have ended, each by its place. Repeats do no harm: a body takes the first
-- outcome of a call. One that is not reached has an outcome where another's failure is the reason, and not where the
-- execution was cancelled.
SELECT k.place::integer AS place, k.execution_id, k.number, i.outputs, i.failure
FROM unnest($1::uuid[], $2::integer[]) WITH ORDINALITY AS k (execution_id, number, place)
CROSS JOIN LATERAL (
    SELECT x.outputs, x.failure FROM invocations AS x
    WHERE x.execution_id = k.execution_id AND x.number = k.number AND x.called
      AND (x.state IN ('completed', 'failed') OR x.state = 'not_reached' AND x.failure IS NOT NULL)
    OFFSET 0) AS i
