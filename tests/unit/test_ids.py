"""IDs lead back to what they belong to."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from dalsegno_planner.core import ids

executions = st.builds(ids.execution_id, st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
numbers = st.integers(1, ids.MAX_NUMBER)


@given(executions)
def test_an_execution_id_is_a_uuid7_that_names_itself(execution: ids.ExecutionId) -> None:
    assert (execution.version, execution.variant) == (7, UUID(int=0x8 << 60).variant)
    assert ids.parse_id(execution) == ids.ParsedId(execution, ids.Number(0), None)


@given(executions, numbers)
def test_a_call_id_carries_its_execution_and_number(execution: ids.ExecutionId, number: int) -> None:
    call = ids.call_id(execution, number)
    assert call.version == 7
    assert ids.parse_id(call) == ids.ParsedId(execution, ids.Number(number), None)


@given(executions, numbers, st.integers(0, ids.MAX_OUTPUTS - 1))
def test_an_artifact_id_carries_its_output(execution: ids.ExecutionId, number: int, output: int) -> None:
    artifact = ids.artifact_id(execution, number, output)
    assert ids.parse_id(artifact) == ids.ParsedId(execution, ids.Number(number), output)


@given(executions, st.sets(numbers, min_size=2, max_size=50))
def test_ids_of_one_execution_are_all_different(execution: ids.ExecutionId, chosen: set[int]) -> None:
    made = {ids.call_id(execution, number) for number in chosen} | {ids.artifact_id(execution, n, 0) for n in chosen}
    assert len(made | {execution}) == 2 * len(chosen) + 1


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_any_uuid_parses(milliseconds: int, noise: int) -> None:
    parsed = ids.parse_id(ids.uuid7(milliseconds, noise))
    assert parsed.execution_id.version == 7
