-- name: of_execution
INSERT INTO released_objects (key)
SELECT DISTINCT one.key FROM executions e CROSS JOIN LATERAL unnest(object_keys(e.inputs, e.result, e.result_binding)) one (key)
WHERE e.id = $1 ORDER BY one.key
ON CONFLICT (key) DO UPDATE SET since = excluded.since

-- name: of_invocations
-- Of the first $2 invocations of an execution, which are deleted next; null stands for all.
INSERT INTO released_objects (key)
SELECT DISTINCT one.key
FROM (SELECT * FROM invocations WHERE execution_id = $1 ORDER BY number LIMIT $2) i
CROSS JOIN LATERAL unnest(object_keys(i.inputs, i.outputs, i.override_outputs)) one (key)
WHERE position('blobs/'::bytea IN i.inputs) > 0 OR position('blobs/'::bytea IN i.outputs) > 0
   OR position('blobs/'::bytea IN i.override_outputs) > 0
ORDER BY one.key
ON CONFLICT (key) DO UPDATE SET since = excluded.since

-- name: of_artifacts
-- Of the first $2 artifacts of an execution, which are deleted next; null stands for all.
INSERT INTO released_objects (key)
SELECT DISTINCT one.key
FROM (SELECT * FROM artifacts WHERE execution_id = $1 ORDER BY id LIMIT $2) a
CROSS JOIN LATERAL unnest(object_keys(a.payload)) one (key)
ORDER BY one.key
ON CONFLICT (key) DO UPDATE SET since = excluded.since

-- name: due
-- Those that were released longer ago than $1, at most $2 of them.
SELECT key FROM released_objects WHERE since < clock_timestamp() - $1::interval
ORDER BY since LIMIT $2 FOR UPDATE SKIP LOCKED

-- name: in_use
-- Which of these keys something has yet. OFFSET 0 has each looked up; the conditions are those of the indexes.
SELECT wanted.key FROM unnest($1::text[]) AS wanted (key)
WHERE EXISTS (
        SELECT FROM invocations i
        WHERE (position('blobs/'::bytea IN i.inputs) > 0 OR position('blobs/'::bytea IN i.outputs) > 0
               OR position('blobs/'::bytea IN i.override_outputs) > 0)
          AND object_keys(i.inputs, i.outputs, i.override_outputs) @> ARRAY[wanted.key] OFFSET 0)
   OR EXISTS (
        SELECT FROM executions e
        WHERE (position('blobs/'::bytea IN e.inputs) > 0 OR position('blobs/'::bytea IN e.result) > 0
               OR position('blobs/'::bytea IN e.result_binding) > 0)
          AND object_keys(e.inputs, e.result, e.result_binding) @> ARRAY[wanted.key] OFFSET 0)
   OR EXISTS (
        SELECT FROM artifacts a
        WHERE position('blobs/'::bytea IN a.payload) > 0 AND object_keys(a.payload) @> ARRAY[wanted.key] OFFSET 0)

-- name: before
SELECT clock_timestamp() - $1::interval

-- name: settled
DELETE FROM released_objects WHERE key = ANY ($1::text[])

-- name: later
UPDATE released_objects SET since = clock_timestamp() WHERE key = ANY ($1::text[])

-- name: this_database
SELECT id FROM this_database
