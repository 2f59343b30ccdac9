-- Limits of concurrency, and successors that are made ready a part at a time.

-- What limits a task: nothing, or a name within its project, of which at most so many tasks are leased at once. How many
-- are is counted from the tasks themselves, so that it cannot drift.
ALTER TABLE tasks ADD COLUMN limited_by text NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN at_most integer NOT NULL DEFAULT 0;
CREATE INDEX tasks_limited ON tasks (limited_by) WHERE session_id IS NOT NULL AND limited_by <> '';

-- What is limited in the same way has an entry of its own among ready work, so that a claim passes over all of it at once.
DROP INDEX tasks_ready;
CREATE INDEX tasks_ready ON tasks (is_body, lane, route, limited_by, at_most, execution_id, number)
WHERE session_id IS NULL AND available_at = '-infinity';
CREATE OR REPLACE VIEW ready_tasks AS
SELECT t.ctid AS address, t.* FROM tasks AS t WHERE t.session_id IS NULL AND t.available_at = '-infinity';

-- They return more, in functions/.
DROP FUNCTION IF EXISTS dispatch_take(claim, boolean, smallint, uuid, integer);
DROP FUNCTION dispatch_claim(claim[]);
DROP FUNCTION dispatch_results(task_result[]);
DROP FUNCTION dispatch_commit(task_result[], body_call[], failed_attempt[], body_end[], task_token[], claim[]);
