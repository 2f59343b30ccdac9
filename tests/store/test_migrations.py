"""Migrations: forward only, once, whoever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from dalsegno.errors import BackendError
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.store import migrate as runner
from dalsegno_planner.store.migrate import (
    Migration,
    check_server_version,
    migrate,
    shipped_functions,
    shipped_migrations,
)
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.replay_request import ReplayRequest
from tests.store.graphs import Recorded, connect, replay, tasks, write
from tests.store.ledger import QUERIES, Ledger

AFTER_THE_FIRST = "0006"
FIRST = Migration("0001_first.sql", "CREATE TABLE things (id integer PRIMARY KEY); INSERT INTO things VALUES (1);")
SECOND = Migration("0002_second.sql", "ALTER TABLE things ADD COLUMN name text; INSERT INTO things VALUES (2, 'b');")
BROKEN = Migration("0003_broken.sql", "INSERT INTO things VALUES (3, 'c'); SELECT nothing;")


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Ledger]:
    """A ledger on a connection that knows the types of now."""
    ledger = await Ledger.open(dsn)
    yield ledger
    await ledger.connection.close()


@pytest.fixture
async def connection(empty_database: str) -> AsyncIterator[Connection]:
    """A connection to a database with nothing in it."""
    one = await asyncpg.connect(empty_database)
    yield one
    await one.close()


async def applied(connection: Connection) -> list[str]:
    rows = await connection.fetch("SELECT name FROM schema_migrations ORDER BY name")
    return [row["name"] for row in rows]


async def test_the_schema_is_made_once(empty_database: str, connection: Connection) -> None:
    await migrate(empty_database)
    await migrate(empty_database)
    names = [migration.name for migration in shipped_migrations()]
    assert await applied(connection) == names
    assert len({name[:4] for name in names}) == len(names), "two migrations have one number"
    assert await connection.fetchval("SELECT count(*) FROM executions") == 0


async def test_many_planners_migrate_at_once(empty_database: str, connection: Connection) -> None:
    await asyncio.gather(*(migrate(empty_database, [FIRST, SECOND]) for _ in range(5)))
    assert await applied(connection) == [FIRST.name, SECOND.name]
    assert await connection.fetchval("SELECT count(*) FROM things") == 2


async def test_a_later_migration_keeps_what_is_there(empty_database: str, connection: Connection) -> None:
    await migrate(empty_database, [FIRST])
    await migrate(empty_database, [FIRST, SECOND])
    rows = await connection.fetch("SELECT * FROM things ORDER BY id")
    assert [tuple(row) for row in rows] == [(1, None), (2, "b")]


async def test_what_the_first_schemas_recorded_goes_on_under_this_one(empty_database: str) -> None:
    await migrate(empty_database, [each for each in shipped_migrations() if each.name < AFTER_THE_FIRST])
    async with opened(empty_database) as first:
        source = await write(
            first.connection, [Recorded("load", reads=["path"]), Recorded("fit", takes=["load"])], inputs={"path": "x"}
        )
        pipeline, flow = await first.pipeline({1: [], 2: [1]}), await first.flow()
        gone = uuid4()
        await first.connection.execute("INSERT INTO sessions VALUES ($1, 'gone', 'default', 1, '-infinity')", gone)
        await first.connection.execute(
            "UPDATE tasks SET session_id = $1, epoch = 1, running = true WHERE execution_id = $2", gone, pipeline
        )
        await first.connection.execute("INSERT INTO attempts (execution_id, number, attempt) VALUES ($1, 1, 1)", source)
    await migrate(empty_database)

    async with opened(empty_database) as ledger:
        await ledger.connection.fetchrow(QUERIES["close_sessions"], None)
        session = await ledger.session()
        body, load = sorted(await ledger.claim(session), key=lambda held: held.number)
        assert (body.execution_id, load.execution_id, load.epoch) == (flow, pipeline, 2)
        (fit,) = (await ledger.commit(results=[ledger.result(load)], claims=[(session, 1, 0)])).claimed
        await ledger.commit(results=[ledger.result(fit)], calls=[ledger.call(body, 1)])
        await ledger.commit(ends=[ledger.end(body)])
        assert [await ledger.state(each) for each in (pipeline, flow)] == ["completed", "completed"]
    reader = await connect(empty_database)
    made = await replay(reader, ReplayRequest(str(source), mode=Mode.FROM, selectors=("fit",)))
    assert await tasks(reader, made) == {2: "default/m:fit"}
    await reader.close()


async def test_a_migration_that_fails_leaves_no_trace(empty_database: str, connection: Connection) -> None:
    with pytest.raises(asyncpg.UndefinedColumnError):
        await migrate(empty_database, [FIRST, SECOND, BROKEN])
    assert await applied(connection) == [FIRST.name, SECOND.name]
    assert await connection.fetchval("SELECT count(*) FROM things") == 2


async def test_a_schema_of_a_newer_planner_is_refused(empty_database: str) -> None:
    await migrate(empty_database, [FIRST, SECOND])
    with pytest.raises(BackendError, match=r"0002_second\.sql, which this planner does not know") as error:
        await migrate(empty_database, [FIRST])
    assert error.value.reason == "SCHEMA_TOO_NEW"


async def test_a_migration_that_was_edited_is_refused(empty_database: str) -> None:
    await migrate(empty_database, [FIRST])
    with pytest.raises(BackendError, match=r"0001_first\.sql was applied with another content") as error:
        await migrate(empty_database, [Migration(FIRST.name, FIRST.sql + " -- edited")])
    assert error.value.reason == "MIGRATION_CHANGED"


async def test_a_function_is_replaced_when_its_text_changes(empty_database: str, connection: Connection) -> None:
    def answering(number: int) -> list[Migration]:
        text = f"CREATE OR REPLACE FUNCTION answer() RETURNS integer LANGUAGE sql AS $$ SELECT {number} $$;"
        return [Migration("answer.sql", text)]

    for number in (1, 2, 2):
        await migrate(empty_database, [FIRST], answering(number))
        assert await connection.fetchval("SELECT answer()") == number
    replaced = "SELECT replaced_at FROM schema_functions"
    before = await connection.fetchval(replaced)
    await migrate(empty_database, [FIRST], answering(2))
    assert await connection.fetchval(replaced) == before


async def test_every_function_of_the_schema_has_its_text_in_a_file(database: str) -> None:
    one = await asyncpg.connect(database)
    rows = await one.fetch("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
    await one.close()
    texts = "".join(function.sql for function in shipped_functions())
    assert [row["proname"] for row in rows if f"CREATE OR REPLACE FUNCTION {row['proname']}(" not in texts] == []


def test_a_server_that_is_too_old_is_refused() -> None:
    check_server_version(runner.OLDEST_SERVER)
    with pytest.raises(BackendError, match=r"PostgreSQL 14; version 15 or later is needed") as error:
        check_server_version(14)
    assert error.value.reason == "SERVER_TOO_OLD"
