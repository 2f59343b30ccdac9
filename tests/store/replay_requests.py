"""A chain of steps, and requests that replay it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dalsegno.errors import StateError, UsageError
from dalsegno.v1.definition_pb2 import Definition
from dalsegno_planner.core.execution import Execution
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.store.replay_request import ReplayRequest
from tests.store.graphs import MODULE, PROJECT, RECORDED, Database, Recorded, plan, record

CHAIN = [
    Recorded("load", reads=["path"]),
    Recorded("fit", takes=["load"], reads=["lr"]),
    Recorded("test", takes=["fit"]),
    Recorded("report", after=["test"]),
]
INPUTS: Mapping[str, object] = {"path": "data", "lr": 0.1}


async def chain(connection: Database, **options: Any) -> Execution:
    """A recorded run of the chain."""
    return await record(connection, CHAIN, inputs=dict(INPUTS), **options)


def from_(source: Execution, *selectors: str, **more: Any) -> ReplayRequest:
    """A replay from some steps."""
    return ReplayRequest(str(source.id), mode=Mode.FROM, selectors=selectors, **more)


def asking(source: Execution, **more: Any) -> ReplayRequest:
    """A replay that says what is given and nothing else."""
    return ReplayRequest(str(source.id), **more)


def skipping(source: Execution, *ids: str, **more: Any) -> ReplayRequest:
    """A replay that skips some steps."""
    return ReplayRequest(str(source.id), mode=Mode.SKIP, selectors=ids, **more)


async def usage_problems(connection: Database, request: ReplayRequest) -> str:
    """What is told where a request is wrong."""
    with pytest.raises(UsageError) as refused:
        await plan(connection, request)
    return "\n".join(map(str, refused.value.problems))


async def state_problems(connection: Database, request: ReplayRequest) -> str:
    """What is told where a request does not fit its source."""
    with pytest.raises(StateError) as refused:
        await plan(connection, request)
    return "\n".join(map(str, refused.value.problems))


async def define(
    connection: Database,
    kind: str,
    name: str,
    schemas: Mapping[str, str],
    digest: str = RECORDED,
    outputs: Mapping[str, str] | None = None,
) -> None:
    """Record the types of a step or flow, by input and by output."""
    document = Definition(module=MODULE, name=name, digest=digest, input_schemas=schemas, output_schemas=outputs or {})
    await connection.execute(
        "INSERT INTO definitions VALUES ($1, $2, $3, $4, $5, $6)",
        PROJECT,
        kind,
        MODULE,
        name,
        digest,
        document.SerializeToString(),
    )
