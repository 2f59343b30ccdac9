-- Deadlines of executions, progress of steps, and attempts that count from the first run.

-- How long an execution may take, in seconds, and when that is over; a retry in place starts anew.
ALTER TABLE executions ADD COLUMN time_limit double precision;
ALTER TABLE executions ADD COLUMN deadline timestamptz;

-- Only what has a deadline and has not ended: what housekeeping looks at costs nothing where there are none.
CREATE INDEX executions_due ON executions (deadline)
WHERE deadline IS NOT NULL AND state IN ('pending', 'running', 'waiting');

-- How far a step has come: a serialized dalsegno.v1.Progress. Written with heartbeats, never with what is committed.
ALTER TABLE invocations ADD COLUMN progress bytea;

-- A row of `invocations`, and of the tasks that are claimed.
ALTER TYPE claimed_task ADD ATTRIBUTE attempts_before integer;
