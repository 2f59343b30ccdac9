"""What cannot be done is a clear error, in Python and on the command line, says what to do, and leaves no trace."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dalsegno import ArtifactRef
from dalsegno.client import connection
from dalsegno.errors import (
    BackendError,
    DalsegnoError,
    FailureOrigin,
    NotFoundError,
    StateError,
    UsageError,
)
from tests.e2e.bad_input import flows as code
from tests.e2e.bad_input.serving import FLOWS, PROJECT, Printed, Served, command, fifos
from tests.postgres import EMBEDDED_MAJOR, PostgresServer, find_postgres, reachable_folder, running_postgres

SECONDS = 60.0
LIMIT = 100_000
ABOVE = LIMIT + 1
NOBODY = "01234567-89ab-7def-8123-456789abcdef"


@pytest.fixture(scope="module")
def served(postgres: PostgresServer) -> Iterator[Served]:
    """A planner that takes values up to a limit, and a worker."""
    name = postgres.create_database(migrated=True)
    with reachable_folder() as folder, ExitStack() as stack:
        stack.callback(postgres.drop_database, name)
        served = Served(postgres.dsn(name), folder, stack, payload_limit=str(LIMIT))
        served.planner().line("ready ")
        served.worker()
        yield served


@pytest.fixture(scope="module")
def source(served: Served) -> str:
    """The name of a completed execution of `article`: research, draft."""
    execution = served.client.executions.start(code.article, "kitchens")
    assert served.client.executions.wait(execution, SECONDS).result == "NOTES ON KITCHENS"
    return execution.name


@dataclass(frozen=True)
class Refused:
    """A replay that is refused: as it is asked for in Python and on the command line, and what is said."""

    asked: dict[str, Any]
    words: tuple[str, ...]
    reason: str
    error: type[DalsegnoError] = UsageError
    options: list[str] = field(default_factory=list)


def overriding(value: object, *words: str, reason: str, error: type[DalsegnoError] = UsageError) -> Refused:
    """The output of `research` is replaced by a value; references are written as in JSON."""
    overrides = {"checkpoint.research": value}
    options = ["--overrides", json.dumps(overrides)]
    return Refused({"overrides": overrides}, words, reason, error, options)


REFUSED = {
    "unknown selector": Refused(
        {"from_": "drft"}, ("from: ", "'drft'", "did you mean 'draft'?"), "NO_MATCH", StateError, ["--from", "drft"]
    ),
    "selector of another kind": Refused(
        {"from_": "name:draft_2"}, ("no step name", "there are: draft"), "NO_MATCH", StateError,
        ["--from", "name:draft_2"],
    ),
    "blank selector": Refused({"from_": " "}, ("from: ", "names nothing"), "BLANK_SELECTOR", options=["--from", " "]),
    "unknown invocation to skip": Refused(
        {"skip": ["reserch"]}, ("skip: ", "did you mean 'research'?"), "UNKNOWN_INVOCATION",
        options=["--skip", "reserch"],
    ),
    "key without checkpoint": Refused(
        {"overrides": {"research": "x"}}, ('overrides["research"]', "write 'checkpoint.research'"), "UNKNOWN_OVERRIDE",
        options=["--overrides", '{"research": "x"}'],
    ),
    "key without selector": Refused(
        {"overrides": {"checkpoint.": "x"}}, ("selector is missing",), "MISSING_SELECTOR",
        options=["--overrides", '{"checkpoint.": "x"}'],
    ),
    "key of a wait": Refused(
        {"overrides": {"wait.mood": "x"}}, ("cannot be overridden", "executions input"), "WAIT_OVERRIDE",
        options=["--overrides", '{"wait.mood": "x"}'],
    ),
    "key with an unknown selector": Refused(
        {"overrides": {"checkpoint.reserch": "x"}}, ("did you mean 'research'?",), "NO_MATCH", StateError,
        ["--overrides", '{"checkpoint.reserch": "x"}'],
    ),
    "unknown flow inputs": Refused(
        {"inputs": {"topc": 1, "depht": 2}},
        ('inputs["topc"]', "did you mean 'topic'?", 'inputs["depht"]', "did you mean 'depth'?"), "UNKNOWN_INPUT",
        options=["--args", '{"topc": 1, "depht": 2}'],
    ),
    "unknown step input": Refused(
        {"step_input_overrides": {"draft": {"nots": "x"}}}, ("did you mean 'notes'?",), "UNKNOWN_INPUT",
        options=["--input-overrides", '{"draft": {"nots": "x"}}'],
    ),
    "inputs of an unknown step": Refused(
        {"step_input_overrides": {"drft": {"notes": "x"}}}, ("did you mean 'draft'?",), "UNKNOWN_INVOCATION",
        options=["--input-overrides", '{"drft": {"notes": "x"}}'],
    ),
    "step input of the wrong type": Refused(
        {"step_input_overrides": {"draft": {"notes": 1}}}, ('["draft"]["notes"]', "'string'"), "WRONG_TYPE",
        options=["--input-overrides", '{"draft": {"notes": 1}}'],
    ),
    "flow input of the wrong type": Refused(
        {"inputs": {"depth": "deep"}}, ('inputs["depth"]', "'integer'"), "WRONG_TYPE",
        options=["--args", '{"depth": "deep"}'],
    ),
    "output of the wrong type": overriding(3, 'overrides["checkpoint.research"]', "'string'", reason="WRONG_TYPE"),
    "no UUID": overriding({"$artifact": "abc"}, "'abc'", "UUID", reason="INVALID_UUID"),
    "unknown artifact": overriding(
        {"$artifact": NOBODY}, 'overrides["checkpoint.research"]', NOBODY, reason="ARTIFACT_NOT_FOUND",
        error=NotFoundError,
    ),
    "too large": overriding(
        "x" * ABOVE, 'overrides["checkpoint.research"]', "100,001 bytes", "100,000", "DALSEGNO_PAYLOAD_LIMIT",
        reason="PAYLOAD_TOO_LARGE",
    ),
    "everything at once": Refused(
        {"from_": ["a", "b"], "overrides": {"x": 1, "checkpoint.y": 2}, "inputs": {"topc": 1}},
        ("'a'", "'b'", 'overrides["x"]', "'y'", "did you mean 'topic'?"), "UNKNOWN_OVERRIDE",
        options=["--from", "a", "--from", "b", "--overrides", '{"x": 1, "checkpoint.y": 2}', "--args", '{"topc": 1}'],
    ),
}  # fmt: skip


@pytest.fixture(params=list(REFUSED.values()), ids=list(REFUSED))
def refused(request: pytest.FixtureRequest) -> Refused:
    assert isinstance(request.param, Refused)
    return request.param


@pytest.mark.parametrize("verb", ["plan", "replay"])
def test_a_replay_that_cannot_be_made_is_refused(served: Served, source: str, refused: Refused, verb: str) -> None:
    before = served.execution_count()
    with pytest.raises(refused.error) as caught:
        getattr(served.client.executions, verb)(source, **refused.asked)
    assert type(caught.value) is refused.error
    assert caught.value.reason == refused.reason
    assert not [words for words in refused.words if words not in str(caught.value)], str(caught.value)
    assert served.execution_count() == before


def test_the_command_line_refuses_it_likewise(served: Served, source: str, refused: Refused) -> None:
    before = served.execution_count()
    said = served.command("executions", "replay", source, *refused.options)
    assert (said.code, said.stdout) == (2, "")
    assert said.stderr.startswith("error: ")
    assert not [words for words in refused.words if words not in said.stderr], said.stderr
    document = served.command("executions", "replay", source, *refused.options, "--output", "json")
    assert (document.code, document.stderr) == (2, "")
    assert (document.error["type"], document.error["reason"]) == (refused.error.__name__, refused.reason)
    told = " ".join(
        [document.error["message"], *(f"{one['field']}: {one['description']}" for one in problems(document))]
    )
    assert not [words for words in refused.words if words not in told], told
    assert served.execution_count() == before


def problems(document: Printed) -> list[dict[str, str]]:
    listed = document.error["problems"]
    assert isinstance(listed, list)
    return listed


@pytest.mark.parametrize("value", [ArtifactRef(NOBODY), UUID(NOBODY)])
def test_an_unknown_artifact_is_not_found_however_it_is_given(served: Served, source: str, value: object) -> None:
    with pytest.raises(NotFoundError, match=NOBODY):
        served.client.executions.replay(source, overrides={"checkpoint.research": value})
    with pytest.raises(NotFoundError, match=NOBODY):
        served.client.executions.replay(source, inputs={"topic": value})
    with pytest.raises(NotFoundError, match=NOBODY):
        served.client.artifacts.get(NOBODY)


def test_an_artifact_of_the_wrong_type_is_refused(served: Served, source: str) -> None:
    number = served.client.artifacts.upload(3)
    with pytest.raises(UsageError, match="'string'"):
        served.client.executions.replay(source, overrides={"checkpoint.research": number})


@pytest.mark.parametrize(
    ("reference", "error", "words"),
    [
        ("nobody", NotFoundError, "nobody"),
        (NOBODY, NotFoundError, NOBODY),
        ("", UsageError, "names no execution"),
    ],
)
def test_an_execution_that_is_not_there(served: Served, reference: str, error: type[DalsegnoError], words: str) -> None:
    with pytest.raises(error, match=words):
        served.client.executions.get(reference)
    with pytest.raises(error, match=words):
        served.client.executions.replay(reference, from_="draft")
    assert served.command("executions", "get", reference).code == 2
    document = served.command("executions", "replay", reference, "--from", "draft", "--output", "json")
    assert (document.code, document.error["type"]) == (2, error.__name__)


def test_what_an_execution_does_not_have(served: Served, source: str) -> None:
    execution = served.client.executions.get(source)
    with pytest.raises(NotFoundError, match="research, draft"):
        execution.checkpoints["drft"]
    with pytest.raises(NotFoundError, match="there are: output"):
        execution.checkpoints["draft"].artifacts["notes"]
    with pytest.raises(StateError, match="no wait is pending"):
        served.client.executions.input(source, value=1)
    with pytest.raises(StateError, match="completed already"):
        served.client.executions.cancel(source)


def test_arguments_that_do_not_fit_name_what_is_unknown(served: Served) -> None:
    before = served.execution_count()
    with pytest.raises(UsageError, match="no parameter 'topc', did you mean 'topic'"):
        served.client.executions.start(code.article, topc="x")
    said = served.command("run", f"{FLOWS}:article", "--args", '{"topc": "x"}')
    assert said.code == 2
    assert "did you mean 'topic'?" in said.stderr
    assert served.execution_count() == before


# Values that no codec takes, and values above the limit.

NO_CODEC = ("no codec for type", "Opaque", "register_codec")
TOO_LARGE = ("100,001 bytes", "100,000", "DALSEGNO_PAYLOAD_LIMIT")
KINDS = {"opaque": ("NO_CODEC", NO_CODEC), "large": ("PAYLOAD_TOO_LARGE", TOO_LARGE)}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Of which kind the value is."""
    return str(request.param)


