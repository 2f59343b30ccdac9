"""A script that runs a flow, and replays it in every way that a flow can be replayed."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

from dalsegno import Client, flow, step
from dalsegno.errors import DalsegnoError, Failure, UserCodeError
from tests.e2e.sdk_scripts.saying import checkpoints, say

ran: list[str] = []


@step
def research(topic: str) -> str:
    ran.append("research")
    return f"notes on {topic}"


@step
def draft(notes: str, tone: str = "dry") -> dict[str, str]:
    ran.append("draft")
    return {"text": notes.upper(), "tone": tone}


@step
def publish(draft: dict[str, str]) -> str:
    ran.append("publish")
    return f"{draft['text']} ({draft['tone']})"


@flow
def article(topic: str, tone: str = "dry") -> str:
    notes = research(topic)
    return publish(draft(notes, tone))


@step
def broken(reason: str) -> None:
    raise KeyError(reason)


@flow
def failing(reason: str) -> str:
    try:
        broken(reason)
    except KeyError as error:
        if reason == "caught":
            return f"caught {error.args[0]}"
        raise
    return "not reached"


def replayed(**request: Any) -> dict[str, Any]:
    ran.clear()
    handle = article.replay(source.exec_id, **request)
    with warnings.catch_warnings(record=True, action="always") as warned:
        result = handle.wait(30)
    return {
        "warned": [str(one.message).partition(": ")[2] for one in warned],
        "result": result,
        "ran": list(ran),
        "checkpoints": checkpoints(handle.execution),
        "original": handle.original_exec_id == source.exec_id,
    }


def refused(**request: Any) -> dict[str, Any]:
    before = sum(1 for _ in client.executions.list())
    try:
        article.replay(source.exec_id, **request)
    except DalsegnoError as error:
        after = sum(1 for _ in client.executions.list())
        return {"type": type(error).__name__, "text": str(error), "traces": after - before}
    return {"type": None}


def vars_of(failure: Failure | None) -> dict[str, Any]:
    return {} if failure is None else dataclasses.asdict(failure)


if __name__ == "__main__":
    client = Client()
    source = article.run("kitchens")
    say("run", result=source.wait(30), ran=list(ran), checkpoints=checkpoints(source.execution))
    plan = client.executions.plan(source.exec_id, from_="draft", topic="stoves")
    say(
        "plan",
        roots={one.invocation_id: [str(reason) for reason in one.reasons] for one in plan.roots},
        affected=[one.invocation_id for one in plan.affected],
        reused=[(one.invocation_id, one.call_id) for one in plan.reused],
        counts=[len(plan.roots), len(plan.affected), len(plan.reused)],
        warnings=list(plan.warnings),
        call_id=source.execution.checkpoints["research"].call_id,
    )
    say("from", **replayed(from_="draft"))
    say("from several", **replayed(from_=["research", "publish"]))
    say("override", **replayed(from_="draft", overrides={"checkpoint.research": "other notes"}))
    say("override alone", **replayed(overrides={"checkpoint.draft": {"text": "MINE", "tone": "warm"}}))
    artifact = source.execution.checkpoints["research"].artifacts[0]
    say("artifact", **replayed(from_="publish", topic="x", overrides={"checkpoint.research": artifact.id}))
    say("flow input", **replayed(topic="stoves"))
    say("stale", **replayed(from_="publish", topic="stoves"))
    say("rerun", **replayed(from_="publish", topic="stoves", on_stale="rerun"))
    say("expected", **replayed(from_="draft", expect_plan=client.executions.plan(source, from_="draft").digest))
    say("unexpected", **refused(from_="draft", expect_plan="0" * 64))
    say("selector", **refused(from_="drft"))
    say("keys", **refused(from_="draft", overrides={"draft": 1, "checkpoint.resarch": 2}, topix="x"))
    say("type", **refused(from_="draft", tone=3))
    say(
        "missing",
        **refused(from_="draft", overrides={"checkpoint.research": source.execution.checkpoints[0]._output_id(9)}),
    )
    say("direct", result=article("again"), caught=failing("caught"))
    try:
        failing("loud")
    except UserCodeError as error:
        say("failed", text=str(error), failure=vars_of(error.failure))
