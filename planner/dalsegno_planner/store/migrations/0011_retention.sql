-- Executions that have been deleted, of which rows are still to go: many at once would be in the way of live work.
CREATE TABLE garbage (
    execution_id uuid PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
