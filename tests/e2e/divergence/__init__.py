"""Two versions of the same flows, the second of which does something else, or only looks different."""
