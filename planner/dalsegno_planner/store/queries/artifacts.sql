-- name: insert
INSERT INTO artifacts (id, name, created_by, payload) VALUES ($1, $2, $3, $4) RETURNING created_at;

-- name: get
SELECT id, name, created_at, payload FROM artifacts WHERE id = $1;

-- name: call
-- $1 execution, $2 number: the call that supplies the outputs, as this execution sees it.
SELECT row.execution_id, coalesce(row.supplier_id, row.execution_id) AS supplier_id, row.invocation_id, row.state,
       row.finished_at, coalesce(row.override_outputs, row.outputs) AS outputs
FROM lineage
JOIN invocations AS row
  ON row.execution_id = lineage.ancestor_id AND row.number = $2 AND row.number < lineage.number_limit
WHERE lineage.execution_id = $1
ORDER BY lineage.depth
LIMIT 1;
