-- name: record
INSERT INTO definitions (project, kind, module, name, digest, document)
SELECT $1, kind, module, name, digest, document
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[]) AS given (kind, module, name, digest, document)
ON CONFLICT DO NOTHING;
