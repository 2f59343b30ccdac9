"""What executions had in the object store goes with the last of them that had it, and nothing that anybody has."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from dalsegno.errors import BackendError
from dalsegno.v1.value_pb2 import FlowInputs, Output, Outputs, Payload
from dalsegno_planner.core import ids
from dalsegno_planner.dispatch.retention import Retention
from dalsegno_planner.dispatch.unused_objects import UnusedObjects
from dalsegno_planner.store import artifacts, deletion, released_objects
from dalsegno_planner.store.objects import Objects, key_of
from dalsegno_planner.store.pool import Pool
from tests.store.ledger import Ledger
from tests.store.test_executions import explained

A_DAY = timedelta(days=1)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path.as_uri())


async def _stored(objects: Objects, tmp_path: Path, content: bytes) -> str:
    """Store content, long ago."""
    key = await objects.put(content)
    long_ago = (datetime.now(UTC) - timedelta(days=40)).timestamp()
    os.utime(tmp_path / key, (long_ago, long_ago))
    return key


def _outputs(*keys: str) -> bytes:
    return Outputs(outputs=[Output(payload=Payload(object_key=key)) for key in keys]).SerializeToString()


def _flow_inputs(key: str) -> bytes:
    return FlowInputs(values={"big": Payload(object_key=key)}).SerializeToString()


async def _ended(ledger: Ledger, *keys: str, column: str = "outputs", steps: int = 3) -> UUID:
    """Write an execution that ended 40 days ago, of which the last step has objects."""
    moment = datetime.now(UTC) - timedelta(days=40)
    execution_id = ids.execution_id(int(moment.timestamp() * 1000), uuid4().int >> 60)
    await ledger.bulk(steps, execution_id=execution_id)
    await ledger.connection.execute("DELETE FROM tasks WHERE execution_id = $1", execution_id)
    await ledger.connection.execute(
        f"UPDATE invocations SET {column} = $2 WHERE execution_id = $1 AND number = $3",
        execution_id, _outputs(*keys), steps,
    )  # fmt: skip
    await ledger.connection.execute(
        "UPDATE executions SET state = 'completed', finished_at = $2 WHERE id = $1", execution_id, moment
    )
    return execution_id


async def _delete(pool: Pool, execution_id: UUID) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await deletion.delete(connection, execution_id)


async def _a_day_passes(ledger: Ledger) -> None:
    await ledger.connection.execute("UPDATE released_objects SET since = since - interval '25 hours'")


async def _released(ledger: Ledger) -> set[str]:
    return {row["key"] for row in await ledger.connection.fetch("SELECT key FROM released_objects")}


@pytest.mark.parametrize("column", ["inputs", "outputs", "override_outputs"])
@pytest.mark.parametrize("by", ["request", "retention"])
async def test_objects_go_a_day_after_the_execution_that_had_them(
    ledger: Ledger, pool: Pool, objects: Objects, tmp_path: Path, column: str, by: str
) -> None:
    keys = [await _stored(objects, tmp_path, content) for content in (b"one", b"other")]
    execution = await _ended(ledger, *keys, column=column, steps=2_500)  # more rows than go at once
    if by == "request":
        await _delete(pool, execution)
    else:
        assert await Retention(timedelta(days=30)).clear(pool) == 1
    collector = UnusedObjects(objects)
    assert await collector.clear(pool) == 0
    assert await _released(ledger) == set(keys)
    await _a_day_passes(ledger)
    assert await collector.clear(pool) == 2
    assert await objects.missing(keys) == set(keys)
    assert await _released(ledger) == set()


async def test_an_object_stays_as_long_as_anything_has_it(
    ledger: Ledger, pool: Pool, objects: Objects, tmp_path: Path
) -> None:
    key = await _stored(objects, tmp_path, b"shared")
    payload = Payload(object_key=key).SerializeToString()
    first, second, third = await _ended(ledger, key), await _ended(ledger, key, column="inputs"), await _ended(ledger)
    await ledger.connection.execute("UPDATE executions SET inputs = $2 WHERE id = $1", third, _flow_inputs(key))
    uploaded, of_third = uuid4(), uuid4()
    async with pool.acquire() as connection:
        await artifacts.insert(connection, uploaded, "mine", "me", payload)
        await artifacts.insert(connection, of_third, "override", "me", payload)
    await ledger.connection.execute("UPDATE artifacts SET execution_id = $2 WHERE id = $1", of_third, third)
    collector = UnusedObjects(objects)
    for one in (first, second, third):
        await _delete(pool, one)
        await _a_day_passes(ledger)
        assert await collector.clear(pool) == 0
        assert await objects.missing([key]) == set()
    assert [row["id"] for row in await ledger.connection.fetch("SELECT id FROM artifacts")] == [uploaded]
    await ledger.connection.execute("DELETE FROM artifacts")
    assert await _released(ledger) == set(), "what stays is known again from what still has it"


async def test_an_object_that_is_written_again_stays(
    ledger: Ledger, pool: Pool, objects: Objects, tmp_path: Path
) -> None:
    """Whoever has written it has not said so in the database yet."""
    key = await _stored(objects, tmp_path, b"again")
    await _delete(pool, await _ended(ledger, key))
    await objects.put(b"again")
    await _a_day_passes(ledger)
    collector = UnusedObjects(objects)
    assert await collector.clear(pool) == 0
    assert await objects.missing([key]) == set()
    await _stored(objects, tmp_path, b"again")
    await _a_day_passes(ledger)
    assert await collector.clear(pool) == 1


async def test_what_is_gone_already_is_forgotten(ledger: Ledger, pool: Pool, objects: Objects, tmp_path: Path) -> None:
    keys = [await _stored(objects, tmp_path, f"value {number}".encode()) for number in range(70)]
    await _delete(pool, await _ended(ledger, *keys))
    (tmp_path / keys[0]).unlink()
    await _a_day_passes(ledger)
    assert await UnusedObjects(objects).clear(pool) == 70
    assert await _released(ledger) == set()


async def test_nothing_goes_from_a_store_that_several_databases_have(
    ledger: Ledger, pool: Pool, objects: Objects, tmp_path: Path
) -> None:
    key = await _stored(objects, tmp_path, b"ours, and perhaps theirs")
    other = uuid4()
    await objects.register(other)
    await _delete(pool, await _ended(ledger, key))
    await _a_day_passes(ledger)
    assert await UnusedObjects(objects).clear(pool) == 0
    assert await objects.missing([key]) == set()
    (tmp_path / "databases" / str(other)).unlink()
    assert len(await objects.databases()) == 1
    await _a_day_passes(ledger)
    assert await UnusedObjects(objects).clear(pool) == 1


async def test_a_store_that_cannot_be_reached_loses_nothing(
    ledger: Ledger, pool: Pool, objects: Objects, tmp_path: Path
) -> None:
    key = await _stored(objects, tmp_path, b"far away")
    await _delete(pool, await _ended(ledger, key))
    await _a_day_passes(ledger)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BackendError):
        await UnusedObjects(Objects((tmp_path / "file").as_uri())).clear(pool)
    assert await UnusedObjects(objects).clear(pool) == 1


async def test_whether_something_has_an_object_is_looked_up(ledger: Ledger) -> None:
    await _ended(ledger, "blobs/00/" + 62 * "0", steps=20_000)
    await ledger.connection.execute("ANALYZE")
    plan = await explained(ledger.connection, released_objects.SQL["in_use"], ["blobs/00/" + 62 * "0"])
    for table in ("invocations", "executions", "artifacts"):
        assert f"Seq Scan on {table}" not in plan, plan
        assert f"{table}_by_object" in plan, plan


@pytest.mark.parametrize(
    "keys",
    [(), (b"one",), (b"one", b"two", b"one"), tuple(bytes([number]) for number in range(100))],
    ids=["none", "one", "one twice", "many"],
)
async def test_the_keys_of_a_message_are_found(ledger: Ledger, keys: tuple[bytes, ...]) -> None:
    wanted = sorted({key_of(content) for content in keys})
    message = _outputs(*map(key_of, keys)) + b"\0\xff\\ blobs/ blobs/zz"
    found = await ledger.connection.fetchval("SELECT object_keys($1, NULL, $1, $2)", message, b"")
    assert found == wanted
