-- The sets of larger plans are kept in temporary tables of the connection, so that a plan of any size stays in Postgres.

-- Empties the temporary tables of a plan, and sets how its queries are planned until the transaction ends.
--
-- They are emptied at the start, and row by row: to truncate them, as `ON COMMIT DELETE ROWS` does, makes every query plan
-- anew. Where many rows have died in them, which all later queries would look at, they are truncated.
CREATE OR REPLACE FUNCTION begin_marks() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true);
    IF to_regclass('pg_temp.replay_marks') IS NULL THEN
        CREATE TEMPORARY TABLE replay_roots (
            number integer NOT NULL, reason text NOT NULL, cause text NOT NULL, PRIMARY KEY (number, reason, cause)
        );
        -- Role: `affected`, `wait` for one that is asked again without being affected, `removed` for one that today's
        -- graph lacks.
        CREATE TEMPORARY TABLE replay_marks (
            number integer PRIMARY KEY, role text NOT NULL, overridden boolean NOT NULL DEFAULT false
        );
    ELSIF pg_relation_size('pg_temp.replay_marks') + pg_relation_size('pg_temp.replay_roots') > 256 * 1024 THEN
        TRUNCATE replay_roots, replay_marks;
    ELSE
        DELETE FROM replay_roots;
        DELETE FROM replay_marks;
    END IF;
END
$$;

-- Puts the marks of a plan of few into the temporary tables, where pages of reused invocations and the replay's creation
-- look for them.
CREATE OR REPLACE FUNCTION store_marks(numbers integer[], roles text[], overridden boolean[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM begin_marks();
    INSERT INTO replay_marks (number, role, overridden) SELECT * FROM unnest(numbers, roles, overridden);
END
$$;

-- Marks what re-executes in the temporary tables, beginning from the roots that are there already and those that are `named`,
-- and returns how many marks there are. `replaced`, `keys` and `strict` are those of implied_roots. `scope` is what
-- re-executes: the `roots` alone, their `descendants`, or all `others` than what is `kept`.
CREATE OR REPLACE FUNCTION mark_affected(
    execution uuid, named integer[], named_reasons text[], named_causes text[], replaced integer[], keys text[],
    strict boolean, scope text, kept integer[]
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    is_replay boolean;
    of_flow boolean;
BEGIN
    SELECT e.source_id IS NOT NULL, e.kind = 'flow' AND scope <> 'roots' INTO is_replay, of_flow
    FROM executions AS e WHERE e.id = execution;
    INSERT INTO replay_roots (number, reason, cause)
    SELECT * FROM unnest(named, named_reasons, named_causes)
    ON CONFLICT DO NOTHING;
    IF scope <> 'roots' THEN
        INSERT INTO replay_roots (number, reason, cause)
        SELECT * FROM implied_roots(execution, replaced, keys, strict)
        ON CONFLICT DO NOTHING;
    END IF;
    IF scope = 'roots' THEN
        INSERT INTO replay_marks (number, role) SELECT DISTINCT root.number, 'affected' FROM replay_roots AS root;
    ELSIF scope = 'descendants' THEN
        INSERT INTO replay_marks (number, role)
        SELECT one.number, 'affected'
        FROM descendants(
            execution, ARRAY(SELECT DISTINCT root.number FROM replay_roots AS root), is_replay, of_flow, NULL
        ) AS one (number)
        ORDER BY one.number;  -- so that the index grows at its end
    ELSE
        INSERT INTO replay_marks (number, role)
        SELECT i.number, 'affected'
        FROM shown_calls(execution) AS i LEFT JOIN unnest(kept) AS one (number) ON one.number = i.number
        WHERE i.kind = 'step' AND one.number IS NULL;
    END IF;
    IF of_flow THEN
        INSERT INTO replay_marks (number, role) SELECT one.number, 'wait' FROM waits_to_ask(execution) AS one (number)
        ON CONFLICT DO NOTHING;
    END IF;
    IF replaced <> '{}' THEN
        UPDATE replay_marks SET overridden = true WHERE number = ANY (replaced);
    END IF;
    IF is_replay THEN
        UPDATE replay_marks SET overridden = true
        WHERE (SELECT i.override_outputs IS NOT NULL FROM shown_invocation(execution, replay_marks.number) AS i);
    END IF;
    RETURN (SELECT count(*) FROM replay_marks);
END
$$;
