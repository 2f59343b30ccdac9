"""Answers to the waits of executions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalsegno.client.executions import Execution
from dalsegno.client.given_values import value_message
from dalsegno.client.identity import execution_text
from dalsegno.client.requester import who_asks
from dalsegno.client.storage import Uploads
from dalsegno.client.waits import Wait
from dalsegno.v1.wait_service_pb2 import WaitServiceAbortRequest, WaitServiceAnswerRequest

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach


def answer_wait(reach: Reach, exec_id: object, wait: str | None, value: object) -> Wait:
    """Answer a wait, that of a name or the one that is pending, and return it as it is then."""
    uploads = Uploads(reach.storage)
    request = WaitServiceAnswerRequest(
        execution=execution_text(exec_id),
        project=reach.project,
        wait=wait or "",
        value=value_message(value, uploads, "value"),
        answered_by=who_asks(),
    )
    uploads.send()
    # Not repeated by itself: a second answer to the same wait is refused.
    response = reach.connection.call(lambda stubs: stubs.waits.Answer, request, idempotent=False)
    return Wait(response.wait, reach)


def abort_wait(reach: Reach, exec_id: object, wait: str | None) -> Execution:
    """Abort a wait, that of a name or the one that is pending, and return the execution, which is cancelled."""
    request = WaitServiceAbortRequest(
        execution=execution_text(exec_id), project=reach.project, wait=wait or "", aborted_by=who_asks()
    )
    response = reach.connection.call(lambda stubs: stubs.waits.Abort, request)
    return Execution(response.execution, reach)
