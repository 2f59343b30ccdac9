-- Work of fleets: lanes, and turns of executions within them.

-- In turn rather than the oldest first: within a lane and a route, ready work is found by its execution.
DROP INDEX tasks_ready;
ALTER TABLE tasks DROP COLUMN sequence;
-- What is to be tried again later is not ready: it would take the turns of others. It becomes so once its time has come.
CREATE INDEX tasks_ready ON tasks (is_body, lane, route, execution_id, number)
WHERE session_id IS NULL AND available_at = '-infinity';
CREATE INDEX tasks_delayed ON tasks (available_at) WHERE available_at > '-infinity';
CREATE VIEW ready_tasks AS
SELECT t.ctid AS address, t.* FROM tasks AS t WHERE t.session_id IS NULL AND t.available_at = '-infinity';

-- A claim is for one lane: for ranks from the lowest to the highest. Of steps and of bodies, those of executions after the
-- ones that had the last turn go first.
ALTER TYPE claim ADD ATTRIBUTE lowest smallint;
ALTER TYPE claim ADD ATTRIBUTE highest smallint;
ALTER TYPE claim ADD ATTRIBUTE last_step uuid;
ALTER TYPE claim ADD ATTRIBUTE last_body uuid;

ALTER TYPE claimed_task ADD ATTRIBUTE lane smallint;

-- What a durable call adds to its execution: its number, and whether the row is new.
CREATE TYPE growth AS (execution_id uuid, number integer, fresh integer);

-- They return something else, or take something else, in functions/.
DROP FUNCTION dispatch_calls(body_call[]);
DROP FUNCTION dispatch_settle(state_change[]);
