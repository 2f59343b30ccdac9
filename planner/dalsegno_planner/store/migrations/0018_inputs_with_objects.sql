-- What plans look for in a whole execution, and what few of its invocations have: values in their inputs that are objects.
CREATE INDEX invocations_with_objects ON invocations (execution_id, number) WHERE position('blobs/'::bytea IN inputs) > 0;
