-- Executors' sessions: their leases, their routes, and their tasks.

-- Opens or reopens an executor's session. Tasks that it had and does not name any more go back; tasks that it names
-- and that are not its any more are returned.
CREATE OR REPLACE FUNCTION open_session(
    p_id uuid, p_executor text, p_project text, p_routes text[], p_lease double precision, p_in_hand task_token[],
    OUT generation integer, OUT lost task_token[])
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sessions AS s (id, executor, project, expires_at)
    VALUES (p_id, p_executor, p_project, clock_timestamp() + make_interval(secs => p_lease))
    ON CONFLICT (id) DO UPDATE
    SET generation = nextval('session_generations'), expires_at = excluded.expires_at, executor = excluded.executor
    RETURNING s.generation INTO generation;

    DELETE FROM session_routes r WHERE r.session_id = p_id AND NOT r.route = ANY (p_routes);
    INSERT INTO session_routes (route, session_id) SELECT DISTINCT r, p_id FROM unnest(p_routes) r
    ON CONFLICT DO NOTHING;

    UPDATE tasks t SET session_id = NULL, running = false
    WHERE t.session_id = p_id AND NOT EXISTS (
        SELECT FROM unnest(p_in_hand) h
        WHERE h.execution_id = t.execution_id AND h.number = t.number AND h.epoch = t.epoch);

    SELECT array_agg(h) INTO lost FROM unnest(p_in_hand) h
    WHERE NOT EXISTS (
        SELECT FROM tasks t WHERE t.execution_id = h.execution_id AND t.number = h.number
                              AND t.epoch = h.epoch AND t.session_id = p_id);
END
$$;

-- Gives back the tasks of sessions that have ended, or whose lease had run out when the transaction began: who asks has
-- made sure in it that they had the time to say that they are there. A loss of what was seen to run weighs three, since what
-- was not may only have waited: of hundreds of tasks in hand few run.
CREATE OR REPLACE FUNCTION close_sessions(p_ids uuid[], OUT closed integer, OUT returned integer)
LANGUAGE plpgsql AS $$
DECLARE
    gone uuid[];
BEGIN
    WITH locked AS (
        SELECT s.id FROM sessions s
        WHERE CASE WHEN p_ids IS NULL THEN s.expires_at < now() ELSE s.id = ANY (p_ids) END
        ORDER BY s.id FOR UPDATE
    ), deleted AS (
        DELETE FROM sessions s USING locked WHERE s.id = locked.id RETURNING s.id
    )
    SELECT coalesce(array_agg(id), '{}') INTO gone FROM deleted;
    closed := cardinality(gone);
    returned := 0;
    IF closed > 0 THEN
        DELETE FROM session_routes r WHERE r.session_id = ANY (gone);
        UPDATE tasks t
        SET session_id = NULL, running = false,
            losses = t.losses + CASE WHEN p_ids IS NOT NULL THEN 0 WHEN t.running THEN 3 ELSE 1 END
        WHERE t.session_id = ANY (gone);
        GET DIAGNOSTICS returned = ROW_COUNT;
    END IF;
END
$$;
