"""Replays: planned, and created as nothing but what differs from their source."""

from __future__ import annotations

import secrets
from uuid import UUID

from dalsegno.errors import BackendError, StateError, UsageError
from dalsegno.v1.definition_pb2 import StepOptions
from dalsegno.v1.value_pb2 import Binding, BindingList, FlowInputs, Inputs, OutputRef, Payload
from dalsegno_planner.core import run_names
from dalsegno_planner.core.execution import Execution, ExecutionKind, ExecutionState, route
from dalsegno_planner.core.ids import Number
from dalsegno_planner.core.overrides import DEFAULT_OUTPUT
from dalsegno_planner.core.plan import Mode, OnStale
from dalsegno_planner.entropy import new_execution_id, new_uuid7
from dalsegno_planner.store import executions
from dalsegno_planner.store.bindings import order, references, with_values
from dalsegno_planner.store.invocations import InvocationRow
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.replay_plan import SQL, Plan
from dalsegno_planner.store.replay_request import Creation, ReplayRequest
from dalsegno_planner.store.replay_resolution import Resolved, StepInputs
from dalsegno_planner.store.replay_values import FoundValue

DEEPEST_LINEAGE = 16
"""A replay of an execution with so many entries in its lineage gets copies of what it reuses, and no ancestors.

So does a replay of one that waits and is a replay itself.
"""

_NAME_TRIES = 20
_MOST_ROOTS = 10_000
"""A pipeline's record names its roots up to this number; a flow's body needs all of them."""


async def find_request(connection: Connection, creation: Creation) -> Execution | None:
    """Return the replay that this request created before.

    Raises:
        UsageError: The ID was used for another request.
    """
    if creation.request_id is None:
        return None
    found = await executions.get_by_request(connection, creation.request_id)
    if found is not None and (found.replay or {}).get("request_digest") != creation.request_digest:
        raise UsageError(
            f"the request ID {creation.request_id} was used for another request, which created {found.name}; "
            "use a new one for each request",
            reason="REQUEST_ID_REUSED",
            fields={"request_id": str(creation.request_id), "execution": str(found.id)},
        )
    return found


def check_agreed(plan: Plan, creation: Creation) -> None:
    """Refuse a plan that is not the one that was agreed to.

    Raises:
        StateError: With reason ``PLAN_CHANGED``.
    """
    expected, actual = creation.expected_plan, plan.summary.digest
    if expected and expected != actual:
        raise StateError(
            f"the plan is not the one that was agreed to: it was {expected} and is {actual} now; look at it again",
            reason="PLAN_CHANGED",
            fields={"expected": expected, "actual": actual},
        )


async def create_replay(connection: Connection, plan: Plan, creation: Creation) -> Execution:
    """Create a replay from its plan, in the transaction that the plan was made in.

    Raises:
        StateError: Another plan was agreed to.
        UsageError: The run name is taken, or the request ID was used otherwise.
        asyncpg.SerializationError: The source has changed since; to be planned again.
    """
    check_agreed(plan, creation)
    return await _Writing(connection, plan, creation).run()


