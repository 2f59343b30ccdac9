"""Every value comes back as itself: same type, same content, a fresh object."""

from __future__ import annotations

import enum
import math
from collections import Counter, OrderedDict, deque, namedtuple
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr, RootModel

from dalsegno import values
from dalsegno.errors import UsageError


class Colour(enum.Enum):
    RED = object()
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: int
    right: object = None


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float


@dataclass
class Run:
    seed: InitVar[int]
    rows: list[Point]
    tags: set[str] = field(default_factory=set)
    total: int = field(init=False)

    def __post_init__(self, seed: int) -> None:
        self.total = seed + len(self.rows)

    @cached_property
    def lock(self) -> object:
        return object()


class Settings(BaseModel):
    model_config = ConfigDict(extra="allow")

    lr: float = 0.1
    started: datetime | None = None
    points: list[Point] = []
    _seen: int = PrivateAttr(default=0)


class Names(RootModel[list[str]]):
    pass


Row = namedtuple("Row", ["a", "b"])

EXAMPLES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**53 + 1,
    10**4000,
    -(10**6000),
    0.1,
    -0.0,
    1e308,
    math.inf,
    -math.inf,
    "",
    "naïve – 🎼",
    "half \ud83d and the other half \ude00",
    {"half \ud83d": 1},
    "x" * 100_000,
    "\ud83d" * 100_000,
    b"",
    b"\x00\xff" * 10_000,
    bytearray(b"abc"),
    [],
    {},
    (),
    set(),
    frozenset(),
    [1, [2, [3, {"a": [None, True, 1.5, "x"]}]]],
    {"b": 1, "a": 2},
    {1: "int", "1": "str", 1.5: "float", None: 0, (1, 2): "tuple", b"k": "bytes"},
    {True: "yes", 0: "no"},
    {"$type": "tuple", "value": [1]},
    {"$type": {"$type": 3}},
    [{"deep": {"$type": "part", "value": 0}}],
    (1, [2, (3,)], {"k": (4,)}),
    {1, 2.5, "x", (1, 2), frozenset({3}), None},
    {b"\x01" * 5000, b"\x02" * 5000},
    frozenset({frozenset({1}), frozenset()}),
    deque([1, 2], maxlen=5),
    OrderedDict([("b", 1), ("a", (2,))]),
    Counter("mississippi"),
    range(0, 10, 3),
    complex(1, -2.5),
    Decimal("1.10"),
    Decimal("-Infinity"),
    Fraction(1, 3),
    UUID("12345678-1234-5678-1234-567812345678"),
    Path("a/b"),
    PurePosixPath("/x"),
    PureWindowsPath("C:/x"),
    date(2024, 2, 29),
    time(1, 2, 3, 4),
    time(1, 2, tzinfo=UTC),
    timedelta(days=-1, microseconds=1),
    datetime(2024, 1, 1, 12, 30, 0, 5),  # noqa: DTZ001 - a naive one has to survive too
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    Colour.RED,
    Colour.BLUE,
    Level.HIGH,
    Right.READ | Right.WRITE,
    Right(0),
    Pair(1, {"x": (2,)}),
    Row(1, b"2"),
    Point(1.0, math.inf),
    Run(7, [Point(1, 2)], {"a", "b"}),
    Settings(lr=0.5, points=[Point(0, 1)]),
    Settings(started=datetime(2024, 1, 1, tzinfo=UTC), note={"any": [1]}),  # type: ignore[call-arg]
    Names(["a", "b"]),
    {"mixed": [Point(1, 2), {"when": date(2024, 1, 1)}, Level.LOW]},
]


def again(value: object) -> Any:
    return values.decode(values.encode(value))


def same(left: Any, right: Any) -> bool:
    """Equality that keeps types, signs of zero, nan and the order of dicts apart."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, list | tuple | deque):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left), list(right)) and same(list(left.values()), list(right.values()))
    return bool(left == right)


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_example_comes_back(value: Any) -> None:
    encoded = values.encode(value)
    assert same(values.decode(encoded), value)
    assert encoded.canonical
    assert encoded == values.encode(again(value))
    assert values.seal(encoded.codec, encoded.data) == encoded
    values.verify(encoded)


_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(st.characters(exclude_categories=()))
    | st.binary(max_size=20)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.complex_numbers(allow_nan=False)
)
_keys = st.text() | st.integers() | st.booleans() | st.none() | st.tuples(st.integers()) | st.just("$type")
_trees = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(_keys, inner, max_size=4)
        | st.sets(_keys, max_size=4)
    ),
    max_leaves=12,
)


@given(_trees)
@settings(max_examples=300, deadline=None)
def test_any_tree_comes_back(value: Any) -> None:
    encoded = values.encode(value)
    assert same(values.decode(encoded), value)
    assert values.encode(values.decode(encoded)) == encoded
    assert values.seal(encoded.codec, encoded.data).digest == encoded.digest


def test_every_decode_is_fresh() -> None:
    value = {"rows": [[1]], "points": {1: [2]}}
    encoded = values.encode(value)
    first, second = values.decode(encoded), values.decode(encoded)
    first["rows"][0].append(2)
    first["points"][1].append(3)
    assert second == value


def test_objects_are_rebuilt_without_running_their_code() -> None:
    run = Run(5, [Point(1, 2)])
    run.total = 99
    assert run.lock
    assert again(run).total == 99
    assert "lock" not in vars(again(run))


def test_models_keep_what_was_set_and_what_is_private() -> None:
    model = Settings(lr=0.1)
    model._seen = 3
    back = again(model)
    assert back.model_fields_set == {"lr"}
    assert back._seen == 3
    assert back == model


def test_a_field_that_was_added_since_gets_its_default() -> None:
    name = f"{__name__}:Settings"
    text = f'{{"$type": "model", "class": "{name}", "value": {{"lr": 3}}}}'
    assert values.interpret(values.parse_json_text(text)) == Settings(lr=3)
    text = f'{{"$type": "namedtuple", "class": "{__name__}:Pair", "value": {{"left": 3}}}}'
    assert values.interpret(values.parse_json_text(text)) == Pair(3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"$type": "dataclass", "class": "MODULE:Point", "value": {"x": 1}}', "required field 'y'"),
        (
            '{"$type": "dataclass", "class": "MODULE:Point", "value": {"x": 1, "y": 2, "z": 3}}',
            "no field 'z'",
        ),
        ('{"$type": "dataclass", "class": "MODULE:Gone", "value": {}}', "no class 'Gone'"),
        ('{"$type": "dataclass", "class": "no_such_module:X", "value": {}}', "cannot import"),
        ('{"$type": "dataclass", "class": "subprocess:Popen", "value": {}}', "not a dataclass"),
        ('{"$type": "dataclass", "class": "os:system", "value": {}}', "no class 'system'"),
        ('{"$type": "model", "class": "MODULE:Point", "value": {}}', "not a Pydantic model"),
        ('{"$type": "enum", "class": "MODULE:Level", "value": "MIDDLE"}', "no member 'MIDDLE'"),
        ('{"$type": "enum", "class": "MODULE:Point", "value": "MIDDLE"}', "not an enum"),
        ('{"$type": "nonsense"}', "not a form"),
        ('{"$type": 5}', "not a form"),
        ('{"$type": "part", "value": 0}', "only a bundle has parts"),
        ('{"a": [{"$type": "date", "value": "yesterday"}]}', r'value\["a"\]\[0\]: not a valid date'),
        ('{"$type": "uuid"}', "not a valid uuid"),
    ],
)
def test_bad_tags_are_usage_errors(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        values.interpret(values.parse_json_text(text.replace("MODULE", __name__)))
