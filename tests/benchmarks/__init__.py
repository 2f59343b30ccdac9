"""Benchmarks: what the budgets say, measured beside what the same Postgres can do at all, in the same run."""