class _Writing:
    def __init__(self, connection: Connection, plan: Plan, creation: Creation) -> None:
        self._connection = connection
        self._plan = plan
        self._creation = creation
        self._resolved: Resolved = plan.resolved
        self._request: ReplayRequest = plan.resolved.request
        self._source = plan.source
        self._kind = ExecutionKind.FLOW if plan.resolved.is_flow else ExecutionKind.PIPELINE
        self._id = new_execution_id()
        self._detached = False
        self._artifacts: dict[UUID, tuple[str, Payload]] = {}

    async def run(self) -> Execution:
        # A replay that waits has yet to find out which calls it reuses: what it writes of them then must not show here.
        goes_on = self._source.state is ExecutionState.WAITING and self._source.source_id is not None
        self._detached = self._resolved.facts.lineage_length >= DEEPEST_LINEAGE or goes_on
        arguments = (*await self._execution(), *self._content())
        for _ in range(_NAME_TRIES):
            name = self._creation.name or run_names.run_name(secrets.randbits(run_names.BITS))
            where = (self._id, self._source.id, self._source.last_event, self._source.project, name)
            row = await self._connection.fetchrow(SQL["create"], *where, *arguments)
            if row is not None:
                return executions.of_row(row)
            # The same request, made twice at once: the other one has been committed while this one waited.
            existing = await find_request(self._connection, self._creation)
            if existing is not None:
                return existing
            if self._creation.name:
                raise executions.name_taken(name, self._source.project)
        raise BackendError("no free run name was found; give the run a name of its own", reason="NO_FREE_NAME")

    @property
    def _is_pipeline(self) -> bool:
        return self._kind is ExecutionKind.PIPELINE

    async def _execution(self) -> tuple[object, ...]:
        """Arguments of `create_replay` from `flow` to `rank`."""
        plan, source, code, today = self._plan, self._source, self._request.code, self._plan.today
        affected, facts = plan.summary.affected_count, plan.resolved.facts
        return (
            source.flow,
            self._kind.value,
            self._module,
            code.pinned_digest if code is not None else "",
            code.code_digest if code is not None else "",
            self._creation.debug,
            self._request.single_step,
            self._creation.requested_by,
            self._creation.request_id,
            facts.next_number + len(self._new_numbers()),
            plan.size,
            self._inputs(),
            self._is_pipeline and affected == 0,
            affected if self._is_pipeline else 0,
            today.result if today is not None else await self._result_binding(),
            await self._record(),
            facts.next_number,
            self._detached,
            list(code.shaping_inputs if code is not None and code.steps is not None else facts.shaping_inputs),
            self._time_limit(),
            self._creation.rank(affected),
        )

    def _content(self) -> tuple[object, ...]:
        """Arguments of `create_replay` from `marks_numbers` on."""
        resolved, today = self._resolved, self._plan.today
        stale = self._request.on_stale is OnStale.REUSE and self._is_pipeline and not self._request.single_step
        return (
            *(self._plan.few.columns() if self._plan.few is not None else (None, None, None)),
            list(self._artifacts),
            [name for name, _ in self._artifacts.values()],
            [payload.SerializeToString() for _, payload in self._artifacts.values()],
            list(resolved.overrides),
            [one.outputs() for one in resolved.overrides.values()],
            *self._pins(),
            [self._composite(row) for row in self._written_rows()],
            sorted(self._new_numbers()),
            sorted(resolved.inputs) if stale and resolved.mode is not Mode.EVERYTHING else [],
            today is not None and bool(today.removed),
            self._body_route,
        )

    @property
    def _module(self) -> str:
        code = self._request.code
        return code.module if code is not None and code.module else self._source.module

    @property
    def _body_route(self) -> str:
        code, source = self._request.code, self._source
        return route(source.project, self._module, source.flow, code.pinned_digest if code is not None else "")

    async def _result_binding(self) -> bytes | None:
        """What the replay returns, as its source does; a single step what the step does."""
        if not self._request.single_step:
            return self._source.result_binding
        (number,) = self._resolved.chosen
        options = StepOptions.FromString(await self._connection.fetchval(SQL["options_of"], self._source.id, number))
        outputs = [
            Binding(output=OutputRef(number=number, output=name)) for name in options.outputs or (DEFAULT_OUTPUT,)
        ]
        several = Binding(tuple=BindingList(items=outputs))
        return (outputs[0] if len(outputs) == 1 else several).SerializeToString()

    def _time_limit(self) -> float | None:
        given = self._creation
        # Somebody who stops at a breakpoint is not timed, unless asked for.
        return given.time_limit if given.time_limit is not None or given.debug else self._source.time_limit

    def _inputs(self) -> bytes:
        inputs = FlowInputs.FromString(self._source.inputs)
        for name, value in self._resolved.inputs.items():
            inputs.values[name].CopyFrom(value.payload)
        return inputs.SerializeToString()

    async def _record(self) -> dict[str, object]:
        """What the replay was asked to do, as it stays with it."""
        resolved = self._resolved
        roots = await self._roots()
        return {
            "mode": resolved.mode.value,
            "selectors": list(self._request.selectors),
            "rerun_changed_code": self._request.rerun_changed_code,
            "inputs": sorted(resolved.inputs),
            "overrides": {one.key: str(self._artifact(one.value, one.output)) for one in resolved.overrides.values()},
            "overridden_numbers": sorted(resolved.overrides),
            "step_input_overrides": {
                one.invocation_id: {
                    name: str(self._artifact(value, name)) for name, value in sorted(one.values.items())
                }
                for one in resolved.step_inputs.values()
            },
            "roots": roots if self._resolved.is_flow or len(roots) <= _MOST_ROOTS else [],
            "root_count": self._plan.summary.root_count,
            "on_stale": self._request.on_stale.value,
            "plan_digest": self._plan.summary.digest,
            "warnings": self._plan.summary.warnings,
            "request_digest": self._creation.request_digest,
        }

    async def _roots(self) -> list[int]:
        if self._plan.implied and self._plan.summary.affected_count > _MOST_ROOTS and not self._resolved.is_flow:
            return []
        few = self._plan.few
        if few is not None:
            return few.affected if self._plan.implied else few.roots
        query = SQL["numbers_of_affected" if self._plan.implied else "numbers_of_roots"]
        return [row["number"] for row in await self._connection.fetch(query)] + sorted(self._new_numbers())

    def _artifact(self, value: FoundValue, name: str) -> UUID:
        """The artifact that a value is; a plain value becomes one."""
        if value.artifact_id is not None:
            return value.artifact_id
        for known, (_, payload) in self._artifacts.items():
            if payload is value.payload:
                return known
        artifact_id = new_uuid7()
        self._artifacts[artifact_id] = (name, value.payload)
        return artifact_id

    def _new_numbers(self) -> frozenset[Number]:
        return self._plan.today.new if self._plan.today is not None else frozenset()

    def _pins(self) -> tuple[list[str], list[str], list[str]]:
        code = self._request.code
        if code is None or not code.pinned_digest:
            return [], [], []
        pinned = self._resolved.code.todays_digests()
        if self._creation.debug:
            # Only the process that debugs it announces this pin, for all of its code.
            pinned = [(module, name, code.pinned_digest) for module, name, _ in pinned]
        return [one[0] for one in pinned], [one[1] for one in pinned], [one[2] for one in pinned]

    def _written_rows(self) -> list[InvocationRow]:
        """Affected rows that are not those recorded: of today's graph, or with inputs replaced."""
        if self._plan.today is not None:
            return [
                _with_inputs(row, self._resolved.step_inputs.get(row.invocation_id)) for row in self._plan.today.rows
            ]
        pins = {(module, name): digest for module, name, digest in zip(*self._pins(), strict=True)}
        rows = []
        for one in self._resolved.recorded_step_inputs.values():
            assert one.row is not None
            recorded = one.row
            row = InvocationRow(
                execution_id=self._id,
                number=recorded.number,
                position=recorded.position,
                invocation_id=recorded.invocation_id,
                name=recorded.name,
                kind="step",
                state="pending",
                module=recorded.module,
                pinned_digest=pins.get((recorded.module, recorded.name), ""),
                code_digest="",
                attempt=0,
                blocked_by=0,
                started_at=None,
                finished_at=None,
                upstream=list(recorded.upstream),
                after=list(recorded.after),
                reads_inputs=list(recorded.reads_inputs),
                inputs=recorded.inputs,
                outputs=None,
                failure=None,
                options=recorded.options,
            )
            rows.append(_with_inputs(row, one))
        return rows

    def _composite(self, row: InvocationRow) -> tuple[object, ...]:
        """A row as `replay_row` has it."""
        replaced = self._resolved.step_inputs.get(row.invocation_id)
        return (
            row.number,
            row.position,
            row.invocation_id,
            row.name,
            row.module,
            row.pinned_digest,
            row.code_digest,
            row.upstream,
            row.after,
            row.reads_inputs,
            sorted(replaced.values) if replaced is not None else [],
            row.inputs,
            row.options,
        )


def _with_inputs(row: InvocationRow, replaced: StepInputs | None) -> InvocationRow:
    """A row with some inputs replaced; what they took before is upstream no more."""
    if replaced is None:
        return row
    values = {name: value.payload for name, value in replaced.values.items()}
    inputs = with_values(Inputs.FromString(row.inputs), values)
    upstream, after = order(inputs, row.after)
    return row._replace(
        inputs=inputs.SerializeToString(),
        upstream=upstream,
        after=after,
        reads_inputs=sorted(references(inputs).flow_inputs),
    )
