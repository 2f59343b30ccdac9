"""No task stays with an executor that was not told of it or does not have it any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg

from dalsegno.v1.executor_service_pb2 import Returned
from tests.rpc.scripted_worker import scripted_worker
from tests.rpc.serving import Serving, flow_header
from tests.rpc.test_executor_recovery import hearing, submitted_body

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@asynccontextmanager
async def without(connection: Connection, table: str) -> AsyncIterator[None]:
    """What reads or writes a table fails."""
    await connection.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    try:
        yield
    finally:
        await connection.execute(f"ALTER TABLE elsewhere RENAME TO {table}")


async def test_an_executor_to_which_a_body_could_not_be_sent_begins_anew(
    planner: Serving, connection: Connection
) -> None:
    """It has offered room for the body, and does not know that the offer was taken."""
    await planner.start(flow_header())
    async with scripted_worker(planner.channel) as host:
        body = await submitted_body(host)
        with hearing("body_not_delivered") as failed:
            async with without(connection, "lineage"):
                host.send(returned=Returned(tokens=[body.token]))
                host.credit(bodies=1)
                await asyncio.wait_for(failed.wait(), 20)
        await host.next("end")
        async with scripted_worker(planner.channel, host.key) as back:
            await back.hello()
            back.credit(bodies=1)
            assert (await back.task()).token.epoch == body.token.epoch + 2
