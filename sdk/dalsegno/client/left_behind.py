"""What a script leaves unfinished when it ends, though its code ends with it: said, and never silent.

Another executor that has the code goes on with it; where the script was the only one, nobody does.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from dalsegno.errors import DalsegnoError
from dalsegno.v1.execution_pb2 import EXECUTION_STATE_PENDING, EXECUTION_STATE_RUNNING, Execution
from dalsegno.v1.execution_service_pb2 import ExecutionServiceListRequest

if TYPE_CHECKING:
    from dalsegno.client.connection import Connection

_MOST = 100
"""So many, the latest, are kept in mind; as many are asked about."""
_NAMED = 3
_PATIENCE_S = 2.0

_log = logging.getLogger("dalsegno")

_under_way: dict[str, Connection] = {}
_waited_for: set[str] = set()
"""Executions for which somebody waited until Ctrl-C."""


def remember(connection: Connection, exec_id: str) -> None:
    """Keep in mind that this process runs the code of an execution that it has started."""
    if not _under_way:
        atexit.unregister(_tell)
        atexit.register(_tell)  # after whatever ends the process' part in it, so that it runs before
    _under_way[exec_id] = connection
    if len(_under_way) > _MOST:
        del _under_way[next(iter(_under_way))]


def forget(exec_id: str) -> None:
    """Note that an execution has ended."""
    _under_way.pop(exec_id, None)


@contextmanager
def waiting_for(exec_id: str, name: str) -> Iterator[None]:
    """Say to whoever stops waiting with Ctrl-C that the execution goes on, and how it is cancelled."""
    try:
        yield
    except KeyboardInterrupt:
        _waited_for.add(exec_id)
        interrupt = KeyboardInterrupt()
        interrupt.add_note(f"{name} is not cancelled by this: dalsegno executions cancel {name}")
        raise interrupt from None  # a new one, as where in gRPC the other came is of no interest


def _tell() -> None:
    left = list(_still_under_way())
    if left:
        _log.warning("%s", said(left))


def _still_under_way() -> Iterator[Execution]:
    for connection in {id(one): one for one in _under_way.values() if one.is_open}.values():
        request = ExecutionServiceListRequest(
            project=connection.project, states=[EXECUTION_STATE_PENDING, EXECUTION_STATE_RUNNING], page_size=_MOST
        )
        with suppress(DalsegnoError):  # it is gone, and what it says itself is of use to nobody any more
            page = connection.call(lambda stubs: stubs.executions.List, request, idempotent=False, timeout=_PATIENCE_S)
            yield from (one for one in page.executions if one.id in _under_way)


def said(left: Sequence[Execution]) -> str:
    """Return what is to be known of executions that have not ended when the process that runs their code does."""
    names = ", ".join(one.name for one in left[:_NAMED])
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    modules = sorted({one.definition.module for one in left} - {"__main__"})
    worker = f" (dalsegno worker {modules[0]})" if modules else ""
    has, it, goes = ("has", "it", "goes") if len(left) == 1 else ("have", "they", "go")
    advice = "" if _waited_for.intersection(one.id for one in left) else "; .wait() would have waited"
    return (
        f"{names}{more} {has} not ended, and the process that ran the code does: {it} {goes} on where a worker has "
        f"it{worker}{advice}"
    )