def test_a_value_that_cannot_be_stored_starts_nothing(served: Served, kind: str) -> None:
    reason, words = KINDS[kind]
    before = served.execution_count()
    value = code.made(kind, ABOVE)
    start = served.client.executions.start
    refused: dict[str, Callable[[], object]] = {
        "argument 'value' of flow 'given'": partial(start, code.given, value),
        "argument 'value' of pipeline 'given_to_pipeline'": partial(start, code.given_to_pipeline, value),
        "argument 'value' of step 'take'": partial(start, code.drawn, kind, ABOVE),
        "value": partial(served.client.artifacts.upload, value),
    }
    for what, request in refused.items():
        with pytest.raises(UsageError) as caught:
            request()
        assert caught.value.reason == reason
        assert what in str(caught.value)
        assert not [word for word in words if word not in str(caught.value)], str(caught.value)
    assert served.execution_count() == before


def test_a_pipeline_that_returns_what_no_codec_takes(served: Served) -> None:
    with pytest.raises(UsageError, match="the result of pipeline 'drawn_result': value: no codec"):
        served.client.executions.start(code.drawn_result, "opaque")


@pytest.mark.parametrize(
    ("runnable", "invocation"),
    [
        (code.from_step, "make"),
        (code.from_submitted_step, "make"),
        (code.from_step_of_pipeline, "make"),
        (code.into_step, None),
        (code.as_result, None),
    ],
)
def test_a_value_that_cannot_be_stored_fails_its_step_and_says_so(
    served: Served, kind: str, runnable: Any, invocation: str | None
) -> None:
    started = served.client.executions.start(runnable, kind, ABOVE)
    ended = served.client.executions.wait(started, SECONDS)
    assert ended.failure is not None
    assert (ended.status, ended.failure.origin) == ("failed", FailureOrigin.USER_CODE)
    assert (ended.failure.exception_type, ended.failure.invocation_id) == ("dalsegno.errors:UsageError", invocation)
    assert not [word for word in KINDS[kind][1] if word not in ended.failure.message], ended.failure.message


