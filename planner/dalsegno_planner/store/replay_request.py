"""A replay as it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from dalsegno.v1.definition_pb2 import Definition
from dalsegno.v1.value_pb2 import Payload
from dalsegno_planner.core.lanes import Lane, rank, usual_lane
from dalsegno_planner.core.plan import Mode, OnStale
from dalsegno_planner.core.problems import Problem
from dalsegno_planner.store.invocations import InvocationRow


@dataclass(frozen=True, slots=True)
class ArtifactOrUuid:
    """A UUID that names an artifact, but where the type of what it replaces has UUIDs among its values."""

    artifact_id: UUID
    payload: Payload


Given = Payload | UUID | ArtifactOrUuid | Problem
"""A value as a request gives it: encoded, or the ID of an artifact; or why it is neither."""


@dataclass(frozen=True, slots=True)
class TodaysCode:
    """The code of the client that asks.

    Attributes:
        pinned_digest: The one version that may run it; empty for any.
        steps: Today's graph of a pipeline, numbered from 1 in its own order; None for the graph as recorded.
        result: The shape of what that pipeline returns, a serialized Binding in terms of those numbers.
        shaping_inputs: Parameters that the graph's shape depends on.
    """

    module: str
    name: str
    pinned_digest: str = ""
    code_digest: str = ""
    definitions: Sequence[Definition] = ()
    steps: Sequence[InvocationRow] | None = None
    result: bytes | None = None
    shaping_inputs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What is to be replayed, and how.

    Attributes:
        execution: An ID, a unique part of it, or a run name.
        mode: What the request says by itself; None where it follows from the rest.
        selectors: Of the modes `from` and `skip`.
        inputs: By the name of the flow input.
        overrides: By `checkpoint.<selector>`.
        step_input_overrides: By invocation ID or `all:NAME`, then by input.
        problems: What is wrong with its form, to be told with all the rest.
    """

    execution: str
    project: str = ""
    mode: Mode | None = None
    selectors: Sequence[str] = ()
    rerun_changed_code: bool = False
    inputs: Mapping[str, Given] = field(default_factory=dict)
    overrides: Mapping[str, Given] = field(default_factory=dict)
    step_input_overrides: Mapping[str, Mapping[str, Given]] = field(default_factory=dict)
    on_stale: OnStale = OnStale.REUSE
    code: TodaysCode | None = None
    single_step: bool = False
    problems: Sequence[Problem] = ()

    @property
    def chosen_mode(self) -> Mode:
        """The mode, by what is present."""
        if self.mode is not None:
            return self.mode
        if self.overrides or self.step_input_overrides:
            return Mode.OVERRIDES
        return Mode.CHANGED_CODE if self.rerun_changed_code else Mode.EVERYTHING


@dataclass(frozen=True, slots=True)
class Creation:
    """How a replay is created.

    Attributes:
        request_id: Makes it idempotent.
        request_digest: Of the whole request, to tell a repeat from another one with the same ID.
        expected_plan: The digest that was agreed to; empty for any.
        name: The run name; empty to be given one.
        time_limit: How many seconds it may take; None for as many as its source.
        lane: The lane of its work; None for the usual one.
    """

    request_id: UUID | None = None
    request_digest: str = ""
    expected_plan: str = ""
    name: str = ""
    requested_by: str = ""
    debug: bool = False
    time_limit: float | None = None
    lane: Lane | None = None
    priority: int = 0

    def rank(self, steps: int) -> int:
        """Return the rank of a replay of which at least so many steps run."""
        return rank(usual_lane(steps) if self.lane is None else self.lane, self.priority)
