"""Questions that executions ask, as they were when they were fetched."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dalsegno.client.times import moment
from dalsegno.v1 import wait_service_pb2

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach


class Wait:
    """A question that an execution waits to have answered."""

    def __init__(self, message: wait_service_pb2.Wait, reach: Reach) -> None:
        self._message = message
        self._reach = reach

    @property
    def name(self) -> str:
        """Its name."""
        return self._message.name

    @property
    def invocation_id(self) -> str:
        """The name, with ``_2``, ``_3`` where it is asked again."""
        return self._message.invocation_id

    @property
    def status(self) -> str:
        """``pending``, ``answered``, ``timed_out`` or ``aborted``."""
        return wait_service_pb2.WaitState.Name(self._message.state).removeprefix("WAIT_STATE_").lower()

    @property
    def question(self) -> str | None:
        """What is asked."""
        return self._message.question or None

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema of an answer; None for a gate, which is answered with true or false."""
        return json.loads(self._message.schema) if self._message.schema else None

    @property
    def metadata(self) -> Any:
        """What the author of the flow attached."""
        return json.loads(self._message.metadata) if self._message.metadata else None

    @property
    def asked_at(self) -> dt.datetime | None:
        """When it was asked."""
        return moment(self._message, "asked_at")

    @property
    def deadline(self) -> dt.datetime | None:
        """When it times out; None for one that does not."""
        return moment(self._message, "deadline")

    @property
    def answer(self) -> Any:
        """The answer; None before there is one."""
        message = self._message
        return self._reach.storage.load(message.answer) if message.HasField("answer") else None

    @property
    def answered_by(self) -> str | None:
        """Who answered."""
        return self._message.answered_by or None

    @property
    def answered_at(self) -> dt.datetime | None:
        """When it was answered."""
        return moment(self._message, "answered_at")

    def __repr__(self) -> str:
        question = f": {self.question}" if self.question else ""
        return f"<Wait {self.invocation_id} {self.status}{question}>"
