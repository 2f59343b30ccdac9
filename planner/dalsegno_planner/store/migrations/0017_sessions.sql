-- A sign of life writes one row of sessions and no index: `expires_at` was in one that nothing could use, because leases
-- are compared with the clock. Without it dead versions of rows go as their pages are visited, however late vacuum is.
DROP INDEX sessions_by_expiry;
