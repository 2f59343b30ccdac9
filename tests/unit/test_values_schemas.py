"""Schemas, output names and checks that come from annotations."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel

from dalsegno import schemas, values
from dalsegno.errors import Problem, UsageError

if TYPE_CHECKING:
    import somewhere  # type: ignore[import-not-found]


class Colour(enum.StrEnum):
    RED = "r"


@dataclass
class Point:
    x: float
    y: float = 0.0


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rate: float = Field(alias="learningRate", default=0.1)
    points: list[Point] = []


class Ids(RootModel[list[int]]):
    pass


class Opaque:
    pass


def simple(a: int, b: list[str], c: Config, /, *rest: int, d: Any = 1, e=2, **more: str) -> None: ...  # type: ignore[no-untyped-def]


def strange(a: somewhere.Type, b: Opaque, c: list[Opaque], d: Callable[[int], str], e: int) -> somewhere.Type: ...


def test_schemas_of_arguments() -> None:
    found = schemas.input_schemas(simple)
    assert list(found) == ["a", "b", "c", "d", "e"]
    assert found["a"] == {"type": "integer"}
    assert found["b"] == {"type": "array", "items": {"type": "string"}}
    assert found["c"] is not None
    assert set(found["c"]["properties"]) == {"rate", "points"}
    assert (found["d"], found["e"]) == ({}, None)


def test_what_has_no_schema_has_none() -> None:
    assert schemas.input_schemas(strange) == {
        "a": None,
        "b": None,
        "c": None,
        "d": None,
        "e": {"type": "integer"},
    }
    assert schemas.validate(5, schemas.input_annotations(strange)["a"]) == []


def test_local_types_are_found() -> None:
    @dataclass
    class Local:
        x: int

    def uses(a: Local) -> Local:
        return Local(a.x)

    schema = schemas.input_schemas(uses)["a"]
    assert schema is not None
    assert schema["required"] == ["x"]


def two() -> tuple[Annotated[int, "left"], Annotated[list[str], Field(min_length=1), "right"]]:
    raise NotImplementedError


def unseen() -> tuple[Annotated[somewhere.Type, "model"], Annotated[somewhere.Type[int] | None, "score"]]:
    raise NotImplementedError


def named() -> Annotated[int, "count"]:
    raise NotImplementedError


def described() -> Annotated[int, "how many there were"]:
    raise NotImplementedError


def pair() -> tuple[int, str]:
    raise NotImplementedError


def nothing() -> None:
    raise NotImplementedError


def bare():  # type: ignore[no-untyped-def]
    raise NotImplementedError


def partly() -> tuple[Annotated[int, "left"], int]:
    raise NotImplementedError


def twice() -> tuple[Annotated[int, "left"], Annotated[int, "left"]]:
    raise NotImplementedError


def odd() -> tuple[Annotated[int, "the left"], Annotated[int, "right"]]:
    raise NotImplementedError


async def later() -> tuple[Annotated[int, "left"]]:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (two, ("left", "right")),
        (unseen, ("model", "score")),
        (named, ("count",)),
        (described, ("output",)),
        (pair, ("output",)),
        (nothing, ("output",)),
        (bare, ("output",)),
        (strange, ("output",)),
        (later, ("left",)),
    ],
)
def test_output_names(function: Callable[..., Any], names: tuple[str, ...]) -> None:
    assert schemas.output_names(function) == names
    assert tuple(schemas.output_schemas(function)) == names


@pytest.mark.parametrize(
    ("function", "problem"), [(partly, "has no name"), (twice, "comes twice"), (odd, "not an identifier")]
)
def test_bad_output_names(function: Callable[..., Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        schemas.output_names(function)


def test_output_schemas() -> None:
    assert schemas.output_schemas(two) == {
        "left": {"type": "integer"},
        "right": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    }


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, int),
        (1, float),
        (None, int | None),
        ([1, 2], list[int]),
        (Config(), Config),
        (Point(1), Point),
        (Opaque(), Opaque),
        ({"a": Opaque()}, dict[str, Opaque]),
        ("anything", Any),
        ("anything", schemas.UNKNOWN),
        (1, Annotated[int, ["not", "hashable"]]),
    ],
)
def test_values_that_fit(value: object, annotation: Any) -> None:
    assert schemas.validate(value, annotation) == []


@pytest.mark.parametrize(
    ("value", "annotation", "field", "description"),
    [
        ("1", int, "value", "input should be a valid integer, got str '1'"),
        (True, int, "value", "input should be a valid integer, got bool True"),
        (
            {"rows": [1, "x"]},
            dict[str, list[int]],
            "value.rows[1]",
            "input should be a valid integer, got str 'x'",
        ),
        ({"a b": ""}, dict[str, int], 'value["a b"]', "input should be a valid integer, got str ''"),
        ([Opaque], list[Opaque], "value[0]", "input should be an instance of Opaque, got type "),
        ({"rates": 1}, Config, "value.rates", "extra inputs are not permitted, got int 1"),
        (
            [{"learningRate": 1}],
            list[Config],
            "value[0]",
            "input should be an instance of Config, got dict {",
        ),
        ({1: {}}, dict[int, Config], "value[1]", "input should be an instance of Config, got dict {"),
        ({"x": 1}, Point, "value", "input should be an instance of Point, got dict {"),
    ],
)
def test_values_that_do_not(value: object, annotation: Any, field: str, description: str) -> None:
    (problem,) = schemas.validate(value, annotation)
    assert problem.field == field
    assert problem.description.startswith(description)


def test_every_problem_is_told() -> None:
    assert [problem.field for problem in schemas.validate(["a", 1, "b"], list[int], "rows")] == [
        "rows[0]",
        "rows[2]",
    ]


@pytest.mark.parametrize(
    ("tree", "annotation", "expected"),
    [
        ({"x": 1}, Point, Point(1)),
        ({"rate": 2, "points": [{"x": 1}]}, Config, Config(learningRate=2, points=[Point(1)])),
        ({"learningRate": 2}, Config, Config(learningRate=2)),
        ("2024-01-01", date, date(2024, 1, 1)),
        ([1, 2], tuple[int, int], (1, 2)),
        ("r", Colour, Colour.RED),
        ({"$type": "tuple", "value": [1]}, tuple[int], (1,)),
        ([1, {"x": 1}], schemas.UNKNOWN, [1, {"x": 1}]),
    ],
)
def test_json_becomes_what_the_annotation_says(tree: Any, annotation: Any, expected: object) -> None:
    value = schemas.from_json(tree, annotation)
    assert (type(value), value) == (type(expected), expected)


@pytest.mark.parametrize(
    ("tree", "annotation"), [("5", int), ({"y": 1}, Point), ({"$type": "tuple", "value": ["x"]}, tuple[int])]
)
def test_json_that_does_not_fit(tree: Any, annotation: Any) -> None:
    with pytest.raises(UsageError, match="topic does not fit its type") as caught:
        schemas.from_json(tree, annotation, "topic")
    assert caught.value.problems


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Point(1, 2), Point),
        (Config(learningRate=2, points=[Point(1)]), Config),
        (Ids([1, 2]), Ids),
        ((1, "x"), tuple[int, str]),
        ({1, 2}, set[int]),
        ({1: "x"}, dict[int, str]),
        ({"$type": 1}, dict[str, int]),
        (Colour.RED, Colour),
        (datetime(2024, 1, 1, tzinfo=UTC), datetime),
        (UUID(int=5), UUID),
        (Decimal("1.5"), Decimal),
        (Path("a"), Path),
        (float("inf"), float),
        ("x" * 20_000, str),
        ([Point(1), {"deep": (Colour.RED,)}], list[Any]),
    ],
)
def test_the_json_view_of_a_value_fits_the_schema_of_its_type(value: object, annotation: Any) -> None:
    schema = schemas.json_schema(annotation)
    assert schema is not None
    view = values.json_view(values.encode(value))
    assert view is not values.NO_VIEW
    jsonschema.validate(view, schema)


def test_a_wrong_value_is_seen_in_its_view() -> None:
    schema = schemas.json_schema(list[tuple[int, str]])
    assert schema is not None
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values.json_view(values.encode([(1, 2)])), schema)


@given(st.binary(min_size=1, max_size=5000) | st.complex_numbers() | st.tuples(st.binary()))
def test_what_json_schema_cannot_describe_has_no_view(value: object) -> None:
    assert values.json_view(values.encode(value)) is values.NO_VIEW


def test_importing_does_not_load_pydantic() -> None:
    code = "import sys, dalsegno.schemas; print({'pydantic', 'asyncio', 'grpc'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"


def test_problem_is_what_the_error_shows() -> None:
    assert str(Problem("topic", "is bad")) == "topic: is bad"
