"""Scripts as users write them, on the local engine: their own functions run in their own process."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from dalsegno.local.home import HOME_VARIABLE
from tests.postgres import reachable_folder

SCRIPTS = Path(__file__).parent / "sdk_scripts"
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 100

LEFT_BEHIND = (
    "has not ended, and the process that ran the code does: it goes on where a worker has it "
    "(dalsegno worker leaving); .wait() would have waited"
)

Facts = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The environment of scripts that share one engine, which none of them has started."""
    with reachable_folder() as folder:
        environment = {**os.environ, HOME_VARIABLE: str(folder / "home"), "DALSEGNO_PROJECT": "scripts"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment.pop("DALSEGNO_ADDRESS", None)

        def engine(call: str) -> None:
            command = [sys.executable, "-c", f"from dalsegno.local import engine; engine.{call}()"]
            subprocess.run(command, env=environment, check=True, timeout=TIMEOUT_S)

        engine("ensure_engine")
        yield environment
        engine("down")


@pytest.fixture(scope="module")
def run_script(environment: dict[str, str]) -> Callable[[str], Facts]:
    """Runs a script, once, and returns what it says."""

    @functools.cache
    def run(name: str) -> Facts:
        script = subprocess.run(
            [sys.executable, "-W", "error", str(SCRIPTS / name)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert script.returncode == 0, script.stderr
        told = [json.loads(line) for line in script.stdout.splitlines()]
        return {facts.pop("what"): facts for facts in told}

    return run


def test_a_flow_runs_and_is_replayed(run_script: Callable[[str], Facts]) -> None:
    said = run_script("flows.py")
    completed = dict.fromkeys(("research", "draft", "publish"), "completed")
    assert said["run"] == {
        "result": "NOTES ON KITCHENS (dry)",
        "ran": ["research", "draft", "publish"],
        "checkpoints": completed,
    }
    plan = said["plan"]
    assert plan["roots"] == {"draft": ["asked for (draft)"]}
    assert plan["affected"] == ["draft", "publish"]
    assert plan["reused"] == [["research", plan["call_id"]]]
    assert plan["counts"] == [1, 2, 1]
    assert "research" in " ".join(plan["warnings"])
    assert all(facts["original"] for facts in said.values() if "original" in facts)

    def outcome(what: str) -> tuple[str, list[str], str]:
        facts = said[what]
        return facts["result"], facts["ran"], facts["checkpoints"]["research"]

    assert outcome("from") == ("NOTES ON KITCHENS (dry)", ["draft", "publish"], "reused")
    assert outcome("from several") == ("NOTES ON KITCHENS (dry)", ["research", "draft", "publish"], "completed")
    assert outcome("override") == ("OTHER NOTES (dry)", ["draft", "publish"], "reused output_overridden")
    assert outcome("override alone") == ("MINE (warm)", ["publish"], "reused")
    assert outcome("artifact") == (
        "NOTES ON KITCHENS (dry)",
        ["draft", "publish"],
        "reused output_overridden stale_inputs",
    )
    assert outcome("flow input") == ("NOTES ON STOVES (dry)", ["research", "draft", "publish"], "completed")
    assert outcome("stale") == ("NOTES ON KITCHENS (dry)", ["publish"], "reused stale_inputs")
    assert outcome("rerun") == ("NOTES ON STOVES (dry)", ["research", "draft", "publish"], "completed")
    assert outcome("expected") == ("NOTES ON KITCHENS (dry)", ["draft", "publish"], "reused")
    assert said["from"]["warned"] == []
    assert said["stale"]["warned"] == ["research: reused, though it reads a flow input that is overridden"]


def test_a_refused_replay_says_why_and_leaves_no_trace(run_script: Callable[[str], Facts]) -> None:
    said = run_script("flows.py")
    kinds = {what: said[what]["type"] for what in ("unexpected", "selector", "keys", "type", "missing")}
    assert kinds == {
        "unexpected": "StateError",
        "selector": "StateError",
        "keys": "UsageError",
        "type": "UsageError",
        "missing": "NotFoundError",
    }
    assert all(said[what]["traces"] == 0 for what in kinds)
    assert "'draft'" in said["selector"]["text"]
    for part in ("topix", "checkpoint.draft", "'research'"):
        assert part in said["keys"]["text"]
    assert 'inputs["tone"]' in said["type"]["text"]


def test_a_failing_step_raises_in_the_body_and_then_in_the_script(run_script: Callable[[str], Facts]) -> None:
    said = run_script("flows.py")
    assert said["direct"] == {"result": "NOTES ON AGAIN (dry)", "caught": "caught caught"}
    failure = said["failed"]["failure"]
    assert (failure["origin"], failure["exception_type"]) == ("user_code", "builtins:KeyError")
    assert (failure["invocation_id"], failure["attempt"]) == ("broken", 1)
    assert "in broken" in failure["traceback"]
    assert "KeyError: 'loud'" in said["failed"]["text"]


def test_a_pipeline_runs_and_is_replayed(run_script: Callable[[str], Facts]) -> None:
    said = run_script("pipelines.py")
    total = sum(range(20_000))
    everything = ["fit", "fit", "gather", "load"]
    assert said["run"]["result"] == total * 0.5 + 0.5
    assert said["run"]["ran"] == said["everything"]["ran"] == said["skip nothing"]["ran"] == everything
    assert said["run"]["size"] == 20_000
    assert said["artifact"]["bytes"] > 64 * 1024
    assert said["artifact"]["shape"] == [20_000]
    assert said["artifact"]["same"]
    assert said["skip"]["ran"] == ["fit", "gather"]
    assert said["skip"]["checkpoints"] == {
        "load": "reused",
        "fit": "reused",
        "fit_2": "completed",
        "gather": "completed",
    }
    assert (said["override"]["result"], said["override"]["ran"]) == (total * 2.0 + 2.0, everything)
    assert said["skip successful"]["ran"] == ["fit", "fit", "gather"]
    assert said["skip successful"]["result"] == total * 2.0 + 2.0
    assert said["step input"]["result"] == 50_000 * 0.5 + 0.5
    assert said["server"]["result"] == total * 0.5 + 7.0
    assert said["server"]["at_once"] in ("pending", "running")
    assert said["server"]["checkpoints"]["fit"] == "reused stale_inputs"
    assert said["configured"]["result"] == total * 9.0 + 9.0
    assert "did you mean 'rate'?" in said["parameter"]["text"]
    for what in ("not upstream closed", "parameter", "configuration"):
        assert (said[what]["type"], said[what]["traces"]) == ("UsageError", 0)


def test_a_single_step_is_replayed_alone(run_script: Callable[[str], Facts]) -> None:
    said = run_script("pipelines.py")
    assert said["one step"] == {"output": 100.0, "linked": True, "ran": ["fit"]}
    assert said["one call"] == {"output": said["run"]["result"], "single": True, "ran": ["gather"]}
    assert said["latest"]["same"]
    kinds = {what: said[what]["type"] for what in ("ambiguous step", "other step", "disagreeing", "no such call")}
    assert kinds == {
        "ambiguous step": "StateError",
        "other step": "UsageError",
        "disagreeing": "UsageError",
        "no such call": "NotFoundError",
    }
    assert "fit_2 (" in said["ambiguous step"]["text"]


def test_bodies_await_submit_map_wait_and_survive_threads_and_forks(run_script: Callable[[str], Facts]) -> None:
    said = run_script("bodies.py")
    assert said["async"]["result"] == 0 + 2 + 4 + 5
    assert said["map"]["result"] == said["map"]["replayed"] == [10, 11]
    assert list(said["map"]["checkpoints"]) == ["increment", "increment_2", "increment_3", "increment_4", "special"]
    assert said["not an answer"]["still"] == "waiting"
    assert "integer" in said["not an answer"]["text"]
    assert said["answered"] == {"result": 5, "question": "How many?", "schema": {"type": "integer"}}
    assert said["cancelled"] == {"reason": "CANCELLED", "status": "cancelled"}
    assert "does not start others" in said["misused"]["text"]
    assert said["threads"]["results"] == [[3, 4]] * 3
    assert said["child"]["result"] == [3, 4]
    assert said["forked"] == {"code": 0, "parent": [1, 2]}


@pytest.fixture
def start_exits(environment: dict[str, str]) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts `exits.py`, and sees to it that it ends."""
    with ExitStack() as stack:

        def start(mode: str) -> subprocess.Popen[str]:
            script = subprocess.Popen(
                [sys.executable, "-W", "error", str(SCRIPTS / "exits.py"), mode],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(script)
            stack.callback(script.kill)
            return script

        yield start


def test_a_script_that_ends_at_once_does_not_hang_and_says_one_thing(
    start_exits: Callable[[str], subprocess.Popen[str]],
) -> None:
    script = start_exits("leave")
    _, errors = script.communicate(timeout=TIMEOUT_S)
    assert script.returncode == 0
    (said,) = errors.splitlines()
    assert "has not ended, and the process that ran the code does" in said


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_script_that_is_ended_leaves_nothing_behind(
    start_exits: Callable[[str], subprocess.Popen[str]], number: signal.Signals, code: int
) -> None:
    script = start_exits("block")
    assert script.stdout is not None
    assert "started" in script.stdout.readline()
    children = psutil.Process(script.pid).children()
    assert children
    script.send_signal(number)
    script.wait(TIMEOUT_S)
    assert script.returncode == code
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    again = start_exits("finish")
    said, errors = again.communicate(timeout=TIMEOUT_S)
    assert again.returncode == 0, errors
    assert json.loads(said.splitlines()[-1]) == {"what": "result", "result": "done"}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("silent", f"left {LEFT_BEHIND}\n"),
        ("seen", ""),
    ],
)
@pytest.mark.semantics("7", "Where no connected executor has an execution's code it stays pending and says so")
def test_a_script_says_what_it_leaves_behind(environment: dict[str, str], how: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "leaving.py"), how],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, said)
