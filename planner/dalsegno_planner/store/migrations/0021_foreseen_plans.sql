-- It returns the plan too, where one selector says all.
DROP FUNCTION IF EXISTS open_plan(uuid, text[], integer[], text[], integer, integer);
