"""The client's models and requests, as far as they need no planner."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from dalsegno.client import Client
from dalsegno.client.artifacts import ArtifactRef
from dalsegno.client.connection import Connection
from dalsegno.client.given_values import KnownTypes
from dalsegno.client.identity import call_in_execution, execution_text, output_id
from dalsegno.client.replay_request import ReplayRequest, Wrong, request_of_configuration
from dalsegno.client.sequences import LazyMapping, NamedSequence, PagedSequence
from dalsegno.client.status import error_of
from dalsegno.client.storage import Storage, Uploads
from dalsegno.durable import inside_step
from dalsegno.errors import (
    AuthError,
    BackendError,
    ContextError,
    DalsegnoError,
    DivergenceError,
    DivergenceKind,
    NotFoundError,
    StateError,
    UsageError,
    UserCodeError,
    WaitValidationError,
)
from dalsegno.failures import failure_error
from dalsegno.payloads import from_payload
from dalsegno.v1 import execution_pb2, replay_service_pb2
from dalsegno.v1.replay_service_pb2 import ReplaySpec

ARTIFACT = UUID("01890000-0000-7000-8000-000000000001")


def drafted(request: ReplayRequest, types: KnownTypes | None = None) -> tuple[ReplaySpec, Wrong]:
    return request.draft("source", "tests", Uploads(Storage(Connection("localhost:1", "tests"))), types=types)


def spec_of(request: ReplayRequest, types: KnownTypes | None = None) -> ReplaySpec:
    spec, wrong = drafted(request, types)
    if wrong.problems:
        raise UsageError("wrong", reason=wrong.reason, problems=wrong.problems)
    return spec


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "mode", "selectors"),
    [
        (ReplayRequest(from_="train"), "from", ["train"]),
        (ReplayRequest(from_=["a", "all:b"]), "from", ["a", "all:b"]),
        (ReplayRequest(from_=[]), "from", []),
        (ReplayRequest(skip=[]), "skip", []),
        (ReplayRequest(skip=["load"]), "skip", ["load"]),
    ],
)
def test_a_mode_is_chosen_by_its_presence(request_: ReplayRequest, mode: str, selectors: list[str]) -> None:
    spec = spec_of(request_)
    assert spec.WhichOneof("mode") == mode
    assert list(getattr(spec, mode).selectors) == selectors


def test_modes_without_selectors() -> None:
    assert spec_of(ReplayRequest()).WhichOneof("mode") is None
    assert spec_of(ReplayRequest(skip_successful_steps=True)).skip_successful
    assert spec_of(ReplayRequest(everything=True)).everything
    assert spec_of(ReplayRequest(rerun_changed_code=True)).rerun_changed_code
    assert spec_of(ReplayRequest(on_stale="rerun")).on_stale == replay_service_pb2.ON_STALE_RERUN


def test_all_problems_of_a_request_come_in_one_error() -> None:
    request = ReplayRequest(
        from_=3,  # type: ignore[arg-type]
        skip=["a"],
        on_stale="sometimes",
        step_input_overrides={"train": 3},  # type: ignore[dict-item]
    )
    with pytest.raises(UsageError) as caught:
        spec_of(request)
    assert [problem.field for problem in caught.value.problems] == [
        "from_",
        "",
        "on_stale",
        'step_input_overrides["train"]',
    ]
    assert "from_ and skip exclude each other" in str(caught.value)


def test_values_are_plain_or_references() -> None:
    spec = spec_of(
        ReplayRequest(
            inputs={"a": {"$value": {"$artifact": "x"}}, "b": ArtifactRef(ARTIFACT)},
            flow_inputs={"c": ARTIFACT, "d": [1, 2]},
            overrides={"checkpoint.train": {"$artifact": str(ARTIFACT)}},
            step_input_overrides={"train": {"rate": 0.5}},
        )
    )
    assert from_payload(spec.inputs["a"].payload, None) == {"$artifact": "x"}
    assert spec.inputs["b"].artifact_id == spec.inputs["c"].artifact_id == str(ARTIFACT)
    assert from_payload(spec.inputs["d"].payload, None) == [1, 2]
    assert spec.overrides["checkpoint.train"].artifact_id == str(ARTIFACT)
    assert from_payload(spec.step_input_overrides["train"].inputs["rate"].payload, None) == 0.5


def test_a_uuid_is_a_value_where_the_type_says_so() -> None:
    def function(owner: UUID, model: list[int], anything: Any) -> None: ...

    types = KnownTypes(function)
    spec = spec_of(ReplayRequest(inputs={"owner": ARTIFACT, "model": ARTIFACT, "anything": ARTIFACT}), types)
    assert from_payload(spec.inputs["owner"].payload, None) == ARTIFACT
    assert spec.inputs["model"].artifact_id == spec.inputs["anything"].artifact_id == str(ARTIFACT)


def test_values_of_the_wrong_type_are_named_with_their_path() -> None:
    def function(topic: str, sizes: dict[str, int]) -> None: ...

    with pytest.raises(UsageError) as caught:
        spec_of(ReplayRequest(flow_inputs={"topic": 3, "sizes": {"a": "b"}}), KnownTypes(function))
    assert [problem.field.partition("]")[0] for problem in caught.value.problems] == [
        'inputs["topic"',
        'inputs["sizes"',
    ]


def test_an_input_given_in_both_ways_is_refused() -> None:
    with pytest.raises(UsageError, match=r"given twice.*topic"):
        spec_of(ReplayRequest(inputs={"topic": 1}, flow_inputs={"topic": 2}))


def test_an_artifact_reference_must_be_a_uuid() -> None:
    with pytest.raises(UsageError, match=r"not the ID of an artifact"):
        spec_of(ReplayRequest(overrides={"checkpoint.a": {"$artifact": "nothing"}}))
    assert ArtifactRef(str(ARTIFACT)) == ArtifactRef(ARTIFACT)


def test_what_is_wrong_is_left_out_so_that_it_is_not_found_wrong_twice() -> None:
    nothing = {"$artifact": "nothing"}
    request = ReplayRequest(
        inputs={"n": nothing}, overrides={"checkpoint.a": nothing}, step_input_overrides={"b": {"x": nothing, "y": 1}}
    )
    spec, wrong = drafted(request)
    assert [one.field for one in wrong.problems] == [
        'inputs["n"]', 'overrides["checkpoint.a"]', 'step_input_overrides["b"]["x"]',
    ]  # fmt: skip
    assert not spec.inputs
    assert not spec.overrides
    assert list(spec.step_input_overrides["b"].inputs) == ["y"]


def test_a_run_configuration_is_a_request() -> None:
    request = request_of_configuration(
        {"steps_to_skip": ["a"], "parameters": {"x": 1}, "step_input_overrides": {"b": {"y": 2}}}
    )
    assert request == ReplayRequest(skip=["a"], inputs={"x": 1}, step_input_overrides={"b": {"y": 2}})
    assert request_of_configuration(None).everything
    assert request_of_configuration({"skip_successful_steps": True}).skip_successful_steps
    with pytest.raises(UsageError, match="steps_to_skip") as caught:
        spec_of(request_of_configuration({"skip": [], "cache": True}))
    assert len(caught.value.problems) == 2


def test_an_execution_is_named_by_text_uuid_or_object() -> None:
    class Run:
        exec_id = "abc"

    assert execution_text(Run()) == "abc"
    assert execution_text(ARTIFACT) == str(ARTIFACT)
    for nothing in (" ", None, 3):
        with pytest.raises(UsageError, match="names no execution"):
            execution_text(nothing)


def test_ids_of_outputs_lead_back_to_their_call() -> None:
    execution = UUID("01890000-0000-7000-8000-0123456789ab")
    call = call_in_execution(execution, 7)
    assert output_id(call, 7, 0) != output_id(call, 7, 1) != call
    assert call_in_execution(output_id(call, 7, 0), 7) != call
    assert output_id(call_in_execution(execution, 7), 7, 3) == output_id(call, 7, 3)


def test_a_client_works_neither_in_a_body_nor_in_a_step() -> None:
    token = inside_step.set(True)
    try:
        with pytest.raises(ContextError, match="inside a step"):
            Client("localhost:1")
    finally:
        inside_step.reset(token)


# -- sequences --------------------------------------------------------------------------------------------------------


class Pages:
    """Numbers in pages of three."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.fetched = 0

    def __call__(self, token: str) -> tuple[list[int], str]:
        self.fetched += 1
        start = int(token or 0)
        end = min(start + 3, self.count)
        return list(range(start, end)), str(end) if end < self.count else ""


