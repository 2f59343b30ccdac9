-- name: list
-- $1 execution, $2 after this position, $3 only pending ones, $4 how many.
SELECT wait.number, call.position, call.invocation_id, call.name, wait.question, wait.schema, wait.state, wait.asked_at,
       wait.deadline, wait.metadata, wait.answer, wait.answered_by, wait.answered_at
FROM waits AS wait
JOIN invocations AS call ON call.execution_id = wait.execution_id AND call.number = wait.number
WHERE wait.execution_id = $1 AND call.position > $2 AND (NOT $3 OR wait.state = 'pending')
ORDER BY call.position
LIMIT $4;

-- name: lock_execution
SELECT state FROM executions WHERE id = $1 FOR UPDATE;

-- name: due
SELECT execution_id, number FROM waits
WHERE state = 'pending' AND deadline <= statement_timestamp()
ORDER BY deadline
LIMIT 100;

-- name: settle
-- Ends a pending wait, and lets the flow's body go on. The execution's row must be locked.
-- $1 execution, $2 number, $3 state of the wait, $4 answer, $5 who answered, $6 state of the call, $7 its outputs,
-- $8 its failure, $9 whether the execution was running already.
WITH settled AS (
    UPDATE waits
    SET state = $3, answer = $4, answered_by = $5, answered_at = CASE WHEN $3 = 'answered' THEN clock_timestamp() END
    WHERE execution_id = $1 AND number = $2 AND state = 'pending'
    RETURNING execution_id, number
), call AS (
    UPDATE invocations
    SET state = $6, outputs = $7, failure = $8, finished_at = clock_timestamp()
    FROM settled
    WHERE invocations.execution_id = settled.execution_id AND invocations.number = settled.number
), body AS (
    INSERT INTO tasks (execution_id, number, epoch, is_body, lane, route)
    SELECT execution.id, 0, execution.body_epoch, true, execution.lane,
           task_route(execution.project, execution.module, execution.flow, execution.pinned_digest)
    FROM executions AS execution JOIN settled ON settled.execution_id = execution.id
    ON CONFLICT DO NOTHING
), execution AS (
    UPDATE executions SET state = 'running', last_event = last_event + CASE WHEN $9 THEN 1 ELSE 2 END
    FROM settled WHERE id = settled.execution_id
    RETURNING id, last_event
)
INSERT INTO events (execution_id, event, number, state)
SELECT id, last_event - CASE WHEN $9 THEN 0 ELSE 1 END, $2, $6 FROM execution
UNION ALL
SELECT id, last_event, 0, 'running' FROM execution WHERE NOT $9
RETURNING event;
