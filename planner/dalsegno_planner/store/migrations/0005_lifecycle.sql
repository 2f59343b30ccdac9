-- Retries in place, and the end of tasks that are lost again and again.

-- The request that retried it last, so that the same request does nothing when it comes again.
ALTER TABLE executions ADD COLUMN retry_request_id uuid;

-- Attempts before the execution was last retried. `attempt` counts those since, against the retries that a step has.
ALTER TABLE invocations ADD COLUMN attempts_before integer NOT NULL DEFAULT 0;

-- Attempts keep their numbers through retries of the execution. Only failed attempts are inserted, so that what it
-- costs is not on the path of what succeeds.
CREATE FUNCTION count_attempt_from_first_run() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.attempt := NEW.attempt + coalesce((
        SELECT i.attempts_before FROM invocations i
        WHERE i.execution_id = NEW.execution_id AND i.number = NEW.number), 0);
    RETURN NEW;
END
$$;

CREATE TRIGGER attempts_count_from_first_run BEFORE INSERT ON attempts
FOR EACH ROW EXECUTE FUNCTION count_attempt_from_first_run();

-- Tasks that have been lost with their executors too often: none, as a rule.
CREATE INDEX tasks_lost ON tasks (execution_id, number) WHERE losses >= 5;
