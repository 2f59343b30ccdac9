-- name: after
SELECT event, number, state, at FROM events WHERE execution_id = $1 AND event > $2 ORDER BY event LIMIT $3;
