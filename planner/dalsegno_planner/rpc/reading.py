"""Reads executions and their invocations, and makes messages of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from dalsegno.errors import NotFoundError
from dalsegno.v1.execution_pb2 import Execution as ExecutionMessage
from dalsegno_planner.core.execution import Execution, ExecutionKind, ExecutionState
from dalsegno_planner.rpc.convert import execution_message
from dalsegno_planner.rpc.results import pipeline_result
from dalsegno_planner.store import executions, finding
from dalsegno_planner.store.pool import Pool


class ExecutionReader:
    """Finds executions, and says what is to be said of them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, text: str, project: str) -> Execution:
        """Return the execution that a request names.

        Raises:
            UsageError: It names none.
            NotFoundError: There is none.
            StateError: There are several.
        """
        async with self._pool.acquire() as connection:
            return await finding.find(connection, text, project)

    async def get(self, execution_id: UUID) -> Execution:
        """Return an execution as it is now.

        Raises:
            NotFoundError: It has been deleted.
        """
        async with self._pool.acquire() as connection:
            execution = await executions.get(connection, execution_id)
        if execution is None:
            raise NotFoundError(
                f"execution {execution_id} is not there any more",
                reason="EXECUTION_NOT_FOUND",
                fields={"execution": str(execution_id)},
            )
        return execution

    async def message(
        self,
        execution: Execution,
        *,
        with_result: bool = True,
        with_reason: bool = False,
        of_only_source: bytes | None = None,
    ) -> ExecutionMessage:
        """Return the message for an execution.

        Args:
            execution: What it says.
            with_result: Whether the result of a pipeline is put together.
            with_reason: Whether to find out if nothing can run it.
            of_only_source: The outputs that are the result of a pipeline, if they have been read.
        """
        result = await pipeline_result(self._pool, execution, of_only_source) if with_result else None
        reason = await self.pending_reason(execution) if with_reason else ""
        message = execution_message(execution, pending_reason=reason, result=result)
        if with_result and _may_leave_out_calls(execution):
            async with self._pool.acquire() as connection:
                named, message.not_made_count = await executions.not_made(connection, execution.id)
            message.not_made.extend(named)
        return message

    async def messages(self, listed: Sequence[Execution]) -> list[ExecutionMessage]:
        """Return the messages for a page of executions."""
        reasons = await self._pending_reasons(listed)
        return [execution_message(one, pending_reason=reasons.get(one.id, "")) for one in listed]

    async def pending_reason(self, execution: Execution) -> str:
        """Return why an execution does not go on, where no connected executor can run it; else nothing."""
        return (await self._pending_reasons([execution])).get(execution.id, "")

    async def _pending_reasons(self, listed: Iterable[Execution]) -> dict[UUID, str]:
        going_on = [one.id for one in listed if one.state in (ExecutionState.PENDING, ExecutionState.RUNNING)]
        if not going_on:
            return {}
        async with self._pool.acquire() as connection:
            unserved = await executions.unserved_routes(connection, going_on)
        return {execution_id: _reason(route) for execution_id, route in unserved.items()}


def _may_leave_out_calls(execution: Execution) -> bool:
    is_replay = execution.kind is ExecutionKind.FLOW and execution.source_id is not None
    return is_replay and execution.state is ExecutionState.COMPLETED


def _reason(unserved: executions.UnservedRoute) -> str:
    code, _, digest = unserved.route.partition("/")[2].partition("@")
    start = f"start one with: dalsegno worker {code.partition(':')[0]}"
    if unserved.has_other_code:
        return (
            f"{code} is pinned to the code that it was started with ({digest[:12]}), which no connected executor has: "
            f"theirs differs; bring that code back and {start}; or replay it, with today's code"
        )
    pinned = f" (pinned to {digest[:12]})" if digest else ""
    return f"no connected executor has {code}{pinned}; {start}"