def test_the_command_ends_with_1_where_a_value_cannot_be_stored(served: Served, kind: str) -> None:
    run = ("run", f"{FLOWS}:from_step", "--args", json.dumps({"kind": kind, "size": ABOVE}))
    said = served.command(*run)
    assert said.code == 1
    assert "failed in make (user code): UsageError" in said.stdout
    document = served.command(*run, "--output", "json")
    failure = json.loads(document.stdout)["failure"]
    assert (document.code, failure["origin"], failure["invocation_id"]) == (1, "user_code", "make")


# Databases, ports, modules.


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that tests may stop."""
    installation = find_postgres(EMBEDDED_MAJOR)
    assert installation is not None
    with running_postgres(installation, works_ahead=False, die_with_parent=False) as server:
        yield server


@pytest.fixture
def own_database(own_server: PostgresServer) -> Iterator[str]:
    """The connection string of a database of that server, which runs again afterwards."""
    yield own_server.dsn(own_server.create_database(migrated=True))
    own_server.server.start()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of this process give up soon."""
    monkeypatch.setattr(connection, "RETRY_FOR_S", 0.1)


def assert_unavailable(served: Served, reason: str, words: str) -> None:
    """Requests are answered with what is the matter: by the client, and by commands with exit code 3."""
    with pytest.raises(BackendError, match=words) as caught:
        served.execution_count()
    assert caught.value.reason == reason
    said = served.command("executions", "list")
    assert (said.code, said.stdout) == (3, "")
    assert words in said.stderr
    document = served.command("executions", "list", "--output", "json")
    assert (document.code, document.error["type"], document.error["reason"]) == (3, "BackendError", reason)


