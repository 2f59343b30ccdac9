-- Of a call that an imported replay reused, which call that was; it need not be in this database. Null everywhere else:
-- what is reused here has no row, or one that says whose call supplies it.
ALTER TABLE invocations ADD COLUMN original_call_id uuid;
