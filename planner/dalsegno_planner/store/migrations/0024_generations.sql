-- A generation is of one stream alone. They were counted for each session, and began again where an executor came back
-- whose lease had run out: a planner that had stood still meanwhile could claim for the stream that it still knew.
CREATE SEQUENCE session_generations AS integer CYCLE;
SELECT setval('session_generations', (SELECT coalesce(max(generation), 0) + 1 FROM sessions));
ALTER TABLE sessions ALTER COLUMN generation SET DEFAULT nextval('session_generations');