def test_a_planner_waits_for_its_database_and_says_so(
    own_server: PostgresServer, own_database: str, tmp_path: Path, impatient: None
) -> None:
    own_server.server.stop()
    with ExitStack() as stack:
        served = Served(own_database, tmp_path, stack)
        planner = served.planner()
        assert "start PostgreSQL, or set DALSEGNO_DATABASE_URL" in planner.line("waiting_for_database")
        assert_unavailable(served, "DATABASE_UNAVAILABLE", "waits for its database")
        own_server.server.start()
        planner.line("ready ")
        assert served.execution_count() == 0


def test_a_database_that_goes_away_loses_nothing(
    own_server: PostgresServer, own_database: str, tmp_path: Path, impatient: None
) -> None:
    started, go = fifos(tmp_path)
    with ExitStack() as stack:
        # The executor is given more time to come back than the database takes.
        served = Served(own_database, tmp_path, stack, lease_duration=str(SECONDS))
        planner = served.planner()
        planner.line("ready ")
        served.worker()
        execution = served.client.executions.start(code.meeting, str(tmp_path))
        started.read_text()
        own_server.server.stop()
        assert_unavailable(served, "DATABASE_UNAVAILABLE", "cannot be reached now")
        go.write_text("go")
        planner.line("database_unreachable")
        own_server.server.start()
        ended = served.client.executions.wait(execution, SECONDS)
        assert ended.result == 11
        assert {one.invocation_id: one.status for one in ended.checkpoints} == {
            "meet": "completed",
            "take": "completed",
        }
    assert (tmp_path / "attempts").read_text() == "x"


def ended(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command as a process; return its exit code and what it said on standard error."""
    process = subprocess.run(
        [sys.executable, "-m", "dalsegno.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert process.stdout == ""
    return process.returncode, process.stderr


def test_a_port_in_use_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ("--listen", address, "--database-url", "postgresql://nobody@127.0.0.1:1/none")
        code, said = ended("planner", *options)
    assert code == 3
    assert f"cannot serve on {address}" in said
    assert "in use" in said
    assert "set DALSEGNO_LISTEN to another address" in said


def test_wrong_settings_are_all_named() -> None:
    wrong = {"DALSEGNO_DATABASE_URL": "mysql://here", "DALSEGNO_PAYLOAD_LIMIT": "much"}
    code, said = ended("planner", **wrong)
    assert code == 2
    assert all(name in said for name in wrong)


BROKEN = {
    "import nothere": "No module named 'nothere'",
    "import sys; sys.exit(4)": "SystemExit: 4",
}


@pytest.mark.parametrize(("text", "words"), BROKEN.items())
def test_a_worker_whose_module_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "broken_flows.py").write_text(text)
    code, said = ended("worker", str(tmp_path / "broken_flows.py"), "--address", "127.0.0.1:1", "--project", PROJECT)
    assert code == 2
    assert "broken_flows.py" in said
    assert words in said


def test_commands_say_where_nobody_answers(impatient: None) -> None:
    said = command("executions", "list", "--address", "127.0.0.1:1")
    assert said.code == 3
    for words in ("no planner answers at 127.0.0.1:1", "dalsegno planner", "DALSEGNO_ADDRESS"):
        assert words in said.stderr
