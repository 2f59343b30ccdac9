"""How codecs are chosen, refused, registered; what the bytes look like; sizes and corruption."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalsegno import values
from dalsegno.errors import BackendError, UsageError
from dalsegno.values import Codecs, Encoded


class Opaque:
    def __init__(self, name: str = "x") -> None:
        self.name = name


@dataclass
class Holder:
    inner: object


class OpaqueCodec:
    name = "opaque"
    canonical = True

    def can_encode(self, value: object) -> bool:
        return type(value) is Opaque

    def encode(self, value: Opaque) -> bytes:
        if not value.name:
            message = "it has no name"
            raise ValueError(message)
        return value.name.encode()

    def decode(self, data: bytes) -> Opaque:
        return Opaque(data.decode())


@pytest.mark.parametrize(
    ("value", "codec"),
    [
        (1, "json"),
        ("text", "json"),
        ("x" * 20_000, "text"),
        (b"x", "bytes"),
        ([b"x"], "json"),
        ((1,), "json"),
    ],
)
def test_codec_by_type(value: object, codec: str) -> None:
    assert values.encode(value).codec == codec


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ([1, 2.0, "ü", True], '[1,2.0,"ü",true]'),
        ({"b": 1, "a": [None]}, '{"b":1,"a":[null]}'),
        ((1,), '{"$type":"tuple","value":[1]}'),
        ({"$type": 1}, '{"$type":"dict","value":[["$type",1]]}'),
        ({1: 2}, '{"$type":"dict","value":[[1,2]]}'),
        ({"b", "a"}, '{"$type":"set","value":["a","b"]}'),
        (float("nan"), '{"$type":"float","value":"nan"}'),
        (datetime(2024, 1, 1, tzinfo=UTC), '{"$type":"datetime","value":"2024-01-01T00:00:00+00:00"}'),
        (b"abc", "abc"),
    ],
)
def test_the_bytes_are_these(value: object, text: str) -> None:
    assert values.encode(value).data.decode() == text


def test_the_digest_does_not_see_the_order_of_dicts_but_the_bytes_keep_it() -> None:
    one, two = values.encode({"a": 1, "b": (2,)}), values.encode({"b": (2,), "a": 1})
    assert one.digest == two.digest
    assert one.checksum != two.checksum
    assert list(values.decode(two)) == ["b", "a"]
    assert values.encode({1: "x", 2: "y"}).digest == values.encode({2: "y", 1: "x"}).digest
    assert values.encode([1, 2]).digest != values.encode([2, 1]).digest


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, True), (1, 1.0), (0.0, -0.0), ("1", 1), ([1], (1,)), ({"1": 2}, {1: 2}), (b"a", "a"), ({1}, [1])],
)
def test_different_values_have_different_digests(left: object, right: object) -> None:
    assert values.encode(left).digest != values.encode(right).digest


_PROGRAM = """
import json, sys
from dalsegno import values
names = [f"name-{i}" for i in range(50)]
value = [set(names), {n: i for n, i in zip(set(names), range(1))}, frozenset((n, 1) for n in names),
         {frozenset(names): {b"x" * 5000, b"y" * 6000}}]
