"""What the tables of the newest schema have in common, and what their settings are good for."""

from __future__ import annotations

from tests.postgres import PostgresServer
from tests.store.ledger import Ledger

_UPDATES = "SELECT n_tup_upd AS made, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relname = 'executions'"


async def test_the_keys_of_what_an_execution_has_start_with_the_execution(ledger: Ledger) -> None:
    """So that a statement on one reads that one alone, and tables can be distributed by it."""
    rows = await ledger.connection.fetch(
        """SELECT c.relname, first.attname FROM pg_index i
           JOIN pg_class c ON c.oid = i.indrelid
           JOIN pg_attribute first ON first.attrelid = c.oid AND first.attnum = i.indkey[0]
           WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique
             AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'execution_id'
                         AND a.attnotnull)"""
    )
    assert {row["relname"] for row in rows} >= {"invocations", "edges", "tasks", "waits", "attempts", "events"}
    assert {(row["relname"], row["attname"]) for row in rows if row["attname"] != "execution_id"} == set()


async def test_no_row_is_checked_against_another_table(ledger: Ledger) -> None:
    """A foreign key costs a look-up and a lock for each row that a commit writes."""
    rows = await ledger.connection.fetch("SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f'")
    assert list(rows) == []


async def test_what_a_commit_counts_in_an_execution_writes_no_index(ledger: Ledger, postgres: PostgresServer) -> None:
    """So that old versions of the row which every commit writes go without vacuum.

    A page keeps room for the next version: of these 200, some 150 find it, and 40 where pages are filled.
    """
    postgres.finish()  # a transaction that goes on, of any database, keeps old versions
    session = await ledger.session()
    for _ in range(100):
        await ledger.bulk(3)
    held = await ledger.claim(session, steps=300)
    numbered = [[one for one in held if one.number == number] for number in (1, 2)]

    async def updates() -> tuple[int, int]:
        await ledger.connection.execute("SELECT pg_stat_force_next_flush()")
        await ledger.connection.execute("SELECT pg_stat_clear_snapshot()")
        row = await ledger.connection.fetchrow(_UPDATES)
        assert row is not None
        return row["made"], row["hot"]

    made, hot = await updates()
    for claimed in numbered:
        await ledger.commit(results=[ledger.result(one) for one in claimed])
    made_by_now, hot_by_now = await updates()
    assert made_by_now - made == 200
    assert hot_by_now - hot >= 120
