-- What makes tasks ready.

-- Where a task may go: executors announce routes, tasks carry one.
CREATE OR REPLACE FUNCTION task_route(project text, module text, name text, pinned_digest text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT project || '/' || module || ':' || name || CASE pinned_digest WHEN '' THEN '' ELSE '@' || pinned_digest END
$$;

-- Tells consumers that producers of theirs have ended, once for each; those that wait for no other are ready.
CREATE OR REPLACE FUNCTION dispatch_release(executions uuid[], consumers integer[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH unblocked AS (
        UPDATE invocations i SET blocked_by = i.blocked_by - s.producers
        -- In order, so that commits wait for one another and not each for the other.
        FROM (SELECT u.execution_id, u.number, count(*)::integer AS producers
              FROM unnest(executions, consumers) u(execution_id, number)
              GROUP BY u.execution_id, u.number ORDER BY u.execution_id, u.number OFFSET 0) s
        WHERE i.execution_id = s.execution_id AND i.number = s.number AND i.state = 'pending' AND i.called
        RETURNING i.execution_id, i.number, i.epoch, i.blocked_by, i.module, i.name, i.pinned_digest, i.options
    )
    INSERT INTO tasks (execution_id, number, epoch, is_body, lane, route, limited_by, at_most)
    SELECT u.execution_id, u.number, u.epoch, false, e.lane, task_route(e.project, u.module, u.name, u.pinned_digest),
           l.limited_by, l.at_most
    FROM unblocked u JOIN executions e ON e.id = u.execution_id CROSS JOIN LATERAL task_limit(e.project, u.options) l
    WHERE u.blocked_by = 0
    ON CONFLICT DO NOTHING;
END
$$;