def test_a_paged_sequence_fetches_as_far_as_it_is_looked_at() -> None:
    pages = Pages(10)
    numbers = PagedSequence(pages, count=10)
    assert len(numbers) == 10
    assert pages.fetched == 0
    assert numbers[4] == 4
    assert pages.fetched == 2
    assert numbers[-1] == 9
    assert numbers[2:5] == [2, 3, 4]
    assert list(numbers) == list(range(10)) == list(numbers)
    assert pages.fetched == 4
    with pytest.raises(IndexError):
        _ = numbers[10]
    assert len(PagedSequence(Pages(0))) == 0
    assert repr(PagedSequence(Pages(9))) == "[0, 1, 2, 3, 4, 5, 6, 7, …]"


def test_a_named_sequence_is_looked_up_by_name_too() -> None:
    pages = Pages(7)
    named: NamedSequence[int] = NamedSequence("number", lambda one: f"n{one}", pages)
    assert named["n4"] == 4
    assert named[0] == 0
    assert named.get("n6") == 6
    assert named.get("n9") is None
    assert named.names()[:2] == ["n0", "n1"]
    with pytest.raises(NotFoundError, match=r"no number 'n66'.*Did you mean 'n6'"):
        _ = named["n66"]


def test_a_lazy_mapping_loads_what_is_looked_at_once() -> None:
    loads: list[str] = []

    def load() -> int:
        loads.append("a")
        return 1

    values = LazyMapping({"a": load, "b": lambda: 2})
    assert list(values) == ["a", "b"]
    assert not loads
    assert values["a"] == values["a"] == 1
    assert loads == ["a"]


