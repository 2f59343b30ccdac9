-- Looking for a number must never read an execution by name. In a new database, of which there are no statistics yet, this
-- index is the smallest that begins with the execution, and so looked best for it, until the first analysis and in plans
-- that are kept. Only queries that say `name >= ''`, which is always true, can use it now.
DROP INDEX invocations_by_name;
CREATE INDEX invocations_by_name ON invocations (execution_id, name, code_digest) WHERE name >= '';
