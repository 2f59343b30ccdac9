-- What was seen to run when its executor was lost counts three times as much as what may only have waited there: executors
-- have hundreds of steps in advance, and one that brings them down again and again is to take none of the others with it.
DROP INDEX tasks_lost;
CREATE INDEX tasks_lost ON tasks (execution_id, number) WHERE losses >= 15;
