"""A planner's own life: where it serves, its health, a database that is not there, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dalsegno.local.postgres import SOCKET_NAME, SUPERUSER
from dalsegno.v1.execution_pb2 import EXECUTION_STATE_COMPLETED
from dalsegno.v1.execution_service_pb2 import ExecutionServiceListRequest
from dalsegno.v1.execution_service_pb2_grpc import ExecutionServiceStub
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_DURABLE
from dalsegno_planner.addresses import AddressError
from dalsegno_planner.dispatch.dispatcher import DISPATCH_SETTINGS
from dalsegno_planner.server import SERVICES, Planner
from dalsegno_planner.settings import Settings
from dalsegno_planner.store.pool import Connection, open_pool
from tests.doors import Door, Doors
from tests.postgres import EMBEDDED_MAJOR, PostgresServer, find_postgres, running_postgres
from tests.rpc.scripted_worker import scripted_worker
from tests.rpc.serving import Serving, flow_header, pipeline_header, serving, step, told

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health_of(channel: aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    response: health_pb2.HealthCheckResponse = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return response.status


async def refused(channel: aio.Channel) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as error:
        await ExecutionServiceStub(channel).List(ExecutionServiceListRequest())
    return error.value


async def test_every_service_says_that_it_serves_and_can_be_reflected(planner: Serving) -> None:
    for service in ("", *SERVICES):
        assert await health_of(planner.channel, service) == SERVING
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(planner.channel)  # type: ignore[arg-type]
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async for response in stub.ServerReflectionInfo(iter([asked])):
        names = {service.name for service in response.list_services_response.service}
        assert names >= {*SERVICES, "grpc.health.v1.Health"}


async def test_a_planner_waits_for_a_database_that_is_not_there_yet(postgres: PostgresServer, tmp_path: Path) -> None:
    name = f"late_{uuid4().hex}"
    settings = Settings(
        database_url=postgres.dsn(name), listen="127.0.0.1:0", object_store=tmp_path.as_uri(), stop_grace=1.0
    )
    planner = Planner(settings)
    await planner.start()
    connecting = asyncio.create_task(planner.connect())
    try:
        async with aio.insecure_channel(planner.address) as channel:
            assert await health_of(channel) == NOT_SERVING
            error = await refused(channel)
            assert (error.code(), told(error).reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
            await asyncio.to_thread(postgres.execute, f"CREATE DATABASE {name}")
            await connecting
            assert await health_of(channel) == SERVING
            await ExecutionServiceStub(channel).List(ExecutionServiceListRequest())
    finally:
        connecting.cancel()
        await planner.stop()
        await asyncio.to_thread(postgres.drop_database, name)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may stop."""
    installation = find_postgres(EMBEDDED_MAJOR)
    assert installation is not None
    with running_postgres(installation, works_ahead=False, die_with_parent=False) as server:
        yield server


