"""Tracing: the graph that a pipeline's body draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest

from dalsegno import flow, pipeline, step, wait
from dalsegno.errors import ContextError, UsageError
from dalsegno.payloads import from_payload
from dalsegno.tracing import Graph
from dalsegno.v1.value_pb2 import Binding


@step
def load() -> tuple[Annotated[list[int], "xs"], Annotated[list[int], "ys"]]:
    return [1], [2]


@step
def fit(xs: Any, rate: Any = 0.1) -> Any:
    return xs


@step
def clean() -> None: ...


@flow
def body() -> None: ...


def kinds(graph: Graph, invocation_id: str) -> dict[str, str | None]:
    spec = next(one for one in graph.steps if one.invocation_id == invocation_id)
    return {name: binding.WhichOneof("kind") for name, binding in spec.inputs.bindings.items()}


def binding_of(graph: Graph, invocation_id: str, name: str) -> Binding:
    spec = next(one for one in graph.steps if one.invocation_id == invocation_id)
    return spec.inputs.bindings[name]


def test_calls_become_steps_in_order() -> None:
    @pipeline
    def train(rate: float = 0.5) -> Any:
        xs, ys = load()
        first = fit(xs, rate)
        return fit({"model": first, "on": [ys, (xs,)]}, id="second")  # type: ignore[call-arg]

    graph = train.trace()
    assert [one.invocation_id for one in graph.steps] == ["load", "fit", "second"]
    assert list(graph.steps[0].options.outputs) == ["xs", "ys"]
    assert kinds(graph, "fit") == {"xs": "output", "rate": "flow_input"}
    assert binding_of(graph, "fit", "xs").output.output == "xs"
    nested = binding_of(graph, "second", "xs").map.entries
    assert [entry.text for entry in nested] == ["model", "on"]
    assert nested[1].value.list.items[1].tuple.items[0].output.number == 1
    assert kinds(graph, "second")["rate"] == "value"
    assert graph.result is not None
    assert graph.result.output.number == 3
    assert list(graph.inputs) == ["rate"]
    assert graph.definitions == (load, fit)
    assert len(graph) == 3


@pytest.mark.semantics(
    "5", "passing one on unchanged records a binding, any other use makes the graph's shape depend on it"
)
def test_a_parameter_that_is_only_passed_on_does_not_shape_the_graph() -> None:
    @pipeline
    def train(data: Any, depth: int, rate: float) -> None:
        for _ in range(depth):
            fit([data], rate)

    graph = train.trace({"a": 1}, 2, rate=0.1)
    assert graph.shaped_by == {"depth"}
    assert binding_of(graph, "fit_2", "xs").list.items[0].flow_input == "data"


@pytest.mark.parametrize(
    "look",
    [
        lambda value: value + 1,
        bool,
        str,
        lambda value: f"{value}",
        lambda value: value == 3,
        lambda value: {value: 1},
        lambda value: isinstance(value, int),
        lambda value: value.bit_length(),
        lambda value: [1, 2, 3, 4][value],
        lambda value: range(value),
    ],
)
@pytest.mark.semantics("5", "In a pipeline body, parameters behave as their values")
def test_any_look_at_a_parameter_is_noticed_and_gets_the_value(look: Callable[[Any], Any]) -> None:
    seen: list[Any] = []

    @pipeline
    def train(number: int) -> None:
        seen.append(look(number))

    assert train.trace(3).shaped_by == {"number"}
    assert seen == [look(3)]


def test_a_parameter_can_be_a_path() -> None:
    seen: list[Path] = []

    @pipeline
    def train(folder: str) -> None:
        seen.append(Path(folder) / "data")

    assert train.trace("here").shaped_by == {"folder"}
    assert seen == [Path("here/data")]


def test_identity_sees_the_value_itself() -> None:
    @pipeline
    def train(data: Any = None, verbose: bool = True, rate: float = 0.1) -> None:
        if data is None and verbose is True:
            fit(1, rate)

    graph = train.trace()
    assert kinds(graph, "fit")["rate"] == "flow_input"
    assert graph.shaped_by == {"data", "verbose"}


def test_identity_is_noticed_in_functions_that_the_body_names() -> None:
    @pipeline
    def train(data: Any = None) -> None:
        fit(choose(data))

    graph = train.trace()
    assert from_payload(binding_of(graph, "fit", "xs").value, None) == "default"


def choose(data: Any) -> Any:
    return "default" if data is None else data


def test_without_a_question_of_identity_none_and_bools_are_bound() -> None:
    @pipeline
    def train(data: Any = None, verbose: bool = True) -> None:
        fit(data, verbose)

    graph = train.trace()
    assert kinds(graph, "fit") == {"xs": "flow_input", "rate": "flow_input"}
    assert not graph.shaped_by


def test_a_parameter_that_the_body_changed_is_a_plain_value() -> None:
    @pipeline
    def train(rows: list[int]) -> None:
        rows.append(4)
        fit(rows)

    graph = train.trace([1])
    assert kinds(graph, "fit")["xs"] == "value"
    assert from_payload(binding_of(graph, "fit", "xs").value, None) == [1, 4]
    assert from_payload_of_input(graph, "rows") == [1]


def from_payload_of_input(graph: Graph, name: str) -> Any:
    from dalsegno.values import decode

    return decode(graph.inputs[name])


@pytest.mark.parametrize(
    "use",
    [
        bool,
        iter,
        len,
        str,
        float,
        hash,
        lambda output: output + 1,
        lambda output: 1 - output,
        lambda output: output[0],
        lambda output: output.shape,
        lambda output: output == 1,
        lambda output: output(),
        lambda output: f"{output}",
        lambda output: 1 in output,
        lambda output: fit.map(output),
    ],
)
def test_an_output_has_no_value_while_tracing(use: Callable[[Any], Any]) -> None:
    @pipeline
    def train() -> None:
        use(fit(1))

    with pytest.raises(UsageError, match="has no value while the pipeline is traced") as caught:
        train.trace()
    assert caught.value.reason == "OUTPUT_WITHOUT_VALUE"


def test_after_orders_steps_that_share_no_value() -> None:
    @pipeline
    def train() -> None:
        cleaned = clean()
        clean()
        fit(1, after=cleaned)  # type: ignore[call-arg]
        fit(2, after=["clean", clean])  # type: ignore[call-arg]

    graph = train.trace()
    assert [list(one.after) for one in graph.steps] == [[], [], [1], [1, 2]]


def test_map_submits_one_step_for_each_element() -> None:
    @pipeline
    def train() -> Any:
        return fit([future.result() for future in fit.map([1, 2])] + list(fit.map([3])))

    graph = train.trace()
    assert [one.invocation_id for one in graph.steps] == ["fit", "fit_2", "fit_3", "fit_4"]
    assert [item.output.number for item in binding_of(graph, "fit_4", "xs").list.items] == [1, 2, 3]


def test_what_only_flows_can_do_is_refused() -> None:
    def waiting() -> None:
        wait(name="approve")

    def starting() -> None:
        body.run()

    def done() -> None:
        fit.submit(1).done()

    for function in (waiting, starting, done):
        with pytest.raises(ContextError):
            pipeline(function).trace()


def test_an_explicit_id_that_is_taken_is_refused_and_a_numbered_one_moves_on() -> None:
    @pipeline
    def twice() -> None:
        fit(1, id="a")  # type: ignore[call-arg]
        fit(1, id="a")  # type: ignore[call-arg]

    @pipeline
    def moved() -> None:
        fit(1, id="fit_2")  # type: ignore[call-arg]
        fit(1)
        fit(1)

    with pytest.raises(UsageError, match="'a' is taken"):
        twice.trace()
    assert [one.invocation_id for one in moved.trace().steps] == ["fit_2", "fit", "fit_3"]


def test_wrong_arguments_name_the_pipeline_or_the_step() -> None:
    @pipeline
    def train(rate: float) -> None:
        fit(1, 2, 3, rate)  # type: ignore[call-arg]

    with pytest.raises(UsageError, match=r"train\(\): missing a required argument: 'rate'"):
        train.trace()  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"fit\(\): too many positional arguments"):
        train.trace(0.1)


def test_the_trace_ends_when_the_body_raises() -> None:
    @pipeline
    def failing() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing.trace()
    assert fit(5) == 5


def test_a_parameter_without_a_codec_is_named() -> None:
    @pipeline
    def train(source: object) -> None: ...

    with pytest.raises(UsageError, match=r"argument 'source' of pipeline 'train': value: no codec"):
        train.trace(object())
