"""The planner: keeps the graph in Postgres, plans replays, and gives work to executors."""
