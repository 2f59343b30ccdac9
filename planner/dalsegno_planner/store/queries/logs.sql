-- name: insert
-- Lines of executions that are not there any more are nobody's.
-- $1 to $9: a column each, as long as each other.
INSERT INTO logs (execution_id, written_at, number, invocation_id, attempt, level, logger, text, left_out)
SELECT line.execution_id, line.written_at, line.number, line.invocation_id, line.attempt, line.level, line.logger,
       line.text, line.left_out
FROM unnest($1::uuid[], $2::timestamptz[], $3::integer[], $4::text[], $5::integer[], $6::text[], $7::text[],
            $8::text[], $9::bigint[])
     WITH ORDINALITY AS line (execution_id, written_at, number, invocation_id, attempt, level, logger, text, left_out,
                              place)
WHERE EXISTS (SELECT FROM executions AS execution WHERE execution.id = line.execution_id)
ORDER BY line.place;

-- name: page
-- $1 execution, $2 and $3 after this time and sequence, $4 only these numbers, or NULL for all, $5 how many.
SELECT written_at, sequence, number, invocation_id, attempt, level, logger, text, left_out
FROM logs
WHERE execution_id = $1 AND (written_at, sequence) > ($2, $3)
  AND ($4::integer[] IS NULL OR number = ANY ($4) OR left_out > 0)
ORDER BY written_at, sequence
LIMIT $5;
