"""NumPy: arrays as ``.npy`` files without pickle, scalars as tagged JSON that keeps their type."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from dalsegno.values.refusal import Refusal
from dalsegno.values.standard import Form, Reader, Writer, tagged


class NpyCodec:
    """``numpy.ndarray`` (``memmap`` is read back as one), always in C order so that equal arrays agree."""

    name = "npy"
    canonical = True

    def can_encode(self, value: object) -> bool:
        return type(value) in (np.ndarray, np.memmap) and not value.dtype.hasobject  # type: ignore[attr-defined]

    def encode(self, value: np.ndarray[Any, Any]) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(value, order="C"), allow_pickle=False)
        return buffer.getvalue()

    def decode(self, data: bytes) -> np.ndarray[Any, Any]:
        array: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return array


def is_scalar(value: object) -> bool:
    """Whether a value is a NumPy scalar that has a JSON form."""
    return isinstance(value, np.generic) and value.dtype.kind not in "OV"


def _write_scalar(value: Any, writer: Writer) -> Any:
    kind, name = value.dtype.kind, value.dtype.str.lstrip("<>|=")
    if kind in "mM":
        return tagged("numpy", int(value.view("i8")), dtype=name)
    if kind in "bif" and value.dtype.itemsize <= 8:
        return tagged("numpy", writer.node(value.item()), dtype=name)
    if kind == "u" or (kind == "c" and value.dtype.itemsize <= 16) or kind in "US":
        return tagged("numpy", writer.node(value.item()), dtype=name)
    raise Refusal(f"numpy.{value.dtype.name} scalars have no portable form; convert to float64 or complex128")


def _read_scalar(node: dict[str, Any], reader: Reader) -> Any:
    dtype = np.dtype(node["dtype"])
    value = reader.value(node["value"])
    if dtype.kind in "mM":
        return np.int64(value).view(dtype)
    return dtype.type(value)


SCALAR = Form("numpy", _write_scalar, _read_scalar)
NPY = NpyCodec()
