"""Composes a planner: the services, the dispatcher, the database behind them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from dalsegno.errors import BackendError, DalsegnoError
from dalsegno.v1 import (
    artifact_service_pb2,
    execution_service_pb2,
    executor_service_pb2,
    log_service_pb2,
    replay_service_pb2,
    wait_service_pb2,
)
from dalsegno.v1 import artifact_service_pb2_grpc as artifact_grpc
from dalsegno.v1 import execution_service_pb2_grpc as execution_grpc
from dalsegno.v1 import executor_service_pb2_grpc as executor_grpc
from dalsegno.v1 import log_service_pb2_grpc as log_grpc
from dalsegno.v1 import replay_service_pb2_grpc as replay_grpc
from dalsegno.v1 import wait_service_pb2_grpc as wait_grpc
from dalsegno_planner import addresses
from dalsegno_planner.database_watch import DatabaseWatch
from dalsegno_planner.dispatch.bus import Bus
from dalsegno_planner.dispatch.dispatcher import Dispatcher
from dalsegno_planner.rpc.artifact_service import ArtifactServicer
from dalsegno_planner.rpc.execution_service import ExecutionServicer
from dalsegno_planner.rpc.executor_service import ExecutorServicer
from dalsegno_planner.rpc.importing import Importer
from dalsegno_planner.rpc.log_service import LogServicer
from dalsegno_planner.rpc.reading import ExecutionReader
from dalsegno_planner.rpc.replay_service import ReplayServicer
from dalsegno_planner.rpc.starting import Starter
from dalsegno_planner.rpc.status import ErrorMapping, as_dalsegno_error
from dalsegno_planner.rpc.values import ValueReader
from dalsegno_planner.rpc.wait_service import WaitServicer
from dalsegno_planner.rpc.watching import Watcher
from dalsegno_planner.settings import Settings
from dalsegno_planner.store.definitions import Definitions
from dalsegno_planner.store.migrate import migrate
from dalsegno_planner.store.objects import Objects
from dalsegno_planner.store.pool import Pool, open_pool

SERVICES: tuple[str, ...] = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (execution_service_pb2, "ExecutionService"),
        (replay_service_pb2, "ReplayService"),
        (wait_service_pb2, "WaitService"),
        (artifact_service_pb2, "ArtifactService"),
        (log_service_pb2, "LogService"),
        (executor_service_pb2, "ExecutorService"),
    )
)

_OVERALL = ""
_TO_STAY = ("SERVER_TOO_OLD", "SCHEMA_TOO_NEW", "MIGRATION_CHANGED")

_log = structlog.get_logger("dalsegno.planner")


class Planner:
    """One planner. It serves from the start, and says UNAVAILABLE until the database is there."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = ""
        self.bus = Bus()
        self._dispatcher = Dispatcher(settings, self.bus)
        self._stopping = asyncio.Event()
        self._ready = False
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(options=_options(settings))
        self._pool: Pool | None = None
        self._database = DatabaseWatch(settings.database_url, settings.poll_interval, self._database_is_there)

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            AddressError: It cannot serve where it was told to.
        """
        self.address = addresses.bind(self._server, self.settings.listen)
        self._pool = await open_pool(self.settings.database_url, max_size=self.settings.pool_size)
        self._add_services(self._pool)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.start()

    async def connect(self) -> None:
        """Wait for the database, bring it to the schema of this planner, and begin to dispatch.

        Raises:
            BackendError: The database is there, and is not one that this planner can use.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            before_sleep=_say_that_it_waits,
            reraise=True,
        ):
            with attempt:
                await migrate(self.settings.database_url)
        await self._dispatcher.start()
        self._ready = True
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        self._database.start()

    async def broken(self) -> None:
        """Wait until it does not work any more, for a reason that nobody foresaw."""
        await self._dispatcher.broken.wait()

    async def stop(self) -> None:
        """Take no more work, let what is under way end, and close."""
        self._stopping.set()
        await self._database.stop()
        await self._health.enter_graceful_shutdown()
        self.bus.wake_everyone()
        stopped = asyncio.create_task(self._server.stop(self.settings.stop_grace))
        if self._ready:
            await self._dispatcher.stop()
        await stopped
        if self._pool is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._pool.close(), self.settings.stop_grace)
            self._pool.terminate()

    def _add_services(self, pool: Pool) -> None:
        settings, server = self.settings, self._server
        objects, definitions = Objects(settings.object_store), Definitions()
        values = ValueReader(objects, settings.inline_limit, settings.payload_limit)
        reader = ExecutionReader(pool)
        execution = ExecutionServicer(
            pool,
            self.bus,
            reader,
            Starter(pool, self.bus, values, definitions),
            Importer(pool, values, definitions),
            Watcher(pool, self.bus, reader, settings.poll_interval, self._stopping),
        )
        mapping = ErrorMapping(server, self._refusal)
        mapping.add(execution_grpc.add_ExecutionServiceServicer_to_server, execution)
        mapping.add(
            replay_grpc.add_ReplayServiceServicer_to_server,
            ReplayServicer(pool, self.bus, reader, values, objects, definitions),
        )
        mapping.add(wait_grpc.add_WaitServiceServicer_to_server, WaitServicer(pool, self.bus, reader, values, objects))
        mapping.add(
            artifact_grpc.add_ArtifactServiceServicer_to_server, ArtifactServicer(pool, objects, values, settings)
        )
        mapping.add(log_grpc.add_LogServiceServicer_to_server, LogServicer(pool, reader))
        mapping.add(executor_grpc.add_ExecutorServiceServicer_to_server, ExecutorServicer(self._dispatcher))
        # These say how the planner is, also where it cannot serve.
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*SERVICES, HEALTH, reflection.SERVICE_NAME), server)

    async def _database_is_there(self, is_there: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self._set_health(status.SERVING if is_there else status.NOT_SERVING)

    async def _set_health(self, status: int) -> None:
        for service in (_OVERALL, *SERVICES):
            await self._health.set(service, status)

    def _refusal(self) -> DalsegnoError | None:
        if self._ready:
            return None
        return BackendError(
            "the planner waits for its database; it goes on by itself once that is there, so try again",
            reason="DATABASE_UNAVAILABLE",
        )


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # Without this, two planners share a port in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_size),
        # What is sent is bounded where it is made; one task may carry more than anybody may send here.
        ("grpc.max_send_message_length", -1),
        # Errors carry their details in trailing metadata.
        ("grpc.max_metadata_size", 64 * 1024),
        # What clients may do to keep a connection alive through proxies, also while no call is under way.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
    ]


def _may_pass(error: BaseException) -> bool:
    """Whether waiting may help: a database that is down comes back, one of another version stays."""
    if isinstance(error, TimeoutError | asyncpg.LockNotAvailableError):
        return True
    if not isinstance(error, Exception):
        return False
    told = as_dalsegno_error(error)
    return isinstance(told, BackendError) and told.reason not in _TO_STAY


def _say_that_it_waits(state: RetryCallState) -> None:
    outcome = state.outcome
    error = outcome.exception() if outcome is not None else None
    _log.warning(
        "waiting_for_database",
        attempt=state.attempt_number,
        error=str(error) or type(error).__name__,
        what_to_do="start PostgreSQL, or set DALSEGNO_DATABASE_URL to where it is",
    )
