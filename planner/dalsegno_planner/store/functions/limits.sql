-- How many tasks of a kind run at once. What a task is limited by is read from the options of its step, wherever a task
-- is made: rows of invocations are copied from one execution to the next by many statements, and the options with them.

-- A number as messages have it, and where it ends.
CREATE OR REPLACE FUNCTION message_number(message bytea, start integer, OUT value bigint, OUT rest integer)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    byte integer;
BEGIN
    value := 0;
    rest := start;
    LOOP
        byte := get_byte(message, rest);
        value := value | ((byte & 127)::bigint << (7 * (rest - start)));
        rest := rest + 1;
        EXIT WHEN byte < 128;
    END LOOP;
END
$$;

-- The number, or the content, of one field of a serialized message: the last one where it is repeated.
CREATE OR REPLACE FUNCTION message_field(message bytea, wanted integer, OUT number bigint, OUT content bytea)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    place integer := 0;
    key bigint;
    value bigint;
BEGIN
    WHILE place < length(message) LOOP
        SELECT * INTO key, place FROM message_number(message, place);
        CASE key & 7
        WHEN 0 THEN
            SELECT * INTO value, place FROM message_number(message, place);
            IF key >> 3 = wanted THEN
                number := value;
            END IF;
        WHEN 1 THEN
            place := place + 8;
        WHEN 2 THEN
            SELECT * INTO value, place FROM message_number(message, place);
            IF key >> 3 = wanted THEN
                content := substring(message FROM place + 1 FOR value::integer);
            END IF;
            place := place + value::integer;
        WHEN 5 THEN
            place := place + 4;
        END CASE;
    END LOOP;
END
$$;

-- The limit in the options of a step, in a project.
CREATE OR REPLACE FUNCTION limit_in_options(project text, options bytea, OUT limited_by text, OUT at_most integer)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    concurrency bytea := (message_field(options, 15)).content;
BEGIN
    limited_by := '';
    at_most := 0;
    IF concurrency IS NOT NULL THEN
        limited_by := project || '/' || convert_from((message_field(concurrency, 1)).content, 'UTF8');
        at_most := least((message_field(concurrency, 2)).number, 2147483647);
    END IF;
END
$$;

-- What limits a task. Where the byte is nowhere with which the field begins, the step has none: nothing is looked for.
CREATE OR REPLACE FUNCTION task_limit(project text, options bytea) RETURNS TABLE (limited_by text, at_most integer)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN position('\x7a'::bytea IN options) = 0 THEN ''
                ELSE (limit_in_options(project, options)).limited_by END,
           CASE WHEN position('\x7a'::bytea IN options) = 0 THEN 0
                ELSE (limit_in_options(project, options)).at_most END
$$;

-- How many more tasks may be leased under a limit. Until this is committed nobody else leases any: where somebody does at
-- this moment, it is null. Waiting for them would be a deadlock, because executions are locked before and after this.
CREATE OR REPLACE FUNCTION limit_room(name text, most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    leased integer;
BEGIN
    FOR look IN 1..2 LOOP
        SELECT count(*) INTO leased FROM (
            SELECT FROM tasks t WHERE t.session_id IS NOT NULL AND t.limited_by <> '' AND t.limited_by = name LIMIT most) t;
        EXIT WHEN leased >= most;
        -- Counted again under the lock: each statement sees what was committed before it.
        IF look = 1 AND NOT pg_try_advisory_xact_lock(hashtext('dalsegno limit'), hashtext(name)) THEN
            RETURN NULL;
        END IF;
    END LOOP;
    RETURN most - leased;
END
$$;
