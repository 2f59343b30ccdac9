"""A script that runs a pipeline, and replays it in every way that a pipeline can be replayed."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from dalsegno import Client, Execution, pipeline, step
from dalsegno.errors import DalsegnoError
from tests.e2e.sdk_scripts.saying import checkpoints, say

ran: list[str] = []


@step
def load(size: int) -> tuple[Annotated[Any, "xs"], Annotated[list[int], "ys"]]:
    ran.append("load")
    return np.arange(size), [1]


@step
def fit(xs: Any, rate: float) -> float:
    ran.append("fit")
    return float(sum(xs)) * rate


@step
def gather(parts: list[float]) -> float:
    ran.append("gather")
    return sum(parts)


@pipeline
def training(size: int = 20_000, rate: float = 0.5) -> Any:
    xs, ys = load(size)
    return gather([fit(xs, rate), fit(ys, rate)])


def told(run: Execution) -> dict[str, Any]:
    facts = {"result": run.result, "ran": sorted(ran), "checkpoints": checkpoints(run)}
    ran.clear()
    return facts


def refused(replay: Callable[..., object], **request: Any) -> dict[str, Any]:
    before = sum(1 for _ in client.executions.list())
    try:
        replay(**request)
    except DalsegnoError as error:
        return {
            "type": type(error).__name__,
            "text": str(error),
            "traces": sum(1 for _ in client.executions.list()) - before,
        }
    return {"type": None}


if __name__ == "__main__":
    warnings.simplefilter("error")
    client = Client()
    source = training()
    say("run", **told(source), size=source.inputs["size"])
    xs = source.checkpoints["load"].artifacts["xs"]
    say(
        "artifact",
        bytes=xs.size,
        shape=xs.load().shape,
        same=client.artifacts.get(xs.id).load().sum() == xs.load().sum(),
    )
    say("everything", **told(training.replay()))
    say("skip", **told(training.replay(pipeline_run=source.name, skip=["load", "fit"])))
    say("skip nothing", **told(training.replay(pipeline_run=source.exec_id, skip=[])))
    say("override", **told(training.replay(pipeline_run=source.exec_id[:18], input_overrides={"rate": 2.0})))
    say(
        "skip successful",
        **told(training.replay(pipeline_run=source, skip_successful_steps=True, input_overrides={"rate": 2.0})),
    )
    big = np.ones(50_000)
    say(
        "step input",
        **told(training.replay(pipeline_run=source, skip=["load"], step_input_overrides={"fit": {"xs": big}})),
    )
    replay = client.executions.replay(source.exec_id, from_="fit_2", rate=7.0)
    say("server", at_once=replay.status, **told(client.executions.wait(replay, 30)))
    replay = client.replay_pipeline_run(source.name, {"steps_to_skip": ["load"], "parameters": {"rate": 9.0}})
    say("configured", **told(client.executions.wait(replay, 30)))
    alone = fit.replay(pipeline_run=source, invocation_id="fit_2", input_overrides={"rate": 100.0})
    say("one step", output=alone.checkpoints["fit_2"].load(), linked=alone.original_exec_id == source.exec_id, ran=ran)
    ran.clear()
    again = gather.replay(step_run_id=source.checkpoints["gather"].call_id)
    say("one call", output=again.checkpoints["gather"].load(), single=again.single_step, ran=ran)
    ran.clear()
    say("latest", same=training.replay().original_exec_id not in (alone.exec_id, again.exec_id))
    say("ambiguous step", **refused(fit.replay, pipeline_run=source))
    say("other step", **refused(gather.replay, step_run_id=source.checkpoints["fit"].call_id))
    say("disagreeing", **refused(fit.replay, step_run_id=source.checkpoints["fit"].call_id, invocation_id="fit_2"))
    say("no such call", **refused(fit.replay, step_run_id=uuid.uuid4()))
    say("not upstream closed", **refused(training.replay, pipeline_run=source, skip=["gather"]))
    say("parameter", **refused(training.replay, pipeline_run=source, input_overrides={"rtae": 1.0}))
    say("configuration", **refused(training.replay, pipeline_run=source, input_overrides={"rate": "fast"}))
