-- The keys of the objects that payloads speak of, in whatever messages they are.
CREATE FUNCTION object_keys(VARIADIC payloads bytea[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(array_agg(DISTINCT found.key[1]), '{}')
    FROM unnest(payloads) AS one (payload)
    CROSS JOIN LATERAL regexp_matches(
        encode(one.payload, 'escape'), 'blobs/[0-9a-f]{2}/[0-9a-f]{62}', 'g') AS found (key)
    WHERE position('blobs/'::bytea IN one.payload) > 0
$$;

-- By these it is known whether anything still has an object. Few rows have any.
CREATE INDEX invocations_by_object ON invocations USING gin (object_keys(inputs, outputs, override_outputs))
WHERE position('blobs/'::bytea IN inputs) > 0 OR position('blobs/'::bytea IN outputs) > 0
   OR position('blobs/'::bytea IN override_outputs) > 0;
CREATE INDEX executions_by_object ON executions USING gin (object_keys(inputs, result, result_binding))
WHERE position('blobs/'::bytea IN inputs) > 0 OR position('blobs/'::bytea IN result) > 0
   OR position('blobs/'::bytea IN result_binding) > 0;
CREATE INDEX artifacts_by_object ON artifacts USING gin (object_keys(payload))
WHERE position('blobs/'::bytea IN payload) > 0;

-- Values of overrides go with the replay that they were given for; null where somebody uploaded one.
ALTER TABLE artifacts ADD COLUMN execution_id uuid;
CREATE INDEX artifacts_of_execution ON artifacts (execution_id, id) WHERE execution_id IS NOT NULL;

-- Objects that deleted executions had. Whether others have them is looked at later.
CREATE TABLE released_objects (
    key text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX released_objects_since ON released_objects (since);

-- By this databases that share an object store know one another.
CREATE TABLE this_database (id uuid NOT NULL DEFAULT gen_random_uuid());
INSERT INTO this_database DEFAULT VALUES;
