-- Executions. The columns of a full row are those of core.execution.Execution, in their order.

-- name: get
SELECT id, project, name, flow, kind, state, module, pinned_digest, source_id, debug, single_step, requested_by,
       invocation_count, last_event, created_at, started_at, finished_at, inputs, result, failure, result_binding, replay,
       time_limit, deadline, lane AS rank
FROM executions WHERE id = $1;

-- name: get_by_request
SELECT id, project, name, flow, kind, state, module, pinned_digest, source_id, debug, single_step, requested_by,
       invocation_count, last_event, created_at, started_at, finished_at, inputs, result, failure, result_binding, replay,
       time_limit, deadline, lane AS rank
FROM executions WHERE request_id = $1;

-- name: get_by_name
SELECT id, project, name, flow, kind, state, module, pinned_digest, source_id, debug, single_step, requested_by,
       invocation_count, last_event, created_at, started_at, finished_at, inputs, result, failure, result_binding, replay,
       time_limit, deadline, lane AS rank
FROM executions WHERE project = $1 AND name = $2;

-- name: name_taken
SELECT EXISTS (SELECT FROM executions WHERE project = $1 AND name = $2 AND request_id IS DISTINCT FROM $3);

-- name: ids_by_prefix
-- $1 and $2 are the lowest and the highest UUID that start so.
SELECT id, name FROM executions WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT 6;

-- name: ids_by_suffix
-- $1 are the last digits, read backwards; no digit comes after `f`.
SELECT id, name FROM executions
WHERE reverse(replace(id::text, '-', '')) COLLATE "C" >= $1 AND reverse(replace(id::text, '-', '')) COLLATE "C" < $1 || 'g'
ORDER BY id DESC LIMIT 6;

-- name: similar_names
SELECT name FROM executions WHERE project = $1 ORDER BY id DESC LIMIT 200;

-- name: list
-- Messages stay in the table: $1 project, $2 flow, $3 states, $4 source, $5 before this ID, $6 how many.
SELECT id, project, name, flow, kind, state, module, pinned_digest, source_id, debug, single_step, requested_by,
       invocation_count, last_event, created_at, started_at, finished_at, ''::bytea AS inputs, NULL::bytea AS result,
       failure, NULL::bytea AS result_binding, replay, time_limit, deadline, lane AS rank
FROM executions
WHERE ($1 = '' OR project = $1)
  AND ($2 = '' OR flow = $2)
  AND (cardinality($3::text[]) = 0 OR state = ANY ($3))
  AND ($4::uuid IS NULL OR source_id = $4)
  AND ($5::uuid IS NULL OR id < $5)
ORDER BY id DESC
LIMIT $6;

-- name: not_made
-- Recorded calls that the body of a replay did not make: $1 execution, $2 how many to name.
SELECT i.invocation_id, count(*) OVER () AS count
FROM invocations AS i
WHERE i.execution_id = $1 AND i.state NOT IN ('completed', 'reused') AND i.state = 'not_reached' AND NOT i.called
  AND i.position > 0
ORDER BY i.position, i.number LIMIT $2;

-- name: changed
-- Of executions ($1), whose states were $2, those that are in another one; of one that is not there any more, the ID alone.
-- With each that has completed comes what the consumers of one invocation ($3) receive.
-- The sub-selects hide how many they are, for which Postgres would make another plan each time.
SELECT known.id AS asked, now.*, taken.outputs AS taken
FROM unnest((SELECT $1::uuid[]), (SELECT $2::text[]), (SELECT $3::integer[])) AS known (id, state, number)
LEFT JOIN LATERAL (
    SELECT id, project, name, flow, kind, state, module, pinned_digest, source_id, debug, single_step, requested_by,
           invocation_count, last_event, created_at, started_at, finished_at, inputs, result, failure, result_binding,
           replay, time_limit, deadline, lane AS rank
    FROM executions WHERE executions.id = known.id OFFSET 0) AS now ON true
