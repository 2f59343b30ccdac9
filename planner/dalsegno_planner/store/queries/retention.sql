-- name: before
SELECT clock_timestamp() - $1::interval

-- name: expired
-- Executions that ended long ago and that nothing reads from, by their ID, which tells when they were created:
-- $1 after this one, $2 up to this one, $3 ended before, $4 how many. OFFSET 0 has readers looked up for each; joined, all
-- executions and all lineages are gone through for every page.
SELECT e.id FROM executions e
WHERE e.id > $1 AND e.id <= $2 AND e.finished_at < $3 AND e.state IN ('completed', 'failed', 'cancelled')
  AND NOT EXISTS (SELECT FROM lineage l WHERE l.ancestor_id = e.id AND l.execution_id <> e.id OFFSET 0)
ORDER BY e.id LIMIT $4

-- name: lock
-- The lock is the one that the creation of a replay takes: a replay is either seen by `forget`, or finds its source gone.
SELECT FROM executions WHERE id = $1 FOR UPDATE

-- name: forget
-- Deletes what makes it an execution; its other rows are for later.
WITH gone AS (
    DELETE FROM executions e
    WHERE e.id = $1 AND e.finished_at < $2 AND e.state IN ('completed', 'failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM lineage l WHERE l.ancestor_id = e.id AND l.execution_id <> e.id)
    RETURNING e.id
), unread AS (
    DELETE FROM lineage l USING gone WHERE l.execution_id = gone.id
)
INSERT INTO garbage (execution_id) SELECT id FROM gone RETURNING execution_id

-- name: next_garbage
SELECT execution_id FROM garbage ORDER BY execution_id LIMIT 1 FOR UPDATE SKIP LOCKED

-- name: logs
-- In the order of the key, here and below: otherwise a table of which one execution has much is gone through from its start.
DELETE FROM logs WHERE ctid = ANY (ARRAY(SELECT ctid FROM logs WHERE execution_id = $1 ORDER BY written_at, sequence LIMIT $2))

-- name: events
DELETE FROM events WHERE ctid = ANY (ARRAY(SELECT ctid FROM events WHERE execution_id = $1 ORDER BY event LIMIT $2))

-- name: attempts
DELETE FROM attempts WHERE ctid = ANY (ARRAY(SELECT ctid FROM attempts WHERE execution_id = $1 ORDER BY number, attempt LIMIT $2))

-- name: waits
DELETE FROM waits WHERE ctid = ANY (ARRAY(SELECT ctid FROM waits WHERE execution_id = $1 ORDER BY number LIMIT $2))

-- name: edges
DELETE FROM edges WHERE ctid = ANY (ARRAY(SELECT ctid FROM edges WHERE execution_id = $1 ORDER BY upstream, downstream LIMIT $2))

-- name: yields
DELETE FROM yields WHERE ctid = ANY (ARRAY(SELECT ctid FROM yields WHERE execution_id = $1 ORDER BY place LIMIT $2))

-- name: tasks
DELETE FROM tasks WHERE ctid = ANY (ARRAY(SELECT ctid FROM tasks WHERE execution_id = $1 ORDER BY number LIMIT $2))

-- name: artifacts
DELETE FROM artifacts WHERE ctid = ANY (ARRAY(SELECT ctid FROM artifacts WHERE execution_id = $1 ORDER BY id LIMIT $2))

-- name: invocations
DELETE FROM invocations WHERE ctid = ANY (ARRAY(SELECT ctid FROM invocations WHERE execution_id = $1 ORDER BY number LIMIT $2))

-- name: swept
DELETE FROM garbage WHERE execution_id = $1
