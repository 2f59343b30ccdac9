"""Flow inputs that have the names of a replay's own arguments."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno import Client, UsageError, flow, step


@step
def note(told: dict[str, object]) -> dict[str, object]:
    return told


@flow
def confusing(
    skip: list[str], overrides: str = "none", debug: int = 0, on_stale: str = "x", exec_id: str = "y", inputs: int = 1
) -> dict[str, object]:
    return note(
        {
            "skip": skip,
            "overrides": overrides,
            "debug": debug,
            "on_stale": on_stale,
            "exec_id": exec_id,
            "inputs": inputs,
        }
    )


@flow
def plain(name: str = "a", self: int = 1) -> str:
    return f"{note({'name': name, 'self': self})['name']}{self}"


@pytest.mark.semantics(
    "8", "Replay's own arguments win over flow inputs of the same name; inputs={…} always reaches the flow inputs"
)
def test_arguments_win_and_inputs_reach_the_flow(client: Client) -> None:
    first = confusing.run(["a"], on_stale="first")
    recorded = {"skip": ["a"], "overrides": "none", "debug": 0, "on_stale": "first", "exec_id": "y", "inputs": 1}
    assert first.wait(30) == recorded
    changed: dict[str, object] = {"skip": ["b"], "overrides": "all", "on_stale": "second", "exec_id": "z", "inputs": 2}

    # `skip`, `on_stale` and `inputs` are the replay's own; what the flow has under these names is as recorded.
    replay = confusing.replay(exec_id=first.exec_id, skip=["note"], on_stale="rerun", debug=True)
    assert (replay.wait(0.1), replay.execution.checkpoints["note"].status) == (recorded, "reused")
    assert replay.execution.debug

    replay = confusing.replay(exec_id=first.exec_id, inputs=changed)
    assert replay.wait(30) == recorded | changed
    server = client.executions.replay(first.exec_id, skip=[], inputs=changed)
    assert client.executions.wait(server).result == recorded | changed
    plan = client.executions.plan(first.exec_id, skip=["note"], inputs={"skip": []})
    assert [one.invocation_id for one in plan.reused] == ["note"]
    with pytest.raises(UsageError, match="exclude each other"):
        confusing.replay(exec_id=first.exec_id, skip=[], skip_successful_steps=True)


def test_what_is_no_argument_of_a_replay_is_a_flow_input(client: Client) -> None:
    first = plain.run()
    assert first.wait(30) == "a1"
    assert plain.replay(first.exec_id, name="b", inputs={"self": 2}).wait(30) == "b2"
    server = client.executions.replay(first.exec_id, name="c", inputs={"self": 3})
    assert client.executions.wait(server).result == "c3"
    with pytest.raises(UsageError, match="given twice"):
        plain.replay(first.exec_id, name="b", inputs={"name": "c"})


@pytest.mark.parametrize(
    ("keyword", "argument"), [("overides", "overrides"), ("checkpoint_overrides", "overrides"), ("from_step", "from_")]
)
def test_a_misspelt_argument_is_refused_and_its_name_is_said(client: Client, keyword: str, argument: str) -> None:
    first = plain.run()
    first.wait(30)
    given: dict[str, Any] = {keyword: {"checkpoint.note": {"name": "b", "self": 1}}}
    for ask in (client.executions.replay, client.executions.plan):
        with pytest.raises(UsageError, match=f"no input '{keyword}'") as refused:
            ask(first.exec_id, **given)
        assert refused.value.__notes__ == [f"{keyword} is taken as a flow input; the argument is called {argument}"]


def test_what_resembles_no_argument_gets_no_hint(client: Client) -> None:
    first = plain.run()
    first.wait(30)
    with pytest.raises(UsageError, match="no input 'title'") as refused:
        client.executions.replay(first.exec_id, title="b")
    assert not hasattr(refused.value, "__notes__")
