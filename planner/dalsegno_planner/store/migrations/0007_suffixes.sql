-- The end of an execution's ID is as good as its beginning: people copy either.

CREATE INDEX executions_by_suffix ON executions (reverse(replace(id::text, '-', '')) COLLATE "C");
