"""A script that imports records, exports runs, and replays what it imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dalsegno import Client, flow, pipeline, step, wait
from dalsegno.errors import DalsegnoError
from tests.e2e.sdk_scripts.saying import checkpoints, say

ran: list[str] = []


@step
def load(n: int = 2) -> list[int]:
    ran.append("load")
    return list(range(n))


@step
def fit(xs: list[int], lr: float, k: int) -> float:
    ran.append("fit")
    return sum(xs) * lr + k


@step
def gather(parts: list[float], named: dict[str, Any]) -> float:
    ran.append("gather")
    return sum(parts) + len(named)


@pipeline
def training(lr: float = 0.5) -> dict[str, float]:
    xs = load(20_000)
    return {"total": gather([fit(xs, lr, 1), fit(xs, lr, 2)], {"xs": xs})}


@flow
def article(topic: str) -> str:
    ran.append("body")
    xs = load(3)
    mood = wait(name="mood", schema=str, question="Which mood?")
    return f"{topic} {mood} {fit(xs, 1.0, 0)}"


def recorded(artifact: str) -> dict[str, Any]:
    """A record of a pipeline that this script has, with the output of a step as an artifact."""
    fit_inputs = {
        "xs": {"step": "load", "output": "output"},
        "lr": {"flow_input": "lr"},
        "k": {"value": 3},
    }
    return {
        "flow": "training",
        "kind": "pipeline",
        "module": Path(__file__).stem,
        "inputs": {"lr": 0.1},
        "steps": [
            {
                "invocation_id": "load",
                "name": "load",
                "status": "completed",
                "inputs": {},
                "outputs": {"output": [1, 2]},
            },
            {
                "invocation_id": "fit",
                "name": "fit",
                "status": "completed",
                "after": [],
                "inputs": fit_inputs,
                "outputs": {"output": {"$artifact": artifact}},
            },
        ],
        "returns": {"step": "fit"},
    }


def import_the_example(client: Client) -> None:
    artifact = client.artifacts.upload(3.3)
    imported = client.executions.import_(recorded(str(artifact.id)))
    say(
        "example",
        result=imported.result,
        status=imported.status,
        inputs=dict(imported.inputs),
        checkpoints=checkpoints(imported),
        exported=client.executions.export(imported),
    )
    plan = client.executions.plan(imported, from_="fit", inputs={"lr": 10.0})
    say("plan", affected=[one.invocation_id for one in plan.affected], reused=[one.name for one in plan.reused])
    replay = client.executions.wait(client.executions.replay(imported, from_="fit", inputs={"lr": 10.0}))
    say("replay", result=replay.result, ran=ran, checkpoints=checkpoints(replay))


def many(count: int, *, broken: bool) -> Iterator[dict[str, Any]]:
    yield {"flow": "many", "kind": "pipeline"}
    for number in range(count):
        inputs = {"xs": {"step": f"s_{number - 1}", "output": "output"}} if number else {}
        yield {"invocation_id": f"s_{number}", "name": "s", "inputs": inputs, "outputs": {"output": number}}
    if broken:
        raise LookupError("the other system is gone")


def import_streams(client: Client) -> None:
    imported = client.executions.import_(many(5_000, broken=False))
    last = imported.checkpoints["s_4999"]
    say("stream", count=imported.invocation_count, last=last.load())
    before = sum(1 for _ in client.executions.list())
    told = []
    example = recorded(str(client.artifacts.upload(1).id))
    wrong: list[Any] = [
        many(3_000, broken=True),
        {**example, "steps": [{**example["steps"][1], "inputs": {"xs": {"step": "lod"}}}]},
        {
            **example,
            "steps": [example["steps"][0], {**example["steps"][1], "inputs": {"xs": {"step": "load", "output": "x"}}}],
        },
        {**example, "inputs": {"lr": {"$artifact": "01a20106-648f-7849-abe8-defc36803353"}}},
        "nowhere.json",
    ]
    for record in wrong:
        try:
            client.executions.import_(record)
        except (DalsegnoError, LookupError, OSError) as error:
            told.append([type(error).__name__, str(error)])
    say("refused", told=told, traces=sum(1 for _ in client.executions.list()) - before)


def export_a_pipeline(client: Client, folder: Path) -> None:
    run = training()
    again = client.executions.import_(client.executions.export(run, folder / "training.json"))
    say(
        "pipeline",
        same=again.result == run.result,
        other_name=again.name != run.name,
        checkpoints=checkpoints(again),
        definitions=sorted(one["name"] for one in client.executions.export(again)["definitions"]),
    )
    ran.clear()
    replay = training.replay(pipeline_run=again, skip=["load", "fit"], step_input_overrides={"fit_2": {"k": 5}})
    say("pipeline replay", more=replay.result["total"] - run.result["total"], ran=ran)
    embedded = client.executions.export(run, embed=True)
    say("embedded", size=len(embedded["steps"][0]["outputs"]["output"]))


def export_a_flow(client: Client, folder: Path) -> None:
    handle = article.run("stoves")
    while handle.status != "waiting":
        with suppress(TimeoutError):
            handle.wait(0.05)
    refused = ""
    try:
        client.executions.export(handle)
    except DalsegnoError as error:
        refused = type(error).__name__
    client.executions.input(handle, value="glad")
    result = handle.wait(30)
    path = client.executions.export(handle, folder / "article.jsonl")
    again = client.executions.import_(path)
    asked = again.waits["mood"]
    say(
        "flow",
        refused=refused,
        same=again.result == result,
        wait=[asked.status, asked.question, asked.schema, asked.answer],
        lines=len(path.read_text().splitlines()),
        checkpoints=checkpoints(again),
    )
    ran.clear()
    replay = article.replay(again.exec_id, from_="fit")
    while replay.status != "waiting":
        with suppress(TimeoutError):
            replay.wait(0.05)
    client.executions.input(replay, value="sad")
    say("flow replay", result=replay.wait(30), ran=ran, checkpoints=checkpoints(replay.execution))


if __name__ == "__main__":
    for part in (import_the_example, import_streams):
        part(Client())
    for export in (export_a_pipeline, export_a_flow):
        export(Client(), Path(sys.argv[1]))
