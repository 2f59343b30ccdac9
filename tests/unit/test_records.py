"""Records: read into messages, written from messages, in every form that a file can have."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from dalsegno.errors import NotFoundError, UsageError
from dalsegno.payloads import inline_payload, referenced_payload
from dalsegno.records import files
from dalsegno.records.files import as_document, record_items, write_document, write_lines
from dalsegno.records.reading import RecordReader
from dalsegno.records.values import ValueReader
from dalsegno.records.writing import RecordWriter
from dalsegno.v1.execution_pb2 import INVOCATION_KIND_WAIT
from dalsegno.v1.execution_service_pb2 import ImportedSteps, ImportHeader
from dalsegno.v1.value_pb2 import Binding, Payload
from dalsegno.values import Encoded, decode, encode

ARTIFACT = UUID("01a20106-648f-7849-abe8-defc36803353")
DIGEST = "ab" * 32


@dataclass
class Shelf:
    """Values of a test, in memory."""

    inline_limit: int = 64
    stored: dict[str, Encoded] = field(default_factory=dict)

    def put(self, encoded: Encoded) -> None:
        self.stored[referenced_payload(encoded).object_key] = encoded

    def artifact(self, id: UUID) -> Payload:
        if id != ARTIFACT:
            raise NotFoundError(f"there is no artifact {id}", reason="ARTIFACT_NOT_FOUND")
        return inline_payload(encode("from the shelf"))

    def content(self, payload: Payload) -> bytes:
        return self.stored[payload.object_key].data


def read(
    record: dict[str, Any] | Iterable[Any], shelf: Shelf | None = None
) -> tuple[ImportHeader, ImportedSteps, Binding | None]:
    reader = RecordReader(ValueReader(shelf or Shelf()))
    items = record_items(record)
    header = reader.header(next(items), "p", "")
    steps, returns = b"", None
    for item in items:
        if isinstance(item, dict) and item.keys() == {"returns"}:
            returns = reader.returns(item["returns"])
        else:
            steps += reader.step(item)
    reader.check()
    return header, ImportedSteps.FromString(steps), returns


def again(record: dict[str, Any], shelf: Shelf | None = None, *, embed: bool = False) -> dict[str, Any]:
    """What is written of what was read."""
    shelf = shelf or Shelf()
    header, steps, returns = read(record, shelf)
    writer = RecordWriter(shelf.content if embed else None)
    items = [writer.header(header), *map(writer.step, steps.steps)]
    return as_document([*items, *([] if returns is None else [{"returns": writer.binding(returns)}])])


def step(name: str, output: Any = 1, **fields: Any) -> dict[str, Any]:
    return {
        "invocation_id": name,
        "name": name.partition("_")[0],
        "status": "completed",
        "inputs": {},
        "outputs": {"output": output},
        **fields,
    }


EXAMPLE: dict[str, Any] = {
    "flow": "rnaseq",
    "kind": "pipeline",
    "inputs": {"lr": 0.1},
    "steps": [
        step("load", [1, 2]),
        step(
            "fit",
            {"w": 1.5},
            after=[],
            inputs={
                "xs": {"step": "load", "output": "output"},
                "lr": {"flow_input": "lr"},
                "k": {"value": 3},
            },
        ),
    ],
}

EVERYTHING: dict[str, Any] = {
    "flow": "article",
    "kind": "flow",
    "name": "happy-tune-1234",
    "module": "kitchens",
    "status": "failed",
    "code_digest": DIGEST,
    "shaping_inputs": ["n"],
    "started_at": "2024-05-01T12:00:00+00:00",
    "finished_at": "2024-05-01T12:00:01.500000+00:00",
    "inputs": {"n": 3, "when": {"$type": "date", "value": "2024-05-01"}, "odd": {"$value": {"$artifact": "no UUID"}}},
    "failure": {
        "origin": "user_code",
        "message": "no luck",
        "exception_type": "builtins:KeyError",
        "traceback": "Traceback …",
        "invocation_id": "b_2",
        "attempt": 2,
        "reason": "STEP_TIMEOUT",
        "exception_args": {"$type": "tuple", "value": ["no luck"]},
    },
    "definitions": [
        {
            "kind": "step",
            "module": "kitchens",
            "name": "a",
            "digest": DIGEST,
            "input_schemas": {"n": {"type": "integer"}, "rest": None},
            "output_schemas": {"output": {"type": "integer"}},
            "required_inputs": ["n"],
            "outputs": ["output"],
        },
        {"kind": "flow", "module": "kitchens", "name": "article", "digest": DIGEST},
    ],
    "steps": [
        step(
            "a",
            code_digest=DIGEST,
            module="elsewhere",
            options={
                "retries": 2,
                "timeout": 1.5,
                "retry_delay": 0.25,
                "max_retry_delay": 9.0,
                "retry_jitter": 0.5,
                "retry_on": ["builtins:OSError"],
                "no_retry_on": ["builtins:TimeoutError"],
            },
        ),
        step(
            "approve",
            True,
            kind="wait",
            wait={
                "status": "answered",
                "question": "Go on?",
                "schema": {"type": "boolean"},
                "metadata": {"to": ["editors"]},
                "answered_by": "ann",
                "asked_at": "2024-05-01T12:00:00+00:00",
                "deadline": "2024-05-02T12:00:00+00:00",
                "answered_at": "2024-05-01T12:00:00.750000+00:00",
            },
        ),
        step(
            "b",
            None,
            outputs={"left": 1, "right": 2},
            options={"outputs": ["left", "right"]},
            after=["approve"],
            yielded=1,
            started_at="2024-05-01T12:00:00+00:00",
            finished_at="2024-05-01T12:00:01+00:00",
            inputs={
                "items": {"list": [{"step": "a", "output": "output"}, {"value": [1]}], "digest": DIGEST},
                "pair": {"tuple": [{"flow_input": "n"}, [{"value": 2}]]},
                "named": {"x": {"step": "a", "output": "output"}, "y": {"value": None}},
                "marked": {"dict": {"step": {"value": 1}, "x": {"flow_input": "n"}}},
                "keyed": {"dict": [[1, {"value": 1}], ["x", {"step": "a", "output": "output"}]]},
                "table": {"dict": {"x": {"value": 1}}, "digest": DIGEST, "canonical": False},
                "same": {
                    "step": "a",
                    "output": "output",
                    "alternatives": [{"step": "approve", "output": "output"}],
                    "digest": DIGEST,
                },
            },
        ),
        step("b_2", None, status="failed", outputs={}, failure={"message": "no luck"}),
        step("d", None, original_call_id=str(ARTIFACT)),
        step("c", None, status="not_reached", outputs={}, inputs={"x": {"step": "b", "output": "right"}}),
    ],
    "returns": {"list": [{"step": "b", "output": "left"}], "digest": DIGEST},
}


@pytest.mark.parametrize("record", [EXAMPLE, EVERYTHING], ids=["example", "everything"])
def test_what_is_written_is_what_was_read(record: dict[str, Any]) -> None:
    expected = copy.deepcopy(record)
    expected["steps"] = [{key: value for key, value in one.items() if value != []} for one in expected["steps"]]
    assert again(record) == expected
    assert again(again(EVERYTHING)) == again(EVERYTHING)


def test_a_step_refers_to_numbers_and_has_its_values_encoded() -> None:
    header, steps, _ = read(EXAMPLE)
    assert (header.definition.name, header.inputs["lr"].payload.inline) == ("rnaseq", b"0.1")
    fit = steps.steps[1].step
    assert fit.inputs.bindings["xs"].output.number == 1
    assert fit.inputs.bindings["k"].digest == encode(3).digest
    assert steps.steps[0].outputs.outputs[0].payload.digest == encode([1, 2]).digest


def test_short_forms_are_understood() -> None:
    inputs = {"x": {"step": "a"}, "xs": [{"step": "a"}], "pair": ({"step": "a"}, {"value": 1})}
    record = {
        "flow": "f",
        "kind": "flow",
        "steps": [
            {"invocation_id": "a", "name": "a"},
            {"invocation_id": "w", "name": "w", "kind": "wait", "failure": "nobody came", "status": "failed"},
            {"invocation_id": "b", "name": "b", "inputs": inputs, "started_at": "2024-05-01T12:00:00Z"},
        ],
    }
    _, steps, returns = read(record)
    assert returns is None
    bindings = steps.steps[2].step.inputs.bindings
    assert bindings["x"].output.output == "output"
    assert [bindings[name].WhichOneof("kind") for name in ("xs", "pair")] == ["list", "tuple"]
    assert (steps.steps[1].kind, steps.steps[1].failure.message) == (INVOCATION_KIND_WAIT, "nobody came")


def test_a_step_is_of_the_module_of_its_record_or_of_another() -> None:
    steps = [step("a"), step("b", module="other"), step("c", module=""), step("a_2")]
    _, read_steps, _ = read({**EXAMPLE, "module": "mine", "steps": steps})
    assert [one.step.definition.module for one in read_steps.steps] == ["mine", "other", "", "mine"]
    assert [one.step.definition.name for one in read_steps.steps] == ["a", "b", "c", "a"]


def test_values_that_are_no_json_survive() -> None:
    array = np.arange(3)
    record = again({**EXAMPLE, "inputs": {"xs": array, "raw": b"\0", "pair": (1, 2)}})
    assert record["inputs"]["pair"] == {"$type": "tuple", "value": [1, 2]}
    header, _, _ = read(record)
    kept = header.inputs["xs"].payload
    assert (kept.codec, kept.digest) == ("npy", encode(array).digest)
    assert again(record) == record


def test_large_values_are_stored_and_referred_to_or_embedded() -> None:
    shelf = Shelf()
    large = list(range(100))
    record = {**EXAMPLE, "steps": [step("load", large)]}
    referring = again(record, shelf)
    assert len(shelf.stored) == 1
    form = referring["steps"][0]["outputs"]["output"]["$payload"]
    assert (form["codec"], form["digest"]) == ("json", encode(large).digest.hex())
    assert again(referring, shelf) == referring
    embedding = again(record, shelf, embed=True)
    assert embedding["steps"][0]["outputs"]["output"] == large


def test_artifacts_are_looked_up() -> None:
    _, steps, _ = read({**EXAMPLE, "steps": [step("load", {"$artifact": str(ARTIFACT)})]})
    payload = steps.steps[0].outputs.outputs[0].payload
    assert decode(Encoded(payload.codec, payload.inline, payload.digest, True)) == "from the shelf"
    nobodys = str(UUID(int=1))
    with pytest.raises(NotFoundError, match=r"^steps\[0\]: there is no artifact"):
        read({**EXAMPLE, "steps": [step("load", {"$artifact": nobodys})]})


@pytest.mark.parametrize(
    ("change", "field", "text"),
    [
        ({"flow": None}, "flow", "missing"),
        ({"kind": "dag"}, "kind", "'dag' is none of flow, pipeline"),
        ({"flwo": "x"}, "flwo", "did you mean 'flow'?"),
        ({"status": "running"}, "status", "none of"),
        ({"inputs": [1]}, "inputs", "object"),
        ({"inputs": {"x": {"$artifact": "x"}}}, "inputs.x", "UUID"),
        ({"started_at": "yesterday"}, "started_at", "no time"),
        ({"definitions": [{"kind": "step", "name": 1}]}, "definitions[0]", "text"),
        ({"failure": {"origin": "fate"}}, "failure", "none of user_code"),
        ({"steps": [7]}, "steps[0]", "must be an object"),
        ({"steps": [step(" ")]}, "steps[0].invocation_id", "invocation ID"),
        ({"steps": [step("a"), step("a")]}, "steps[1].invocation_id", "of steps[0] already"),
        ({"steps": [step("a", input={})]}, "steps[0].input", "did you mean 'inputs'?"),
        ({"steps": [step("a", status="ready")]}, "steps[0].status", "none of completed"),
        ({"steps": [step("a", after=["b"])]}, "steps[0].after[0]", "only to those before it"),
        ({"steps": [step("a", after="b")]}, "steps[0]", "list"),
        ({"steps": [step("a", outputs=[1])]}, "steps[0].outputs", "object"),
        ({"steps": [step("a", options={"timeout": "1 s"})]}, "steps[0].options.timeout", "seconds"),
        ({"steps": [step("a", wait={"status": "pending"})]}, "steps[0].wait", "none of answered"),
        ({"steps": [step("a", inputs={"x": 3})]}, "steps[0].inputs.x", '{"value": …}'),
        ({"steps": [step("a", inputs={"x": {"step": "a"}})]}, "steps[0].inputs.x", "step 'a'"),
        ({"steps": [step("a", inputs={"x": {"step": "a", "outptu": "o"}})]}, "steps[0].inputs.x.outptu", "'output'"),
        ({"steps": [step("a", inputs={"x": [{"value": 1}, {"y": [3]}]})]}, "steps[0].inputs.x[1].y[0]", "3"),
        ({"steps": [step("a", inputs={"x": {"flow_input": "n", "digest": "x"}})]}, "steps[0].inputs.x.digest", "x"),
        ({"steps": [step("a", {"$payload": {"codec": "npy"}})]}, "steps[0].outputs.output", "base64"),
        ({"steps": [step("a\ud800")]}, "steps[0]", "no Unicode"),
        ({"steps": [step("a", module=1)]}, "steps[0].module", "text"),
        ({"returns": {"step": "nobody"}}, "returns", "'nobody'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(change: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(UsageError) as error:
        read({**EXAMPLE, **change})
    (problem,) = error.value.problems
    assert problem.field == field
    assert text in problem.description


def test_all_problems_come_in_one_error() -> None:
    with pytest.raises(UsageError) as error:
        read({**EXAMPLE, "steps": [step("a", inputs={"x": 1}), step("b", status="odd"), step("c", after=["d"])]})
    assert [one.field for one in error.value.problems] == ["steps[0].inputs.x", "steps[1].status", "steps[2].after[0]"]
    with pytest.raises(UsageError) as error:
        read({**EXAMPLE, "steps": [step(f"a_{index}", status="odd") for index in range(1_000)]})
    assert len(error.value.problems) == 25


DOCUMENTS = [EXAMPLE, EVERYTHING, {**EXAMPLE, "steps": []}, {"flow": "f", "kind": "flow", "steps": [], "n": 12345}]


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("name", ["record.json", "record.jsonl"])
@pytest.mark.parametrize("at_once", [True, False])
def test_files_are_read_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: dict[str, Any], name: str, *, at_once: bool
) -> None:
    if not at_once:
        monkeypatch.setattr(files, "WHOLE_DOCUMENT", 1)
        monkeypatch.setattr(files, "_CHUNK", 7)
    path = tmp_path / name
    with path.open("w") as file:
        (write_lines if name.endswith("l") else write_document)(file, record_items(document))
    assert as_document(record_items(path)) == document
    assert as_document(record_items(str(path))) == document


@pytest.mark.parametrize("text", [json.dumps(EVERYTHING), json.dumps(EVERYTHING, indent=1)])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_documents_written_by_others_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, chunk: int
) -> None:
    monkeypatch.setattr(files, "WHOLE_DOCUMENT", 1)
    monkeypatch.setattr(files, "_CHUNK", chunk)
    path = tmp_path / "record"
    path.write_text(text)
    assert as_document(record_items(path)) == EVERYTHING


def test_a_whole_document_may_have_its_keys_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(dict(reversed(EVERYTHING.items()))))
    assert as_document(record_items(path)) == EVERYTHING


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"flow": "f", "steps": [{"a": 1}, {"a": }]}', "Expecting value"),
        ('{"flow": "f", "steps": [{"a": 1} {"a": 1}]}', "expected ','"),
        ('{"flow": "f", "steps": [{"a": 1}], "kind": "flow"}', "'kind' comes after 'steps'"),
        ('{"flow": "f", "steps": [{"a": 1}', "expected ','"),
        ("[1]", "expected '{'"),
    ],
)
def test_a_stream_that_is_no_record_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setattr(files, "WHOLE_DOCUMENT", 1)
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=told):
        list(record_items(path))


def test_other_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "lines.jsonl").write_text('{"flow": "f"}\n\n{"name": \n')
    with pytest.raises(UsageError, match="a record is an object"):
        list(record_items(tmp_path / "list.json"))
    with pytest.raises(UsageError, match="line 3"):
        list(record_items(tmp_path / "lines.jsonl"))
    with pytest.raises(UsageError, match="a path, a dict, or an iterator"):
        record_items(7)  # type: ignore[arg-type]


def test_a_document_has_a_line_for_each_step() -> None:
    written = StringIO()
    write_document(written, record_items(EXAMPLE))
    assert len(written.getvalue().splitlines()) == 5
    assert json.loads(written.getvalue()) == EXAMPLE
