"""Tables as Arrow IPC streams: pandas, polars and pyarrow, read back by the library that they came from."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from dalsegno.values.refusal import Refusal

if TYPE_CHECKING:
    import pyarrow as pa

_KIND_KEY = b"dalsegno.kind"
_NAME_KEY = b"dalsegno.name"
_SERIES_COLUMN = "values"

_KINDS = {
    "pandas": ("DataFrame", "Series"),
    "polars": ("DataFrame", "Series"),
    "pyarrow": ("Table", "RecordBatch"),
}


class ArrowCodec:
    """Data frames, series, tables and record batches.

    Not canonical: what lies under nulls and how pandas describes its index are not determined by equality.
    """

    name = "arrow"
    canonical = False

    def can_encode(self, value: object) -> bool:
        return _kind_of(value) is not None

    def encode(self, value: Any) -> bytes:
        pa = _pyarrow()
        kind = _kind_of(value)
        assert kind is not None
        try:
            table = _to_table(value, kind)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise Refusal(
                f"this {kind} cannot be written as Arrow: {error}; give each column one type",
                reason="NO_CODEC",
            ) from error
        metadata = {**(table.schema.metadata or {}), _KIND_KEY: kind.encode()}
        if kind.endswith(".Series"):
            metadata[_NAME_KEY] = _series_name(value)
        table = table.replace_schema_metadata(metadata)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def decode(self, data: bytes) -> Any:
        table = _pyarrow().ipc.open_stream(data).read_all()
        metadata = dict(table.schema.metadata or {})
        kind = metadata.pop(_KIND_KEY, b"pyarrow.Table").decode()
        name = metadata.pop(_NAME_KEY, None)
        return _from_table(table.replace_schema_metadata(metadata or None), kind, name)


def _kind_of(value: object) -> str | None:
    root = type(value).__module__.partition(".")[0]
    module = sys.modules.get(root)
    for name in _KINDS.get(root, ()):
        if type(value) is getattr(module, name, None):
            return f"{root}.{name}"
    return None


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError as error:
        raise Refusal(
            "tables are stored as Arrow, which needs pyarrow; install dalsegno[arrow]",
            reason="MISSING_LIBRARY",
        ) from error
    return pa


def _to_table(value: Any, kind: str) -> pa.Table:
    pa = _pyarrow()
    match kind:
        case "pandas.DataFrame":
            return pa.Table.from_pandas(value)
        case "pandas.Series":
            return pa.Table.from_pandas(value.to_frame(_SERIES_COLUMN))
        case "polars.DataFrame":
            return value.to_arrow()
        case "polars.Series":
            return value.to_frame().to_arrow()
        case "pyarrow.RecordBatch":
            return pa.Table.from_batches([value])
        case _:
            return value


def _from_table(table: pa.Table, kind: str, name: bytes | None) -> Any:
    match kind:
        case "pandas.DataFrame":
            return table.to_pandas()
        case "pandas.Series":
            return table.to_pandas()[_SERIES_COLUMN].rename(json.loads(name or b"null"))
        case "polars.DataFrame" | "polars.Series":
            import polars as pl

            frame = pl.DataFrame(table)
            return frame if kind == "polars.DataFrame" else frame.to_series(0)
        case "pyarrow.RecordBatch":
            return _pyarrow().RecordBatch.from_struct_array(table.to_struct_array().combine_chunks())
        case "pyarrow.Table":
            return table
        case _:
            raise Refusal(f"{kind!r} is not a kind of table that this version knows", reason="UNKNOWN_TAG")


def _series_name(series: Any) -> bytes:
    if series.name is not None and type(series.name) not in (str, int):
        raise Refusal(f"a Series with the name {series.name!r} cannot be stored; name it with a string")
    return json.dumps(series.name).encode()


ARROW = ArrowCodec()