async def test_requests_get_unavailable_while_the_database_is_away(own_server: PostgresServer, tmp_path: Path) -> None:
    name = own_server.create_database(migrated=True)
    async with serving(own_server.dsn(name), tmp_path) as planner:
        execution = await planner.start(flow_header())
        await asyncio.to_thread(own_server.server.stop)
        for _ in range(2):
            error = await refused(planner.channel)
            assert (error.code(), told(error).reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        await asyncio.to_thread(own_server.server.start)
        assert (await planner.get(execution.id)).id == execution.id


async def test_health_follows_the_database(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    closes = (
        f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    async with serving(database, tmp_path, poll_interval=0.1) as planner:
        stub: Any = health_pb2_grpc.HealthStub(planner.channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service=service)) for service in ("", SERVICES[0])]

        async def told_next() -> list[int]:
            return [(await watch.read()).status for watch in watches]

        assert await told_next() == [SERVING, SERVING]
        for _ in range(2):
            for statement in closes:
                await asyncio.to_thread(postgres.execute, statement)
            assert await told_next() == [NOT_SERVING, NOT_SERVING]
            await asyncio.to_thread(postgres.execute, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
            assert await told_next() == [SERVING, SERVING]
        for watch in watches:
            watch.cancel()


@contextmanager
def process(database: str, tmp_path: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A planner in a process of its own."""
    variables = {
        **os.environ,
        "DALSEGNO_DATABASE_URL": database,
        "DALSEGNO_LISTEN": "127.0.0.1:0",
        "DALSEGNO_OBJECT_STORE": tmp_path.as_uri(),
        **environment,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "dalsegno_planner"],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def ready_address(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    word, _, address = running.stdout.readline().strip().partition(" ")
    assert word == "ready", running.communicate()
    return address


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_that_it_is_ready_and_ends_when_told(
    database: str, tmp_path: Path, number: signal.Signals
) -> None:
    with process(database, tmp_path) as running:
        with grpc.insecure_channel(ready_address(running)) as channel:
            ExecutionServiceStub(channel).List(ExecutionServiceListRequest())
        running.send_signal(number)
        out, _ = running.communicate(timeout=20)
        assert (running.returncode, out) == (0, "")


def test_a_port_in_use_is_said_with_what_to_do(database: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with process(database, tmp_path, DALSEGNO_LISTEN=address) as running:
            out, log = running.communicate(timeout=20)
    assert (running.returncode, out) == (3, "")
    (said,) = [line for line in log.splitlines() if '"event": "stopping"' not in line]
    assert f"cannot serve on {address}: port {address.rpartition(':')[2]} is in use" in said
    assert "DALSEGNO_LISTEN" in said


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_said_with_what_to_do(database: str, tmp_path: Path, host: str) -> None:
    with process(database, tmp_path, DALSEGNO_LISTEN=f"{host}:7317") as running:
        out, log = running.communicate(timeout=20)
    assert (running.returncode, out) == (3, "")
    (said,) = [line for line in log.splitlines() if '"event": "stopping"' not in line]
    assert f"cannot serve on {host}:7317: {host} is not an address of this machine" in said
    assert "DALSEGNO_LISTEN" in said


def test_two_planners_do_not_share_a_port(database: str, tmp_path: Path) -> None:
    with process(database, tmp_path) as first:
        address = ready_address(first)
        with process(database, tmp_path, DALSEGNO_LISTEN=address) as second:
            second.communicate(timeout=20)
        assert second.returncode == 3


def test_wrong_settings_are_all_said(database: str, tmp_path: Path) -> None:
    wrong = {"DALSEGNO_DATABASE_URL": "mysql://here", "DALSEGNO_LISTEN": "7317", "DALSEGNO_INLINE_LIMIT": "much"}
    with process(database, tmp_path, **wrong) as running:
        _, log = running.communicate(timeout=20)
    assert running.returncode == 2
    assert all(name in log for name in wrong)


def test_a_missing_database_is_said_with_what_to_do(tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "DALSEGNO_DATABASE_URL"}
    command = [sys.executable, "-m", "dalsegno_planner"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "DALSEGNO_DATABASE_URL is not set" in done.stderr
    assert "postgresql://user@host:port/database" in done.stderr
    assert "dalsegno up" in done.stderr


async def test_a_schema_that_is_too_new_ends_the_process(database: str, connection: Connection, tmp_path: Path) -> None:
    await connection.execute("INSERT INTO schema_migrations VALUES ('9999_future.sql', '')")
    with process(database, tmp_path) as running:
        out, log = await asyncio.to_thread(running.communicate, timeout=20)
    assert (running.returncode, out) == (3, "")
    assert "9999_future.sql" in log


async def test_a_unix_socket_is_private_and_a_stale_one_is_replaced(database: str, tmp_path: Path) -> None:
    path = tmp_path / "planner.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    async with serving(database, tmp_path, listen=f"unix:{path}") as planner:
        assert planner.planner.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await health_of(planner.channel) == SERVING
        with pytest.raises(AddressError, match="another process serves there"):
            async with serving(database, tmp_path, listen=f"unix:{path}"):
                pass
        assert await health_of(planner.channel) == SERVING


@pytest.mark.parametrize(("name", "words"), [("notes.txt", "not a socket"), ("no/planner.sock", "does not exist")])
async def test_a_path_that_cannot_be_served_on(database: str, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(AddressError, match=words):
        async with serving(database, tmp_path, listen=f"unix:{tmp_path / name}"):
            pass
    assert (tmp_path / "notes.txt").read_text() == "mine"


async def test_an_error_that_nobody_foresaw_is_internal_and_says_nothing_of_the_inside(
    planner: Serving, connection: Connection
) -> None:
    await connection.execute("ALTER TABLE executions RENAME COLUMN flow TO gone")
    error = await refused(planner.channel)
    assert (error.code(), told(error).reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "flow" not in told(error).message


async def test_a_cut_connection_to_the_database_is_noticed(postgres: PostgresServer, database: str) -> None:
    """The kernel asks whether the other side is still there, and ends the connection where nobody answers."""
    doors = Doors()
    try:
        door = doors.open(postgres.server.socket_dir / SOCKET_NAME)
        pool = await open_pool(through(door, database), max_size=1)
        async with pool.acquire() as connection:
            connected = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert 0 < connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 30_000
        await pool.close()
    finally:
        doors.close()


async def test_the_database_ends_transactions_of_planners_that_stand_still(database: str) -> None:
    """Nor does what they have locked stay locked, then. Clients may pause while they stream into one."""
    timeout = "SHOW idle_in_transaction_session_timeout"
    pool = await open_pool(database, max_size=1)
    assert await pool.fetchval(timeout) == "5min"
    await pool.close()
    dispatching = await asyncpg.connect(database, server_settings=DISPATCH_SETTINGS)
    assert await dispatching.fetchval(timeout) == "30s"
    await dispatching.close()


def through(door: Door, database: str) -> str:
    """The same database, reached through a door."""
    name = database.split("?")[0].rpartition("/")[2]
    return f"postgresql://{SUPERUSER}@127.0.0.1:{door.port}/{name}"


_WORDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
_LAST_WORDS = b"E" + struct.pack("!i", len(_WORDS) + 4) + _WORDS


async def test_the_last_words_of_the_database_are_no_fault_of_requests(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    """They come between two requests, and the connection is closed only later."""
    doors = Doors()
    try:
        door = doors.open(postgres.server.socket_dir / SOCKET_NAME)
        async with serving(through(door, database), tmp_path) as planner:
            execution = await planner.start(pipeline_header(), [step("work")])
            async with scripted_worker(planner.channel) as worker:
                await worker.hello()
                worker.credit(steps=1)
                task = await worker.task()
                await asyncio.to_thread(
                    doors.do, door.say(b"E" + struct.pack("!i", len(_LAST_WORDS) + 4) + _LAST_WORDS)
                )
                error = await refused(planner.channel)
                assert (error.code(), told(error).reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
                worker.complete(task)
                await worker.next("end")
                await asyncio.to_thread(doors.do, door.cut())
                async with scripted_worker(planner.channel, worker.key) as back:
                    await back.hello(in_hand=[task.token])
                    assert (await back.ack(back.complete(task))).status == ACK_STATUS_DURABLE
            assert (await planner.get(execution.id)).state == EXECUTION_STATE_COMPLETED
    finally:
        doors.close()
