-- What user code has written while steps and bodies ran. Written in batches beside dispatch, and best effort.
--
-- Read by time: lines of several executors arrive in batches, and not in the order in which they were written. The
-- sequence keeps those of the same microsecond apart, in the order of their arrival.
CREATE TABLE logs (
    execution_id uuid NOT NULL,
    written_at timestamptz NOT NULL,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    -- The invocation; 0 for the body of a flow.
    number integer NOT NULL,
    invocation_id text NOT NULL,
    -- For the body of a flow, the epoch of its task.
    attempt integer NOT NULL,
    level text NOT NULL,
    logger text NOT NULL,
    text text NOT NULL,
    -- How many lines are missing about here; such a row is no line itself.
    left_out bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (execution_id, written_at, sequence)
);