LEFT JOIN LATERAL (
    SELECT coalesce(i.override_outputs, i.outputs) AS outputs FROM shown_invocation(known.id, known.number) AS i
    WHERE now.state = 'completed' AND known.number > 0 OFFSET 0) AS taken ON true
WHERE now.state IS DISTINCT FROM known.state;

-- name: start_flow
-- Everything that a flow needs to run, in one round trip. No row comes back where the name or the request is taken.
WITH execution AS (
    INSERT INTO executions (id, project, name, flow, kind, state, module, pinned_digest, code_digest, debug, request_id,
                            inputs, result_binding, shaping_inputs, last_event, time_limit, deadline, lane)
    VALUES ($1, $2, $3, $4, $5, 'pending', $6, $7, $8, $9, $10, $11, $12, $13, 1, $15,
            clock_timestamp() + make_interval(secs => $15), $16)
    ON CONFLICT DO NOTHING
    RETURNING id, created_at, deadline
), own_lineage AS (
    INSERT INTO lineage (execution_id, depth, ancestor_id, number_limit)
    SELECT id, 0, id, 2147483647 FROM execution
), body AS (
    INSERT INTO tasks (execution_id, number, is_body, lane, route) SELECT id, 0, true, $16, $14 FROM execution
), event AS (
    INSERT INTO events (execution_id, event, number, state, at) SELECT id, 1, 0, 'pending', created_at FROM execution
)
SELECT created_at, deadline FROM execution;

-- name: start_pipeline
-- The row of an execution whose graph is already there. No row comes back where the name or the request is taken.
WITH execution AS (
    INSERT INTO executions (id, project, name, flow, kind, state, module, pinned_digest, code_digest, debug, request_id,
                            inputs, result_binding, shaping_inputs, last_event, next_number, invocation_count, unfinished,
                            started_at, finished_at, time_limit, deadline, lane)
    VALUES ($1, $2, $3, $4, $5, CASE WHEN $14 = 0 THEN 'completed' ELSE 'pending' END, $6, $7, $8, $9, $10, $11, $12, $13,
            CASE WHEN $14 = 0 THEN 2 ELSE 1 END, $14 + 1, $14, $14,
            CASE WHEN $14 = 0 THEN clock_timestamp() END, CASE WHEN $14 = 0 THEN clock_timestamp() END,
            $15, clock_timestamp() + make_interval(secs => $15), $16)
    ON CONFLICT DO NOTHING
    RETURNING id, created_at
), own_lineage AS (
    INSERT INTO lineage (execution_id, depth, ancestor_id, number_limit)
    SELECT id, 0, id, 2147483647 FROM execution
), event AS (
    INSERT INTO events (execution_id, event, number, state, at)
    SELECT id, 1, 0, 'pending', created_at FROM execution
    UNION ALL
    SELECT id, 2, 0, 'completed', created_at FROM execution WHERE $14 = 0
)
SELECT created_at FROM execution;

-- name: record_finished
-- The row of an imported execution, whose graph is already there. No row comes back where the name is taken.
WITH execution AS (
    INSERT INTO executions (id, project, name, flow, kind, state, module, pinned_digest, code_digest, debug, request_id,
                            inputs, result_binding, shaping_inputs, last_event, next_number, invocation_count, failures,
                            result, failure, started_at, finished_at)
    VALUES ($1, $2, $3, $4, $5, $14, $6, $7, $8, $9, $10, $11, $12, $13, 1, $15 + 1, $15, $16,
            $17, $18, $19, coalesce($20, clock_timestamp()))
    ON CONFLICT DO NOTHING
    RETURNING id, state, created_at
), own_lineage AS (
    INSERT INTO lineage (execution_id, depth, ancestor_id, number_limit)
    SELECT id, 0, id, 2147483647 FROM execution
), event AS (
    INSERT INTO events (execution_id, event, number, state, at) SELECT id, 1, 0, state, created_at FROM execution
)
SELECT created_at FROM execution;

-- name: record_provenance
-- Of an imported replay: $1 execution, $2 source, $3 who asked, $4 whether of a single step, $5 what is known of it.
UPDATE executions SET source_id = $2, requested_by = $3, single_step = $4, replay = $5 WHERE id = $1;