# -- errors -----------------------------------------------------------------------------------------------------------


class Answer(grpc.RpcError):
    """A status as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Any) -> None:
        super().__init__()
        self._code, self._message, self._details = code, message, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> Any:
        if not self._details:
            return ()
        status = status_pb2.Status(code=self._code.value[0], message=self._message)
        for detail in self._details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)


def info(reason: str, **fields: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(domain="dalsegno", reason=reason, metadata=fields)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_INPUT", UsageError),
        (grpc.StatusCode.INVALID_ARGUMENT, "WAIT_VALIDATION", WaitValidationError),
        (grpc.StatusCode.FAILED_PRECONDITION, "AMBIGUOUS_SELECTOR", StateError),
        (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", NotFoundError),
        (grpc.StatusCode.UNAUTHENTICATED, "AUTH", AuthError),
        (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", BackendError),
        (grpc.StatusCode.INTERNAL, "INTERNAL", BackendError),
    ],
)
def test_a_status_becomes_the_error_that_it_came_from(
    code: grpc.StatusCode, reason: str, expected: type[DalsegnoError]
) -> None:
    error = error_of(Answer(code, "what was wrong", info(reason, input="rate")), "here:1")
    assert type(error) is expected
    assert error.message == "what was wrong"
    assert error.reason == reason
    assert error.fields == {"input": "rate"}


def test_problems_are_restored() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="inputs", description="unknown")
    detail = error_details_pb2.BadRequest(field_violations=[violation])
    error = error_of(Answer(grpc.StatusCode.INVALID_ARGUMENT, "wrong", info("USAGE"), detail), "here:1")
    assert str(error) == "wrong\n  - inputs: unknown"


@pytest.mark.parametrize("told", ["several fit, " * 60, f"{('several fit, ' * 60)[:499]}…"])
def test_a_message_is_not_repeated_as_a_problem(told: str) -> None:
    violation = error_details_pb2.PreconditionFailure.Violation(description=told)
    detail = error_details_pb2.PreconditionFailure(violations=[violation])
    message = "several fit, " * 60
    error = error_of(Answer(grpc.StatusCode.FAILED_PRECONDITION, message, info("STATE"), detail), "here:1")
    assert str(error) == message


def test_a_divergence_is_restored_with_its_kind() -> None:
    error = error_of(Answer(grpc.StatusCode.ABORTED, "differs", info("DIVERGENCE", kind="graph_changed")), "here:1")
    assert isinstance(error, DivergenceError)
    assert error.kind is DivergenceKind.GRAPH_CHANGED


def test_where_no_planner_answers_the_error_says_what_to_do() -> None:
    error = error_of(Answer(grpc.StatusCode.UNAVAILABLE, "connection refused"), "here:1")
    assert isinstance(error, BackendError)
    assert error.reason == "PLANNER_UNREACHABLE"
    assert "here:1" in error.message
    assert "DALSEGNO_ADDRESS" in error.message


@pytest.mark.semantics(
    "5",
    "DivergenceError carries .kind, the position, what was expected and what came, and the digests.",
)
def test_failures_become_errors_by_their_origin() -> None:
    failure = execution_pb2.Failure(
        origin=execution_pb2.FAILURE_ORIGIN_USER_CODE,
        message="the model diverged",
        exception_type="builtins:ValueError",
        traceback="Traceback …",
        invocation_id="train",
        attempt=2,
    )
    error = failure_error(failure, "id", "flow 'f'")
    assert type(error) is UserCodeError
    assert str(error) == "flow 'f' failed in 'train': ValueError: the model diverged"
    assert error.exec_id == "id"
    assert error.failure is not None
    assert error.failure.attempt == 2
    divergence = execution_pb2.Divergence(
        kind=execution_pb2.DIVERGENCE_KIND_INPUT_CHANGED,
        position=3,
        expected=execution_pb2.DivergentCall(invocation_id="fit", position=3, input_digests={"xs": "aa", "k": "0"}),
        actual=execution_pb2.DivergentCall(invocation_id="fit", position=3, input_digests={"xs": "bb", "k": "0"}),
        inputs=["xs"],
        before=[execution_pb2.DivergentCall(invocation_id="load", position=2)],
        following=[execution_pb2.DivergentCall(invocation_id="report", position=4)],
    )
    diverged = failure_error(
        execution_pb2.Failure(origin=execution_pb2.FAILURE_ORIGIN_DIVERGENCE, message="m", divergence=divergence),
        "id",
        "flow 'f'",
    )
    assert isinstance(diverged, DivergenceError)
    assert (diverged.kind, diverged.position) == (DivergenceKind.INPUT_CHANGED, 3)
    assert diverged.digests == {"expected.xs": "aa", "expected.k": "0", "actual.xs": "bb", "actual.k": "0"}
    assert diverged.failure is not None
    assert diverged.failure.divergence is not None
    assert diverged.failure.divergence.inputs == ("xs",)
    assert diverged.__notes__ == [
        (
            "Calls (- recorded, + made now):\n"
            "     2  load\n-    3  fit(xs=aa, …)\n+    3  fit(xs=bb, …)\n     4  report  (recorded next)"
        )
    ]
