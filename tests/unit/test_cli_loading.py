"""Finding the flow that a command names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dalsegno.cli.loading import load_module, load_runnable
from dalsegno.durable import refuse_at_import
from dalsegno.errors import UsageError
from dalsegno_executor.runner.loader import load_target

CODE = """
from dalsegno import flow, pipeline, step

@step
def work(): ...

@flow
def article(topic: str): ...

@pipeline
def train(): ...

LIMIT = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_flow_is_found_by_module_and_by_file(folder: Path) -> None:
    (folder / "cli_loading_a.py").write_text(CODE)
    assert load_runnable("cli_loading_a:article").name == "article"
    assert load_runnable("cli_loading_a.py:train").name == "train"


def test_a_module_with_one_flow_needs_no_name(folder: Path) -> None:
    (folder / "cli_loading_b.py").write_text("from dalsegno import flow\n@flow\ndef only(): ...\n")
    assert load_runnable("cli_loading_b").name == "only"


@pytest.mark.parametrize(
    ("target", "reason", "part"),
    [
        (
            "cli_loading_c",
            "NO_FLOW_NAMED",
            "has 2 flows and pipelines; say which: cli_loading_c:article, cli_loading_c",
        ),
        ("cli_loading_c:artcle", "FLOW_NOT_FOUND", "Did you mean 'article'?"),
        ("cli_loading_c:work", "FLOW_NOT_FOUND", "is a step"),
        ("cli_loading_c:LIMIT", "FLOW_NOT_FOUND", "neither a flow nor a pipeline"),
        ("cli_loading_nowhere:x", "MODULE_NOT_FOUND", "no module 'cli_loading_nowhere'"),
        ("nowhere.py:x", "MODULE_NOT_FOUND", "no file 'nowhere.py'"),
        (":x", "NO_MODULE", "names no module"),
    ],
)
def test_what_is_not_there_is_refused(folder: Path, target: str, reason: str, part: str) -> None:
    (folder / "cli_loading_c.py").write_text(CODE)
    with pytest.raises(UsageError) as refusal:
        load_runnable(target)
    assert refusal.value.reason == reason
    assert part in str(refusal.value)


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("import cli_loading_missing\n", "ModuleNotFoundError: No module named 'cli_loading_missing'"),
        ("x = 1 / 0\n", "ZeroDivisionError: division by zero\n  at "),
        ("def broken(:\n", "SyntaxError"),
        ("raise SystemExit(0)\n", "SystemExit: 0"),
    ],
)
def test_a_module_that_fails_to_import_says_why_and_where(folder: Path, code: str, part: str) -> None:
    (folder / "cli_loading_d.py").write_text(code)
    with pytest.raises(UsageError) as refusal:
        load_module("cli_loading_d")
    assert refusal.value.reason == "MODULE_FAILS_TO_IMPORT"
    assert part in str(refusal.value)


STARTS = {
    "flow": "article.run('x')",
    "pipeline": "train()",
    "replay": "article.replay('some-run')",
    "step": "work.replay(pipeline_run='some-run')",
}


@pytest.mark.parametrize("load", [load_module, load_target])
@pytest.mark.parametrize("kind", STARTS)
def test_a_module_that_starts_something_is_refused(folder: Path, kind: str, load: Callable[[str], object]) -> None:
    name = f"cli_loading_starts_{kind}_{load.__name__}"
    (folder / f"{name}.py").write_text(f"{CODE}\n{STARTS[kind]}\n")
    with pytest.raises(UsageError, match='put it under if __name__ == "__main__":') as caught:
        load(f"{name}.py")
    assert STARTS[kind] in str(caught.value), "the line is named"


def test_what_is_imported_may_start_things_later(folder: Path) -> None:
    (folder / "cli_loading_later.py").write_text(CODE)
    load_module("cli_loading_later")
    refuse_at_import("a flow cannot run")
