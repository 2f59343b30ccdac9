"""Executions as records: what an export and an import keep, and what of a record is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalsegno import Client, ExecutionState, StateError, UsageError, UserCodeError, flow, pipeline, step, wait

tries = itertools.count(1)
ran: list[str] = []


@step
def load(size: int) -> list[int]:
    ran.append("load")
    return list(range(size))


@step(retries=2, retry_delay=0.0)
def fragile(xs: list[int], rate: float = 0.5) -> float:
    ran.append("fragile")
    if next(tries) % 3:
        raise ValueError("not yet")
    return sum(xs) * rate


@step
def gather(parts: list[Any], pair: tuple[Any, ...], named: dict[str, Any], plain: int = 1) -> str:
    ran.append("gather")
    return f"{parts} {pair} {named} {plain}"


@step
def broken(value: float) -> None:
    raise RuntimeError(f"broken by {value}")


@step
def large(size: int) -> Any:
    return np.arange(size)


@flow
def article(size: int = 3, topic: str = "stoves") -> str:
    xs = load(size)
    mood = wait(name="mood", schema=str, question="Which mood?", metadata={"to": "ann"})
    score = fragile(xs)
    with suppress(RuntimeError):
        broken(score)
    return gather([score, [xs]], (xs, topic), {"mood": mood, "score": score})


@pipeline
def chain(size: int = 4, rate: float = 2.0) -> str:
    xs = load(size)
    return gather([fragile(xs, rate), 7], (xs, 1), {"size": size, "deep": [{"xs": xs}]})


@pipeline
def arrays(size: int = 20_000) -> Any:
    return large(size)


def answered(client: Client, handle: Any, value: str) -> str:
    while handle.status is not ExecutionState.WAITING:
        for _ in client.executions.list(flow="article", page_size=1):
            break
    client.executions.input(handle.exec_id, value=value)
    return str(handle.wait(60))


def same_again(client: Client, exec_id: str, folder: Path) -> dict[str, Any]:
    """Export, import and export again, in every form; return the record."""
    record = client.executions.export(exec_id)
    forms: list[Any] = [
        record,
        client.executions.export(exec_id, folder / "record.json"),
        client.executions.export(exec_id, folder / "record.jsonl"),
        iter([{key: one for key, one in record.items() if key not in ("steps", "returns")}, *record["steps"]])
        if "returns" not in record
        else record,
    ]
    for form in forms:
        imported = client.executions.import_(form)
        again = client.executions.export(imported)
        for given, found in zip(record["steps"], again["steps"], strict=True):
            assert found == given
        assert {**again, "name": record["name"]} == record
        assert (imported.status, imported.exec_id != exec_id) == (client.executions.get(exec_id).status, True)
    return record


@pytest.mark.semantics(
    "9",
    "A flow's record adds its durable call sequence and its waits; digests, times, types and failures are optional and "
    "survive a round trip",
    "export writes the same format:",
)
def test_a_flow_survives_whole(client: Client, tmp_path: Path) -> None:
    handle = article.run()
    answered(client, handle, "glad")
    record = same_again(client, handle.exec_id, tmp_path)
    assert [one["invocation_id"] for one in record["steps"]] == ["load", "mood", "fragile", "broken", "gather"]
    _, asked, fragile_step, broken_step, gathered = record["steps"]
    assert asked["wait"].keys() >= {
        "question",
        "schema",
        "metadata",
        "asked_at",
        "answered_at",
        "answered_by",
        "status",
    }
    assert fragile_step["attempt"] == 3
    assert [(one["attempt"], one["failure"]["message"]) for one in fragile_step["failed_attempts"]] == [
        (1, "not yet"),
        (2, "not yet"),
    ]
    assert "Traceback" in fragile_step["failed_attempts"][0]["failure"]["traceback"]
    assert broken_step["failure"]["exception_type"] == "builtins:RuntimeError"
    assert all(one["code_digest"] for one in record["steps"] if "wait" not in one)
    assert all(one["started_at"] and one["finished_at"] for one in (fragile_step, gathered))
    assert {one["name"] for one in record["definitions"]} == {"article", "load", "fragile", "broken", "gather"}
    imported = client.executions.import_(record)
    attempts = imported.checkpoints["fragile"].failed_attempts
    assert [(one.attempt, one.message) for one in attempts] == [(1, "not yet"), (2, "not yet")]
    ran.clear()
    replay = article.replay(imported.exec_id, from_="gather")
    assert answered(client, replay, "sad").endswith("{'mood': 'sad', 'score': 1.5} 1")
    assert ran == ["gather"]


@pytest.mark.semantics("9", "digests, times, types and failures are optional and survive a round trip")
def test_overrides_and_who_made_them_survive(client: Client, tmp_path: Path) -> None:
    run = chain()
    replay = client.executions.wait(
        client.executions.replay(
            run.exec_id,
            skip=["load"],
            overrides={"checkpoint.load": [10]},
            step_input_overrides={"gather": {"plain": 5}},
            rate=3.0,
        )
    )
    record = same_again(client, replay.exec_id, tmp_path)
    assert record["original_exec_id"] == run.exec_id
    assert record["requested_by"] == replay.requested_by
    assert (record["overridden_inputs"], record["inputs"]) == (["rate"], {"rate": 3.0, "size": 4})
    loaded, _, gathered = record["steps"]
    assert (loaded["output_overridden"], loaded["outputs"], loaded["returned"]) == (
        True,
        {"output": [10]},
        {"output": [0, 1, 2, 3]},
    )
    assert gathered["overridden_inputs"] == ["plain"]
    assert [one.get("original_call_id") for one in record["steps"]] == [run.checkpoints["load"].call_id, None, None]
    imported = client.executions.import_(record)
    assert (imported.original_exec_id, imported.overridden_inputs) == (run.exec_id, ("rate",))
    marks = [(one.invocation_id, one.output_overridden, one.overridden_inputs) for one in imported.checkpoints]
    assert marks == [("load", True, ()), ("fragile", False, ()), ("gather", False, ("plain",))]
    facts = [(one.status, one.original_call_id) for one in imported.checkpoints]
    assert facts == [(one.status, one.original_call_id) for one in replay.checkpoints]
    assert facts == [("reused", run.checkpoints["load"].call_id), ("completed", None), ("completed", None)]
    # A replay of what was imported starts from the overridden values, as one of the original does.
    again = client.executions.wait(client.executions.replay(imported.exec_id, from_="fragile"))
    assert again.result == replay.result == "[30.0, 7] ([10], 1) {'size': 4, 'deep': [{'xs': [10]}]} 5"


@pytest.mark.semantics("9", "digests, times, types and failures are optional and survive a round trip")
def test_failed_stopped_and_single_step_executions_survive(client: Client, tmp_path: Path) -> None:
    @pipeline
    def doomed(value: float = 1.0) -> None:
        broken(value)

    with pytest.raises(UserCodeError) as failed:
        doomed()
    record = same_again(client, str(failed.value.exec_id), tmp_path)
    assert (record["status"], record["failure"]["invocation_id"]) == ("failed", "broken")
    waiting = article.run()
    while waiting.status is not ExecutionState.WAITING:
        pass
    client.executions.cancel(waiting.exec_id)
    assert same_again(client, waiting.exec_id, tmp_path)["status"] == "cancelled"
    alone = load.replay(pipeline_run=chain(), input_overrides={"size": 2})
    record = same_again(client, alone.exec_id, tmp_path)
    assert (record["single_step"], record["steps"][0]["outputs"]) == (True, {"output": [0, 1]})
    assert client.executions.import_(record).single_step


def test_large_values_are_referred_to_or_embedded(client: Client, tmp_path: Path) -> None:
    run = arrays()
    same_again(client, run.exec_id, tmp_path)
    embedded = client.executions.export(run.exec_id, embed=True)
    assert len(json.dumps(embedded)) > 100_000
    assert client.executions.import_(embedded).result.shape == (20_000,)


def small(**header: Any) -> dict[str, Any]:
    return {"flow": "chain", "kind": "pipeline", "module": __name__, "inputs": {"size": 2, "rate": 2.0}, **header}


LOAD = {"invocation_id": "load", "name": "load", "inputs": {"size": {"flow_input": "size"}}, "outputs": {"output": [1]}}
ORIGINAL = "01a20106-648f-7849-abe8-defc36803353"
FRAGILE = {
    "invocation_id": "fragile",
    "name": "fragile",
    "inputs": {"xs": {"step": "load", "output": "output"}, "rate": {"flow_input": "rate"}},
    "outputs": {"output": 2.0},
}


@pytest.mark.semantics("9", "An input may also be a list, tuple or dict of such bindings, nested")
@pytest.mark.semantics("9", "(a path, a dict, or an iterator; over gRPC a client stream")
def test_nested_bindings_are_what_the_step_gets(client: Client) -> None:
    gathered = {
        "invocation_id": "gather",
        "name": "gather",
        "inputs": {
            "parts": [{"step": "fragile"}, [{"step": "load"}, {"value": None}]],
            "pair": {"tuple": [{"step": "load"}, {"flow_input": "size"}]},
            "named": {"deep": {"list": [{"dict": [["xs", {"step": "load"}]]}]}, "plain": {"value": {"a": 1}}},
        },
        "outputs": {"output": "as it was"},
    }
    record = small(steps=[LOAD, FRAGILE, gathered], returns={"step": "gather"})
    imported = client.executions.import_(record)
    assert imported.result == "as it was"
    ran.clear()
    replay = client.executions.wait(client.executions.replay(imported.exec_id, from_="gather"))
    assert replay.result == "[2.0, [[1], None]] ([1], 2) {'deep': [{'xs': [1]}], 'plain': {'a': 1}} 1"
    assert ran == ["gather"]
    assert [one.invocation_id for one in client.executions.plan(imported.exec_id, from_="load").affected] == [
        "load",
        "fragile",
        "gather",
    ]


@pytest.mark.semantics("9", "A step without a code digest counts as changed")
def test_a_step_without_a_digest_counts_as_changed(client: Client) -> None:
    known = {**LOAD, "code_digest": load.digest}
    imported = client.executions.import_(small(steps=[known, FRAGILE]))
    plan = client.executions.plan(imported.exec_id, rerun_changed_code=True)
    assert {one.invocation_id: [str(why) for why in one.reasons] for one in plan.roots} == {
        "fragile": ["its code has changed"]
    }
    assert [one.invocation_id for one in plan.reused] == ["load"]


@pytest.mark.semantics("9", "A missing output is an error only when something affected needs it")
def test_a_missing_output_matters_only_where_it_is_needed(client: Client) -> None:
    without = {**LOAD, "outputs": {}}
    other = {"invocation_id": "other", "name": "load", "inputs": {"size": {"value": 3}}, "outputs": {"output": [5]}}
    imported = client.executions.import_(small(steps=[without, FRAGILE, other]))
    assert [one.invocation_id for one in client.executions.plan(imported.exec_id, from_="other").affected] == ["other"]
    assert client.executions.wait(client.executions.replay(imported.exec_id, from_="other")).status == "completed"
    with pytest.raises(StateError, match="fragile takes the output of load, which is reused and has none"):
        client.executions.plan(imported.exec_id, from_="fragile")
    assert client.executions.plan(imported.exec_id, from_=["invocation:load", "fragile"]).affected


def endless(count: int, *, last: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield small()
    for number in range(count):
        yield {**LOAD, "invocation_id": f"load_{number}"}
    yield last


@pytest.mark.semantics(
    "9",
    "A step refers only to steps before it in the stream, so that cycles cannot be written; unknown references and "
    "duplicate IDs are UsageError with the place, and nothing is stored",
)
@pytest.mark.parametrize(
    ("record", "place"),
    [
        (small(steps=[FRAGILE, LOAD]), "steps[0].inputs.xs"),
        (small(steps=[{**FRAGILE, "inputs": {"xs": {"step": "fragile"}}}]), "steps[0].inputs.xs"),
        (small(steps=[LOAD, {**FRAGILE, "inputs": {"xs": [[{"step": "lod"}]]}}]), "steps[1].inputs.xs[0][0]"),
        (small(steps=[LOAD, {**FRAGILE, "inputs": {"xs": {"step": "load", "output": "ys"}}}]), "steps[1].inputs.xs"),
        (small(steps=[LOAD, {**FRAGILE, "inputs": {"xs": {"flow_input": "sise"}}}]), "steps[1].inputs.xs"),
        (small(steps=[LOAD, {**FRAGILE, "after": ["gather"]}]), "steps[1].after[0]"),
        (small(steps=[LOAD, LOAD]), "steps[1].invocation_id"),
        (small(steps=[LOAD], returns={"step": "fit"}), "returns"),
        (small(steps=[{**LOAD, "attempts": 3}]), "steps[0].attempts"),
        (small(steps=[{**LOAD, "failed_attempts": [{"attempt": 1}, {"attempt": 1}]}]), "steps[0].failed_attempts"),
        (small(steps=[{**LOAD, "output_overridden": True}]), "steps[0]"),
        (small(steps=[], original_exec_id="yesterday's"), "original_exec_id"),
        (small(steps=[{**LOAD, "original_call_id": ORIGINAL}]), "steps[0].original_call_id"),
        (small(steps=[{**LOAD, "original_call_id": 7}]), "steps[0].original_call_id"),
        (lambda: endless(6_000, last={**LOAD, "invocation_id": "load_7"}), "steps[6000].invocation_id"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(client: Client, record: Any, place: str) -> None:
    before = sum(1 for _ in client.executions.list())
    with pytest.raises(UsageError) as caught:
        client.executions.import_(record() if callable(record) else record)
    places = [one.field for one in caught.value.problems] or [str(caught.value)]
    assert any(place in one for one in places), str(caught.value)
    assert sum(1 for _ in client.executions.list()) == before
