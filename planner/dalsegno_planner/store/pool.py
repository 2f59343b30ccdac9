"""The connections of the services."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

Result = TypeVar("Result")

DATABASE_LOST: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    # A request that is made between the server's last words and the end of its connection.
    asyncpg.InternalClientError,
    OSError,  # and with it TimeoutError
)
"""What is raised where the connection to the database is gone, and another one may do."""
DATABASE_FAILED: tuple[type[Exception], ...] = (asyncpg.PostgresError, *DATABASE_LOST)
"""Whatever the database raises."""
TO_BE_REPEATED: tuple[type[Exception], ...] = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""What ends a transaction that may succeed when it is made again."""

_CONNECT_TIMEOUT = 10.0
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
"""Seconds until silence is probed, between probes, how many; milliseconds that what is sent may stay unheard."""

SERVERS_KEEPALIVE = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25s",
}
"""Settings of a session: where a planner's host is gone without a word, the server lets go of what it has locked."""
_CLIENTS_MAY_PAUSE = "5min"
"""In the middle of what they stream into one transaction."""


async def open_pool(dsn: str, *, max_size: int, application_name: str = "dalsegno-planner") -> Pool:
    """Open a pool that connects when it is first used, so that the database may still be down."""
    return await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=max_size,
        init=prepare_connection,
        reset=_leave_as_it_is,
        timeout=_CONNECT_TIMEOUT,
        server_settings={
            "application_name": application_name,
            "jit": "off",
            "idle_in_transaction_session_timeout": _CLIENTS_MAY_PAUSE,
            **SERVERS_KEEPALIVE,
        },
    )


async def prepare_connection(connection: Connection) -> None:
    """Make a new connection read and write jsonb as Python values, and notice when nothing comes through any more."""
    # asyncpg has neither an option for this nor another way to the socket.
    _keep_alive(connection._transport.get_extra_info("socket"))  # type: ignore[union-attr]
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


def _keep_alive(connected: socket.socket) -> None:
    """Have the kernel end a connection on which the other side is silent: without it, a cut is noticed after hours."""
    if connected.family == socket.AF_UNIX:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not every system has all of them
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _leave_as_it_is(connection: Connection) -> None:
    """Take the place of asyncpg's reset, a round trip at each release: nothing here changes a session's settings.

    An open transaction is rolled back before this is called.
    """


async def in_transaction(pool: Pool, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Run `work` in a transaction, again from the start where Postgres ended it to break a deadlock."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(TO_BE_REPEATED),
        stop=stop_after_attempt(5),
        wait=wait_random_exponential(multiplier=0.01, max=0.2),
        reraise=True,
    ):
        with attempt:
            async with pool.acquire() as connection, connection.transaction():
                return await work(connection)
    raise AssertionError("tenacity either returns or raises")