-- name: unserved
-- Ready work that no connected executor can take, and whether one has other code of the same name. Of a large execution
-- a few tasks speak for all.
WITH unserved AS (
    SELECT open.id AS execution_id, min(ready.route) AS route
    FROM unnest($1::uuid[]) AS open (id)
    CROSS JOIN LATERAL (
        SELECT DISTINCT route
        FROM (
            SELECT route FROM tasks
            WHERE execution_id = open.id AND session_id IS NULL AND available_at <= clock_timestamp()
            ORDER BY number -- by the primary key, wherever the tasks of others are
            LIMIT 100
        ) AS sampled
    ) AS ready
    WHERE NOT EXISTS (
        SELECT FROM session_routes AS served JOIN sessions ON sessions.id = served.session_id
        WHERE served.route = ready.route AND sessions.expires_at > clock_timestamp()
    )
    GROUP BY open.id
)
SELECT execution_id, route, EXISTS (
    SELECT FROM session_routes AS served JOIN sessions ON sessions.id = served.session_id
    WHERE served.route = split_part(unserved.route, '@', 1) AND sessions.expires_at > clock_timestamp()
) AS has_other_code
FROM unserved;

-- name: one_at_a_time
-- Who ends or retries an execution waits for who does so already. Until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('dalsegno lifecycle'), hashtext($1::uuid::text));

-- name: lock_state
SELECT state FROM executions WHERE id = $1 FOR UPDATE;

-- name: fence_invocations
-- $2 and $3 are the numbers of all tasks, with their epochs: what still runs with one is fenced, also after a retry.
-- OFFSET 0 makes each look-up one by the whole key; joined, arrays of a size unknown are gone through for every row.
UPDATE invocations AS i
SET epoch = held.epoch + 1
FROM (
    SELECT own.ctid, task.epoch
    FROM unnest($2::integer[], $3::integer[]) AS task (number, epoch)
    CROSS JOIN LATERAL (
        SELECT x.ctid FROM invocations AS x
        WHERE x.execution_id = $1 AND x.number = task.number AND x.state IN ('pending', 'waiting')
        FOR UPDATE OFFSET 0
    ) AS own
    OFFSET 0
) AS held
WHERE i.ctid = held.ctid;

-- name: cancel_invocations
-- What runs or waits is cancelled; what has not come to run never will. $2 are the numbers whose tasks were given out.
UPDATE invocations
SET state = CASE WHEN state = 'waiting' OR number = ANY ($2::integer[]) OR started_at IS NOT NULL
                 THEN 'cancelled' ELSE 'not_reached' END,
    finished_at = clock_timestamp()
WHERE execution_id = $1 AND state IN ('pending', 'waiting')
RETURNING number, state;

-- name: delete_tasks
DELETE FROM tasks WHERE execution_id = $1 RETURNING number, epoch, session_id IS NOT NULL AS given_out;

-- name: abort_waits
UPDATE waits SET state = 'aborted' WHERE execution_id = $1 AND state = 'pending';

-- name: due
-- Executions whose deadline has passed.
SELECT id FROM executions
WHERE state IN ('pending', 'running', 'waiting') AND deadline IS NOT NULL AND deadline <= statement_timestamp()
ORDER BY deadline LIMIT 100;

-- name: end
-- $2 failure, $3 and $4 numbers and states of the invocations that changed with it, $5 the epoch of the body's task, $6 state.
WITH execution AS (
    UPDATE executions
    SET state = $6, finished_at = clock_timestamp(), failure = $2, unfinished = 0,
        body_epoch = greatest(body_epoch, $5), last_event = last_event + cardinality($3::integer[]) + 1
    WHERE id = $1
    RETURNING id, last_event
)
INSERT INTO events (execution_id, event, number, state)
SELECT id, last_event - cardinality($3) - 1 + place, number, state
FROM execution, unnest($3::integer[], $4::text[]) WITH ORDINALITY AS changed (number, state, place)
UNION ALL
SELECT id, last_event, 0, $6 FROM execution;
