"""Dal Segno records executions of Python flows and pipelines, and replays them from any sign.

::

    from dalsegno import flow, step

    @step
    def research(topic: str) -> str: ...

    @step
    def write_draft(notes: str) -> str: ...

    @flow
    def content_pipeline(topic: str) -> str:
        return write_draft(research(topic))

    handle = content_pipeline.run("kitchens")
    content_pipeline.replay(handle.exec_id, from_="write_draft", overrides={"checkpoint.research": "…"})

Everything is loaded at first use: importing this package alone loads neither gRPC nor Pydantic nor asyncio.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dalsegno.client import Client
    from dalsegno.client.artifacts import Artifact, ArtifactRef
    from dalsegno.client.checkpoints import Checkpoint
    from dalsegno.client.executions import Execution
    from dalsegno.client.handles import ExecutionHandle
    from dalsegno.client.plans import Plan
    from dalsegno.client.waits import Wait
    from dalsegno.decorators import checkpoint, flow, pipeline, step
    from dalsegno.durable import StepFuture, as_completed, wait
    from dalsegno.errors import (
        AuthError,
        BackendError,
        ContextError,
        DalsegnoError,
        DivergenceError,
        DivergenceKind,
        ExecutionError,
        Failure,
        FailureOrigin,
        NotFoundError,
        Problem,
        StateError,
        UsageError,
        UserCodeError,
        WaitTimeoutError,
        WaitValidationError,
    )
    from dalsegno.limits import Limit
    from dalsegno.states import ExecutionState, InvocationState
    from dalsegno.step_context import StepCancelled, cancelled, progress
    from dalsegno.values import register_codec

__all__ = [
    "Artifact",
    "ArtifactRef",
    "AuthError",
    "BackendError",
    "Checkpoint",
    "Client",
    "ContextError",
    "DalsegnoError",
    "DivergenceError",
    "DivergenceKind",
    "Execution",
    "ExecutionError",
    "ExecutionHandle",
    "ExecutionState",
    "Failure",
    "FailureOrigin",
    "InvocationState",
    "Limit",
    "NotFoundError",
    "Plan",
    "Problem",
    "StateError",
    "StepCancelled",
    "StepFuture",
    "UsageError",
    "UserCodeError",
    "Wait",
    "WaitTimeoutError",
    "WaitValidationError",
    "as_completed",
    "cancelled",
    "checkpoint",
    "flow",
    "pipeline",
    "progress",
    "register_codec",
    "step",
    "wait",
]

_MODULES = {
    "Artifact": "dalsegno.client.artifacts",
    "ArtifactRef": "dalsegno.client.artifacts",
    "Checkpoint": "dalsegno.client.checkpoints",
    "Client": "dalsegno.client",
    "Execution": "dalsegno.client.executions",
    "ExecutionHandle": "dalsegno.client.handles",
    "ExecutionState": "dalsegno.states",
    "InvocationState": "dalsegno.states",
    "Limit": "dalsegno.limits",
    "Plan": "dalsegno.client.plans",
    "StepCancelled": "dalsegno.step_context",
    "StepFuture": "dalsegno.durable",
    "Wait": "dalsegno.client.waits",
    "as_completed": "dalsegno.durable",
    "cancelled": "dalsegno.step_context",
    "checkpoint": "dalsegno.decorators",
    "flow": "dalsegno.decorators",
    "pipeline": "dalsegno.decorators",
    "progress": "dalsegno.step_context",
    "register_codec": "dalsegno.values",
    "step": "dalsegno.decorators",
    "wait": "dalsegno.durable",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES.get(name, "dalsegno.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
