"""Progress as messages have it."""

from __future__ import annotations

from dalsegno.client.times import moment
from dalsegno.step_context import Progress
from dalsegno.v1 import execution_pb2


def progress_of(invocation: execution_pb2.Invocation) -> Progress | None:
    """Return how far an invocation has come; None where its code does not say."""
    if not invocation.HasField("progress"):
        return None
    said = invocation.progress
    total = said.total if said.HasField("total") else None
    return Progress(said.done, total, said.message, moment(said, "at"))
