-- The order in which `as_completed` gives bodies the futures of their calls.

-- The call whose future came at a place, from 1. A replay has rows for the places that differ from what it reads from its
-- source.
CREATE TABLE yields (
    execution_id uuid NOT NULL,
    place integer NOT NULL,
    number integer NOT NULL,
    PRIMARY KEY (execution_id, place)
);

ALTER TYPE body_call ADD ATTRIBUTE yield_places integer[], ADD ATTRIBUTE yielded integer[];
ALTER TYPE body_end ADD ATTRIBUTE yield_places integer[], ADD ATTRIBUTE yielded integer[];
