"""Lists of executions, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dalsegno.client.executions import Execution
from dalsegno.client.identity import execution_text
from dalsegno.errors import UsageError
from dalsegno.states import ExecutionState
from dalsegno.v1 import execution_pb2
from dalsegno.v1.execution_service_pb2 import ExecutionServiceListRequest

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach


def list_request(
    reach: Reach,
    *,
    flow: str | None = None,
    status: str | ExecutionState | Iterable[str] | None = None,
    original_exec_id: object = None,
    all_projects: bool = False,
    page_size: int,
) -> ExecutionServiceListRequest:
    """Return the request for some executions, as `Executions.list` takes it.

    Raises:
        UsageError: If a state is none.
    """
    return ExecutionServiceListRequest(
        project="" if all_projects else reach.project,
        flow=flow or "",
        states=_states(status),
        original_exec_id="" if original_exec_id is None else execution_text(original_exec_id),
        page_size=page_size,
    )


def listed(reach: Reach, request: ExecutionServiceListRequest) -> Iterator[Execution]:
    """Iterate over executions, the newest first; pages are fetched as they are reached."""
    while True:
        page = reach.connection.call(lambda stubs: stubs.executions.List, request)
        yield from (Execution(one, reach, complete=False) for one in page.executions)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _states(status: str | ExecutionState | Iterable[str] | None) -> list[execution_pb2.ExecutionState.ValueType]:
    if status is None:
        return []
    names = [status] if isinstance(status, str) else list(status)
    known = {state.value for state in ExecutionState}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"{unknown[0]!r} is no state of an execution; there are {', '.join(sorted(known))}",
            reason="UNKNOWN_STATE",
        )
    return [execution_pb2.ExecutionState.Value(f"EXECUTION_STATE_{name.upper()}") for name in names]
