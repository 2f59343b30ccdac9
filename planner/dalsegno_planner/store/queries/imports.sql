-- name: yields
-- $1 execution, $2 places, $3 numbers; returns how many places there are.
WITH inserted AS (
    INSERT INTO yields (execution_id, place, number)
    SELECT $1::uuid, y.place, y.number FROM unnest($2::integer[], $3::integer[]) AS y (place, number)
    ON CONFLICT DO NOTHING
    RETURNING place
)
SELECT count(*) FROM inserted;
