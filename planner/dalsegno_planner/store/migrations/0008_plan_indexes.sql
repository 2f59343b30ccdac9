-- What plans look for in a whole execution, and what few of its invocations are: waits, and readers of flow inputs.
CREATE INDEX invocations_waits ON invocations (execution_id, number) WHERE kind = 'wait';
CREATE INDEX invocations_reading ON invocations (execution_id, number) WHERE reads_inputs <> '{}';
