"""NumPy, pandas, polars and pyarrow values come back as what they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from dalsegno import values
from dalsegno.errors import UsageError

np: Any = pytest.importorskip("numpy")
pd: Any = pytest.importorskip("pandas")
pl: Any = pytest.importorskip("polars")
pa: Any = pytest.importorskip("pyarrow")


@dataclass
class Split:
    train: Any
    test: Any
    seed: int = 0


def again(value: object) -> Any:
    return values.decode(values.encode(value))


ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.array(3.5),
    np.array([], dtype="f4"),
    np.array([True, False]),
    np.array(["a", "bc"]),
    np.array(["2024-01-01", "NaT"], dtype="M8[ns]"),
    np.array([1 + 2j]),
    np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
def test_arrays(array: Any) -> None:
    encoded = values.encode(array)
    back = values.decode(encoded)
    assert (encoded.codec, encoded.canonical) == ("npy", True)
    assert (type(back), back.dtype, back.shape) == (np.ndarray, array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


def test_equal_arrays_have_equal_digests_whatever_their_layout() -> None:
    array = np.arange(12.0).reshape(3, 4)
    digest = values.encode(array).digest
    assert values.encode(np.asfortranarray(array)).digest == digest
    assert values.encode(np.arange(24.0).reshape(3, 8)[:, :4]).digest != digest
    assert values.encode(np.repeat(array, 2, axis=1)[:, ::2]).digest == digest


SCALARS = [
    np.float64(0.1),
    np.float32(0.1),
    np.float16("nan"),
    np.int8(-3),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.complex128(1 + 2j),
    np.str_("é"),
    np.bytes_(b"x"),
    np.datetime64("2024-01-01T00:00:00.5", "ns"),
    np.datetime64("NaT"),
    np.timedelta64(5, "D"),
]


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda scalar: type(scalar).__name__)
def test_numpy_scalars_keep_their_type(scalar: Any) -> None:
    assert values.encode(scalar).codec == "json"
    back = again({"x": scalar})["x"]
    assert (type(back), back.dtype) == (type(scalar), scalar.dtype)
    np.testing.assert_array_equal(back, scalar)


def _frame() -> Any:
    return pd.DataFrame(
        {
            "n": [1, 2, 3],
            "x": [0.5, None, 2.0],
            "s": ["a", None, "c"],
            "when": pd.to_datetime(["2024-01-01"] * 3),
        }
    )


FRAMES = {
    "plain": _frame(),
    "index": _frame().set_index("s"),
    "multi-index": _frame().set_index(["n", "when"]),
    "range": _frame().iloc[1:],
    "categories": _frame().astype({"s": "category"}),
    "numbered columns": pd.DataFrame(np.zeros((2, 2))),
    "empty": pd.DataFrame(),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_pandas_frames(frame: Any) -> None:
    encoded = values.encode(frame)
    assert (encoded.codec, encoded.canonical) == ("arrow", False)
    pd.testing.assert_frame_equal(values.decode(encoded), frame)


@pytest.mark.parametrize("name", [None, "price", 7])
def test_pandas_series(name: Any) -> None:
    series = pd.Series([1.5, 2.5], index=["a", "b"], name=name)
    pd.testing.assert_series_equal(again(series), series)


def test_pandas_results_can_be_written_to() -> None:
    frame = again(pd.DataFrame({"x": np.zeros(4)}))
    frame.iloc[0, 0] = 1.0
    frame["x"] += 1
    assert frame["x"].tolist() == [2.0, 1.0, 1.0, 1.0]


def test_polars() -> None:
    frame = pl.DataFrame({"a": [1, None], "b": ["x", "y"], "c": [[1, 2], []]}).with_columns(
        pl.col("b").cast(pl.Categorical).alias("d"), pl.col("b").cast(pl.Enum(["x", "y"])).alias("e")
    )
    back = again(frame)
    assert type(back) is pl.DataFrame
    assert back.schema == frame.schema
    assert back.equals(frame)
    series = again(pl.Series("s", [1, 2]))
    assert type(series) is pl.Series
    assert (series.name, series.to_list()) == ("s", [1, 2])


def test_pyarrow() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]}).replace_schema_metadata({"k": "v"})
    assert again(table).equals(table, check_metadata=True)
    batch = pa.record_batch({"a": [1, 2, 3]})
    assert type(again(batch)) is pa.RecordBatch
    assert again(batch).equals(batch)
    assert again(batch.slice(0, 0)).num_rows == 0


def test_structures_with_tables_inside() -> None:
    value: dict[str, Any] = {
        "split": Split(np.arange(3), (_frame(), [np.float32(2)])),
        "tables": [pl.DataFrame({"a": [1]}), pa.table({"b": [2]})],
        "note": {1: "x"},
    }
    encoded = values.encode(value)
    back = values.decode(encoded)
    assert (encoded.codec, encoded.canonical) == ("bundle", False)
    assert values.seal("bundle", encoded.data) == encoded
    assert back["split"].train.tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(back["split"].test[0], _frame())
    assert back["split"].test[1] == [np.float32(2)]
    assert back["tables"][0].equals(value["tables"][0])
    assert back["tables"][1].equals(value["tables"][1])
    assert back["note"] == {1: "x"}
    assert values.decode(encoded)["split"].train is not back["split"].train


def test_bundles_of_arrays_are_canonical() -> None:
    one = values.encode({"a": np.arange(3), "b": np.arange(4)})
    two = values.encode({"b": np.arange(4), "a": np.arange(3)})
    assert one.canonical
    assert one.digest == two.digest
    assert one.digest != values.encode({"a": np.arange(4), "b": np.arange(3)}).digest


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": np.array([object()])}, r'value\["a"\]: .*numpy\.ndarray'),
        ([pd.DataFrame({"x": [1, "a", b"c"]})], r"value\[0\]: .*pandas.DataFrame"),
        ([np.longdouble(1)], r"value\[0\]: .*no portable form"),
        ([pd.Index([1])], "pandas"),
    ],
)
def test_what_cannot_be_written_is_refused_with_its_place(value: object, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        values.encode(value)
