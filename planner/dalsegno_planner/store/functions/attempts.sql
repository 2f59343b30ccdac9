-- Attempts keep their numbers through retries of the execution. Only failed attempts are inserted, so that what it
-- costs is not on the path of what succeeds.
CREATE OR REPLACE FUNCTION count_attempt_from_first_run() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.attempt := NEW.attempt + coalesce((
        SELECT i.attempts_before FROM invocations i
        WHERE i.execution_id = NEW.execution_id AND i.number = NEW.number), 0);
    RETURN NEW;
END
$$;
