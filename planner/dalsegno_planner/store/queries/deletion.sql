-- name: lock
SELECT state FROM executions WHERE id = $1 FOR UPDATE

-- name: readers
SELECT e.name FROM lineage l JOIN executions e ON e.id = l.execution_id
WHERE l.ancestor_id = $1 AND l.execution_id <> $1 ORDER BY e.id LIMIT $2

-- name: logs
DELETE FROM logs WHERE execution_id = $1

-- name: events
DELETE FROM events WHERE execution_id = $1

-- name: attempts
DELETE FROM attempts WHERE execution_id = $1

-- name: waits
DELETE FROM waits WHERE execution_id = $1

-- name: edges
DELETE FROM edges WHERE execution_id = $1

-- name: yields
DELETE FROM yields WHERE execution_id = $1

-- name: artifacts
DELETE FROM artifacts WHERE execution_id = $1

-- name: invocations
DELETE FROM invocations WHERE execution_id = $1

-- name: tasks
DELETE FROM tasks WHERE execution_id = $1

-- name: lineage
DELETE FROM lineage WHERE execution_id = $1

-- name: execution
DELETE FROM executions WHERE id = $1
