"""Postgres: one module per aggregate, its SQL in `queries/<module>.sql`."""
