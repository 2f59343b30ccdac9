"""What an import looks at of a recorded step, against the messages themselves."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from dalsegno.v1.definition_pb2 import DefinitionRef, StepOptions
from dalsegno.v1.execution_pb2 import (
    INVOCATION_KIND_STEP,
    INVOCATION_KIND_WAIT,
    INVOCATION_STATE_COMPLETED,
    INVOCATION_STATE_FAILED,
    Attempt,
    Failure,
)
from dalsegno.v1.execution_service_pb2 import ImportedStep, ImportedSteps, StepSpec
from dalsegno.v1.value_pb2 import Binding, Inputs, Output, Outputs, Payload
from dalsegno.v1.wait_service_pb2 import Wait
from dalsegno_planner.rpc.step_views import has_rest, viewed

SPEC = StepSpec(
    invocation_id="fit",
    definition=DefinitionRef(module="training", name="fit"),
    code_digest="ab" * 32,
    inputs=Inputs(bindings={"x": Binding(value=Payload(codec="json", inline=b"1"))}),
)
OUTPUTS = Outputs(outputs=[Output(name="output", payload=Payload(codec="json", inline=b"2"))])


def test_a_view_shows_what_most_steps_have() -> None:
    step = ImportedStep(
        step=SPEC,
        kind=INVOCATION_KIND_STEP,
        state=INVOCATION_STATE_COMPLETED,
        outputs=OUTPUTS,
        started_at=Timestamp(seconds=5),
        finished_at=Timestamp(),
        attempt=1,
    )
    (view,) = viewed(ImportedSteps(steps=[step]))
    assert not has_rest(view)
    assert not has_rest(view.step)
    assert (view.step.invocation_id, view.step.code_digest) == (SPEC.invocation_id, SPEC.code_digest)
    assert DefinitionRef.FromString(view.step.definition) == SPEC.definition
    assert Inputs.FromString(view.step.inputs) == SPEC.inputs
    assert Outputs.FromString(view.outputs) == OUTPUTS
    assert (view.kind, view.state, view.attempt) == (step.kind, step.state, step.attempt)
    assert Timestamp.FromString(view.started_at) == step.started_at
    assert (view.finished_at, view.HasField("finished_at")) == (b"", True)


def test_what_is_not_there_can_be_told_from_what_is_empty() -> None:
    absent, empty = viewed(ImportedSteps(steps=[ImportedStep(), ImportedStep(outputs=Outputs())]))
    assert [one.HasField("outputs") for one in (absent, empty)] == [False, True]


@pytest.mark.parametrize(
    "step",
    [
        ImportedStep(failure=Failure()),
        ImportedStep(wait=Wait(), kind=INVOCATION_KIND_WAIT),
        ImportedStep(yielded=1),
        ImportedStep(failed_attempts=[Attempt(attempt=1), Attempt(attempt=2)]),
        ImportedStep(output_overridden=True),
        ImportedStep(returned=Outputs()),
        ImportedStep(overridden_inputs=["x", "y"], state=INVOCATION_STATE_FAILED),
        ImportedStep(stale_inputs=True),
    ],
)
def test_one_look_tells_of_all_that_few_steps_have(step: ImportedStep) -> None:
    assert [has_rest(view) for view in viewed(ImportedSteps(steps=[ImportedStep(step=SPEC), step]))] == [False, True]


@pytest.mark.parametrize("spec", [StepSpec(after=[1, 2_000]), StepSpec(options=StepOptions())])
def test_so_does_one_look_at_its_spec(spec: StepSpec) -> None:
    (view,) = viewed(ImportedSteps(steps=[ImportedStep(step=spec)]))
    assert has_rest(view.step)
    assert not has_rest(view)


def test_what_a_client_wrote_in_pieces_is_one() -> None:
    """In the format of protobuf, the parts of a message that come twice become one."""
    pieces = (
        ImportedStep(step=StepSpec(definition=DefinitionRef(module="training"))),
        ImportedStep(step=StepSpec(definition=DefinitionRef(name="fit"), inputs=SPEC.inputs)),
        ImportedStep(outputs=OUTPUTS),
        ImportedStep(outputs=OUTPUTS),
    )
    step = ImportedStep.FromString(b"".join(piece.SerializeToString() for piece in pieces))
    (view,) = viewed(ImportedSteps(steps=[step]))
    assert DefinitionRef.FromString(view.step.definition) == SPEC.definition
    assert Inputs.FromString(view.step.inputs) == SPEC.inputs
    assert len(Outputs.FromString(view.outputs).outputs) == 2
