"""Makes the messages for executors from the rows that a claim returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from dalsegno.v1 import execution_pb2, executor_service_pb2, replay_service_pb2, value_pb2
from dalsegno_planner.core.ids import BODY
from dalsegno_planner.core.lanes import Lane, lane_of
from dalsegno_planner.dispatch.sessions import Session, Token
from dalsegno_planner.store.bindings import references

_LANES = {Lane.LIVE: execution_pb2.LANE_LIVE, Lane.BULK: execution_pb2.LANE_BULK}
_ON_STALE = {
    "reuse": replay_service_pb2.ON_STALE_REUSE,
    "rerun": replay_service_pb2.ON_STALE_RERUN,
    "fail": replay_service_pb2.ON_STALE_FAIL,
}


class ClaimedTask(NamedTuple):
    """A task that was claimed, as the database returns it."""

    session: Session
    """The stream that has claimed it; the executor may have another one by now."""
    token: Token
    row: Mapping[str, Any]
    reserved: bool

    @classmethod
    def of(cls, session: Session, row: Mapping[str, Any], *, reserved: bool) -> ClaimedTask:
        """Wrap a row of the composite type `claimed_task`."""
        return cls(session, Token(row["execution_id"], row["number"], row["epoch"]), row, reserved)

    @property
    def lane(self) -> Lane:
        """The lane of its execution."""
        return lane_of(self.row["lane"])

    @property
    def is_body(self) -> bool:
        """Whether it is the body of a flow."""
        return self.token.number == BODY

    @property
    def recorded_count(self) -> int:
        """How many recorded calls the body has."""
        return int(self.row["recorded_count"])

    @property
    def size(self) -> int:
        """How many bytes it carries, about."""
        row = self.row
        carried = (row["inputs"], row["flow_inputs"], *(row["upstream_outputs"] or ()))
        return sum(len(one) for one in carried if one)

    def fill(self, task: executor_service_pb2.Task) -> None:
        """Fill in an empty message, where it is: one that is put into another is serialized and parsed again.

        A body's recorded calls are left out.
        """
        row = self.row
        self.token.fill(task.token)
        task.project = row["project"]
        definition = task.definition
        definition.module, definition.name = row["module"], row["name"]
        task.lane = _LANES[self.lane]
        # What is nothing anyway is not set: there are many, and each costs.
        if row["pinned_digest"]:
            definition.pinned_digest = row["pinned_digest"]
        if self.reserved:
            task.reserved = True
        if self.is_body:
            self._fill_body(task.body)
        else:
            self._fill_step(task.step)

    def _fill_step(self, step: executor_service_pb2.StepTask) -> None:
        row = self.row
        step.invocation_id = row["invocation_id"]
        step.attempt = row["attempt"]
        if row["attempts_before"]:
            step.attempts_before = row["attempts_before"]
        if row["inputs"]:
            step.inputs.ParseFromString(row["inputs"])
        if row["options"]:
            step.options.ParseFromString(row["options"])
        if row["upstream"]:
            for number, outputs in zip(row["upstream"], row["upstream_outputs"], strict=True):
                upstream = step.upstream.add(number=number)
                if outputs is not None:
                    upstream.outputs.ParseFromString(outputs)
        if row["flow_inputs"]:
            everything = value_pb2.FlowInputs.FromString(row["flow_inputs"])
            for name in references(step.inputs).flow_inputs:
                if name in everything.values:
                    step.flow_inputs.values[name].CopyFrom(everything.values[name])

    def _fill_body(self, body: executor_service_pb2.BodyTask) -> None:
        body.inputs.ParseFromString(self.row["flow_inputs"] or b"")
        body.next_number = self.row["next_number"]
        body.recorded.SetInParent()
        if self.row["replay"] is not None:
            replay = json.loads(self.row["replay"])
            body.replay.overridden_inputs.extend(replay.get("inputs", ()))
            body.replay.on_stale = _ON_STALE[replay.get("on_stale") or "reuse"]
            body.replay.roots.extend(replay.get("roots", ()))
