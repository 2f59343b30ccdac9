"""User code that is at work while processes are killed, and what is left of it in Postgres."""
