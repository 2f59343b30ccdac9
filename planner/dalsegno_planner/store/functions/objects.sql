-- The keys of the objects that payloads speak of, in whatever messages they are. Indexes are made of it: where it is to
-- return something else, a migration makes them anew.
CREATE OR REPLACE FUNCTION object_keys(VARIADIC payloads bytea[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(array_agg(DISTINCT found.key[1]), '{}')
    FROM unnest(payloads) AS one (payload)
    CROSS JOIN LATERAL regexp_matches(
        encode(one.payload, 'escape'), 'blobs/[0-9a-f]{2}/[0-9a-f]{62}', 'g') AS found (key)
    WHERE position('blobs/'::bytea IN one.payload) > 0
$$;
