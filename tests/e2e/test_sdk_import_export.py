"""Records through the SDK and the command line: imported, planned, replayed, and exported again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dalsegno.local.home import HOME_VARIABLE
from tests.postgres import reachable_folder

SCRIPT = Path(__file__).parent / "sdk_scripts" / "records.py"
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 100


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The environment of the script and the commands, which share an engine."""
    with reachable_folder() as folder:
        environment = {
            **os.environ,
            HOME_VARIABLE: str(folder / "home"),
            "DALSEGNO_PROJECT": "records",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        environment.pop("DALSEGNO_ADDRESS", None)
        yield environment
        stop = [sys.executable, "-c", "from dalsegno.local.engine import down; down()"]
        subprocess.run(stop, env=environment, check=True, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def said(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the script says."""
    script = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), str(tmp_path_factory.mktemp("exports"))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert script.returncode == 0, script.stderr
    told = [json.loads(line) for line in script.stdout.splitlines()]
    return {facts.pop("what"): facts for facts in told}


def test_a_record_is_imported_and_exported(said: dict[str, dict[str, Any]]) -> None:
    example = said["example"]
    assert (example["result"], example["status"], example["inputs"]) == (3.3, "completed", {"lr": 0.1})
    assert example["checkpoints"] == {"load": "completed", "fit": "completed"}
    exported = example["exported"]
    assert (exported["flow"], exported["kind"], exported["inputs"]) == ("training", "pipeline", {"lr": 0.1})
    load, fit = exported["steps"]
    assert load == {
        "invocation_id": "load",
        "name": "load",
        "status": "completed",
        "inputs": {},
        "outputs": {"output": [1, 2]},
    }
    assert fit["inputs"] == {
        "xs": {"step": "load", "output": "output"},
        "lr": {"flow_input": "lr"},
        "k": {"value": 3},
    }
    assert fit["outputs"] == {"output": 3.3}
    assert exported["returns"] == {"step": "fit", "output": "output"}


def test_an_import_is_planned_and_replayed_like_any_other(said: dict[str, dict[str, Any]]) -> None:
    assert said["plan"] == {"affected": ["fit"], "reused": ["load"]}
    assert said["replay"] == {
        "result": 3 * 10.0 + 3,
        "ran": ["fit"],
        "checkpoints": {"load": "reused", "fit": "completed"},
    }


def test_iterators_stream(said: dict[str, dict[str, Any]]) -> None:
    assert said["stream"] == {"count": 5_000, "last": 4_999}


def test_a_refused_record_names_the_place_and_leaves_no_trace(said: dict[str, dict[str, Any]]) -> None:
    told = said["refused"]["told"]
    assert [kind for kind, _ in told] == [
        "LookupError",
        "UsageError",
        "UsageError",
        "NotFoundError",
        "FileNotFoundError",
    ]
    assert "steps[0].inputs.xs: refers to step 'lod'" in told[1][1]
    assert "steps[1].inputs.xs: step 1 has no output 'x'" in told[2][1]
    assert told[3][1].startswith("inputs.lr:")
    assert said["refused"]["traces"] == 0


def test_a_pipeline_that_ran_is_exported_imported_and_replayed(said: dict[str, dict[str, Any]]) -> None:
    assert said["pipeline"] == {
        "same": True,
        "other_name": True,
        "checkpoints": dict.fromkeys(("load", "fit", "fit_2", "gather"), "completed"),
        "definitions": ["fit", "gather", "load", "training"],
    }
    assert said["pipeline replay"] == {"more": 3.0, "ran": ["fit", "gather"]}
    assert said["embedded"] == {"size": 20_000}


def test_a_flow_that_ran_is_exported_imported_and_replayed(said: dict[str, dict[str, Any]]) -> None:
    assert said["flow"] == {
        "refused": "StateError",
        "same": True,
        "wait": ["answered", "Which mood?", {"type": "string"}, "glad"],
        "lines": 4,
        "checkpoints": {"load": "completed", "fit": "completed"},
    }
    assert said["flow replay"] == {
        "result": "stoves sad 3.0",
        "ran": ["body", "body", "fit"],
        "checkpoints": {"load": "reused", "fit": "completed"},
    }


def command(environment: dict[str, str], *arguments: str, typed: str = "", code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dalsegno.cli", "executions", *arguments],
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_line_imports_and_exports(environment: dict[str, str], tmp_path: Path) -> None:
    record = {"flow": "elsewhere", "kind": "flow", "steps": [{"invocation_id": "a", "name": "a"}]}
    imported = json.loads(command(environment, "import", "-", "--output", "json", typed=json.dumps(record)))
    assert (imported["flow"], imported["status"], imported["step_count"]) == ("elsewhere", "completed", 1)
    exported = json.loads(command(environment, "export", imported["exec_id"]))
    assert [one["invocation_id"] for one in exported["steps"]] == ["a"]
    file = str(tmp_path / "record.jsonl")
    assert file in command(environment, "export", imported["exec_id"], "--file", file)
    assert "is imported" in command(environment, "import", file)
    assert "cannot read" in command(environment, "import", "nowhere.json", code=2)
    wrong = json.dumps({**record, "kind": "dag"})
    assert "'dag' is none of" in command(environment, "import", "-", typed=wrong, code=2)