del value[1]
print(values.encode(value).digest.hex())
"""


def test_sets_do_not_depend_on_the_hash_seed() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(filter(None, sys.path))},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in (0, 1, 2)
    }
    assert len(digests) == 1


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys; from dalsegno import values; values.decode(values.encode({'a': [1, (2,)]}));"
        "print({'grpc', 'pydantic', 'numpy', 'pandas', 'polars', 'pyarrow', 'asyncio'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Opaque(), "value"),
        ({"rows": [0, 1, 2, Opaque()]}, 'value["rows"][3]'),
        (({1: {"x": Opaque()}},), 'value[0][1]["x"]'),
        (Holder([Holder(Opaque())]), "value.inner[0].inner"),
    ],
)
def test_unknown_types_are_named_with_their_place(value: object, path: str) -> None:
    with pytest.raises(UsageError) as caught:
        values.encode(value)
    assert caught.value.fields == {"path": path}
    assert str(caught.value).startswith(f"{path}: no codec for type {__name__}.Opaque; ")
    assert "register_codec" in str(caught.value)
    assert caught.value.reason == "NO_CODEC"


def test_subclasses_of_plain_types_are_not_flattened() -> None:
    class Celsius(float):
        pass

    with pytest.raises(UsageError, match="Celsius"):
        values.encode({"t": Celsius(3)})


def test_cycles_and_depth_are_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    deep: object = None
    for _ in range(100_000):
        deep = (deep,)
    for value in (loop, deep, {"x": (loop,)}):
        with pytest.raises(UsageError, match="contains itself"):
            values.encode(value)


def test_classes_inside_functions_are_refused_when_written() -> None:
    @dataclass
    class Local:
        x: int = 1

    with pytest.raises(UsageError, match="cannot be imported by its name"):
        values.encode(Local())


def test_foreign_time_zones_are_refused() -> None:
    class Odd(tzinfo):
        def utcoffset(self, moment: datetime | None) -> None:
            return None

        dst = tzname = utcoffset

    with pytest.raises(UsageError, match="time zone"):
        values.encode([datetime(2024, 1, 1, tzinfo=Odd())])


def test_registered_codecs_work_anywhere_inside() -> None:
    codecs = Codecs()
    codecs.register(OpaqueCodec())
    codecs.register(OpaqueCodec())
    assert codecs.encode(Opaque("a")) == Encoded("opaque", b"a", codecs.encode(Opaque("a")).digest, True)
    encoded = codecs.encode({"x": [Holder(Opaque("deep"))], "big": b"0" * 10_000})
    assert (encoded.codec, encoded.canonical) == ("bundle", True)
    back = codecs.decode(encoded)
    assert back["x"][0].inner.name == "deep"
    assert back["big"] == b"0" * 10_000
    assert codecs.seal("bundle", encoded.data) == encoded
    other_order = codecs.encode({"big": b"0" * 10_000, "x": [Holder(Opaque("deep"))]})
    assert other_order.digest == encoded.digest
    with pytest.raises(UsageError, match=r'value\["x"\]: codec .opaque. refused it: it has no name'):
        codecs.encode({"x": Opaque("")})
    with pytest.raises(UsageError, match="not registered here"):
        values.decode(codecs.encode(Opaque()))


@pytest.mark.parametrize("name", ["json", "opaque"])
def test_codec_names_are_taken_once(name: str) -> None:
    class Other(OpaqueCodec):
        pass

    Other.name = name
    codecs = Codecs()
    codecs.register(OpaqueCodec())
    with pytest.raises(UsageError, match="exists already"):
        codecs.register(Other())


def test_pickle_only_where_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = Codecs(allow_pickle=True)
    encoded = allowed.encode({"x": Opaque("p"), "y": 1})
    assert not encoded.canonical
    assert allowed.decode(encoded)["x"].name == "p"
    with pytest.raises(UsageError, match="DALSEGNO_ALLOW_PICKLE") as caught:
        values.decode(encoded)
    assert caught.value.reason == "PICKLE_NOT_ALLOWED"
    monkeypatch.setenv("DALSEGNO_ALLOW_PICKLE", "1")
    assert values.decode(encoded)["x"].name == "p"
    with pytest.raises(UsageError, match="cannot be pickled"):
        values.encode([lambda: 1])


def test_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = values.encode(b"12345")
    values.check_size(encoded, 5)
    with pytest.raises(UsageError, match=r"input 'x' takes 5 bytes .* limit of 4; .*DALSEGNO_PAYLOAD_LIMIT"):
        values.check_size(encoded, 4, what="input 'x'")
    assert values.payload_limit() == 256 * 1024 * 1024
    monkeypatch.setenv("DALSEGNO_PAYLOAD_LIMIT", "3")
    with pytest.raises(UsageError, match="limit of 3"):
        values.check_size(encoded)
    monkeypatch.setenv("DALSEGNO_PAYLOAD_LIMIT", "lots")
    with pytest.raises(UsageError, match="not a number of bytes"):
        values.payload_limit()


@pytest.mark.parametrize("value", [{"b": 1, "a": 2}, b"data", [b"0" * 9000, 1], "x" * 20_000])
def test_changed_bytes_are_noticed(value: object) -> None:
    encoded = values.encode(value)
    values.verify(encoded)
    for data in (encoded.data[:-1], encoded.data.replace(b"1", b"2") + b" ", b""):
        with pytest.raises(BackendError, match="recorded digest"):
            values.verify(replace(encoded, data=data))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_bundle_is_a_usage_error(data: st.DataObject) -> None:
    whole = bytearray(values.encode([b"0" * 5000, {"x": b"1" * 5000}]).data)
    position = data.draw(st.integers(4, 150))
    whole[position] = data.draw(st.integers(0, 255))
    for read in (values.seal, values.loads):
        with suppress(UsageError):
            read("bundle", bytes(whole))


def test_depth_of_stored_json_is_limited() -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    for read in (values.seal, values.loads):
        with pytest.raises(UsageError, match="too deeply"):
            read("json", deep)
    with pytest.raises(BackendError):
        values.verify(Encoded("json", deep, b"", True))


@pytest.mark.parametrize("codec", ["json", "bundle", "npy", "arrow", "text", "gone"])
def test_garbage_is_a_usage_error(codec: str) -> None:
    with pytest.raises(UsageError):
        values.decode(Encoded(codec, b"\xff\xfe garbage", b"", True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "line 1, column 2"),
        ('{"a": 1, "a": 2}', "'a' comes twice"),
        ("NaN", "NaN is not JSON"),
        ("[" * 100_000, "not JSON"),
        (b"\xff", "not JSON"),
    ],
)
def test_bad_json_text(text: str | bytes, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        values.parse_json_text(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
@settings(max_examples=100, deadline=None)
def test_json_of_other_languages_is_the_same_value(value: Any) -> None:
    if type(value) is not str:
        assert values.encode(values.parse_json_text(json.dumps(value, indent=2))) == values.encode(value)


def test_a_number_too_large_for_a_float_is_infinite() -> None:
    assert values.encode(values.parse_json_text("[1e999, -1e999]")) == values.encode([math.inf, -math.inf])


_SCRIPT = """
import sys
from contextlib import suppress
from dataclasses import dataclass
from dalsegno import values
@dataclass
class Config:
    lr: float
class Outer:
    @dataclass
    class Inner:
        x: int
if __name__ == "__main__":
    if sys.argv[1:]:
        back = values.decode(values.Encoded("json", sys.argv[1].encode(), b"", True))
        assert type(back[0]) is Config and type(back[1]) is Outer.Inner
        assert "train_script" not in sys.modules
    print(values.encode([Config(0.5), Outer.Inner(1)]).data.decode())
"""


def test_classes_of_a_script_are_found_by_other_processes(tmp_path: Path) -> None:
    script = tmp_path / "train_script.py"
    script.write_text(_SCRIPT)

    def run(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    recorded = run(str(script))
    assert "train_script:Config" in recorded
    assert run("-m", "train_script") == recorded
    assert run(str(script), recorded) == recorded
    reader = "import sys; from dalsegno import values; print(values.loads('json', sys.argv[1].encode()))"
    assert run("-c", reader, recorded) == "[Config(lr=0.5), Outer.Inner(x=1)]"
