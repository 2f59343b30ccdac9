"""What a flow's body is given when it runs again, what executes then, and what bodies cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Client, Execution
from dalsegno.cli.session import Session
from dalsegno.client.handles import ExecutionHandle
from dalsegno.decorators import Flow, Pipeline
from dalsegno.errors import DivergenceError, DivergenceKind, FailureOrigin, UserCodeError
from dalsegno.states import ExecutionState
from tests.e2e import repeating_flows as code
from tests.e2e.test_lifecycle import await_state
from tests.e2e.test_worker import SECONDS, Place, Process
from tests.postgres import PostgresServer


class Desk:
    """Starts and replays flows on one worker, and sees what they have run."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client, self.folder = client, folder
        self._read = 0

    def run(self, flow: Flow[..., Any] | Pipeline[..., Any], *args: object) -> Execution:
        return self.ended(self.client.executions.start(flow, str(self.folder), *args))

    def replay(self, source: Execution, **request: Any) -> Execution:
        self.ran()
        return self.ended(self.client.executions.replay(source.exec_id, **request))

    def ended(self, execution: Execution) -> Execution:
        return self.client.executions.wait(execution, SECONDS)

    def waiting(self, flow: Flow[..., Any], *args: object) -> Execution:
        execution = self.client.executions.start(flow, str(self.folder), *args)
        with Session(self.client.reach.connection.address, "e2e") as session:
            await_state(session, execution.exec_id, ExecutionState.WAITING)
        return execution

    def answer(self, execution: Execution, value: object) -> Execution:
        self.client.executions.input(execution.exec_id, value=value)
        return self.ended(execution)

    def ran(self) -> list[str]:
        """What has been noted since this was asked last."""
        journal = self.folder / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        new, self._read = lines[self._read :], len(lines)
        return new

    def rating(self, length: int) -> None:
        (self.folder / "rating").write_text("x" * length)


@pytest.fixture(scope="module")
def client(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a planner with one worker."""
    name = postgres.create_database(migrated=True)
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, name)
        place = Place(postgres.dsn(name), tmp_path_factory.mktemp("flows"), stack)
        place.planner()
        where = ("--address", place.address, "--project", "e2e", "--processes", "1")
        worker = Process("dalsegno_executor", code.__name__, *where)
        stack.callback(worker.close)
        worker.line("connected")
        yield place.client


@pytest.fixture
def desk(client: Client, tmp_path: Path) -> Desk:
    return Desk(client, tmp_path)


def states(execution: Execution) -> dict[str, str]:
    return {one.invocation_id: one.status for one in execution.checkpoints}


@pytest.mark.semantics(
    "5",
    "The body runs again, with today's code, from the top.",
    "Reused calls return the recorded output (or its override) without executing.",
    "So a value that passes through plain Python in the body",
)
def test_the_body_runs_again_and_no_stale_value_passes_through_it(desk: Desk) -> None:
    source = desk.run(code.article, "kitchens")
    assert desk.ran() == ["body", "research", "draft", "publish"]
    last = desk.replay(source, from_="publish")
    assert (last.result, desk.ran()) == (source.result, ["body", "publish"])
    # No edge leads from the notes to the draft: the text went through upper().
    other = desk.replay(source, overrides={"checkpoint.research": "other notes"}, from_="publish")
    assert other.result == "published draft of OTHER NOTES"
    assert desk.ran() == ["body", "draft", "publish"]
    assert states(other) == {"research": "reused", "draft": "completed", "publish": "completed"}


@pytest.mark.semantics("5", "Otherwise recorded calls that were not made are not_reached, with a warning.")
def test_what_the_body_did_not_come_to_is_not_reached_and_warned_about(desk: Desk) -> None:
    desk.rating(5)
    source = desk.run(code.rated, "kitchens")
    assert source.warnings == ()
    desk.rating(1)
    other = desk.replay(source, from_="rate")
    assert (other.result, desk.ran()) == ("discarded", ["rate", "discard"])
    assert states(other) == {
        "research": "reused",
        "rate": "completed",
        "draft": "not_reached",
        "publish": "not_reached",
        "discard": "completed",
    }
    assert other.warnings == ("2 recorded calls were not made: draft, publish",)
    handle = ExecutionHandle[str](other, desk.client.reach)
    with pytest.warns(UserWarning, match="2 recorded calls were not made") as caught:
        handle.wait()
    assert caught[0].filename == __file__


@pytest.mark.semantics("5", "a body always receives the decoded copy of what was stored, fresh per call")
def test_a_body_receives_copies_in_the_first_run_as_in_every_later_one(desk: Desk) -> None:
    source = desk.run(code.growing)
    assert source.result == [[], ["a", "b"], ["a", "b", "c"]]
    for root in ("append_3", "append_2", "append"):
        assert desk.replay(source, from_=f"invocation:{root}").result == source.result


DIFFERENCES = [
    "draft is reused, and took research.output where it takes research_2.output now",
    "draft is reused, and came after nothing where it comes after discard now",
]
CAUGHT = ["tests.e2e.repeating_flows.Refused: ('no', 4)", "dalsegno.errors.UserCodeError: code 4"]


@pytest.mark.semantics("5", "the same reconstructed exception comes in the first run and in every recovery")
def test_a_failure_that_was_caught_is_the_same_again_and_its_step_does_not_run_again(desk: Desk) -> None:
    execution = desk.waiting(code.catching, True)
    assert desk.ran() == ["refuse", "refuse"]
    ended = desk.answer(execution, True)
    assert (ended.result, desk.ran()) == (CAUGHT, ["publish"])


@pytest.mark.semantics("5", "In a replay it is a root.")
def test_a_failed_step_is_a_root_of_a_replay(desk: Desk) -> None:
    source = desk.run(code.catching, False)
    assert source.result == CAUGHT
    plan = desk.client.executions.plan(source.exec_id, from_="publish")
    assert {one.invocation_id for one in plan.roots} == {"refuse", "refuse_2", "publish"}
    assert desk.replay(source, from_="publish").result == CAUGHT
    assert desk.ran() == ["refuse", "refuse", "publish"]


@pytest.mark.semantics("5", "A pipeline replays its recorded graph on the server with no body.")
def test_a_pipeline_replays_on_the_server_without_its_body(desk: Desk) -> None:
    source = desk.run(code.drawn, "kitchens")
    assert desk.ran() == ["body", "research", "draft", "publish"]
    last = desk.replay(source, from_="draft")
    assert (last.result, desk.ran()) == (source.result, ["draft", "publish"])


@pytest.mark.semantics(
    "5",
    "pipeline.replay() from code traces today's function",
    "all differences listed, before anything is created",
    "New and changed steps among the re-executed ones are fine.",
)
def test_a_pipeline_that_is_replayed_from_code_keeps_what_it_reuses(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DALSEGNO_ADDRESS", desk.client.reach.connection.address)
    monkeypatch.setenv("DALSEGNO_PROJECT", "e2e")
    source = desk.run(code.drawn, "kitchens")
    before = sum(1 for _ in desk.client.executions.list())
    with pytest.raises(DivergenceError) as caught:
        code.drawn_otherwise.replay(pipeline_run=source.name, skip=["research", "draft"])
    assert caught.value.kind is DivergenceKind.GRAPH_CHANGED
    assert [problem.description for problem in caught.value.problems] == DIFFERENCES
    assert sum(1 for _ in desk.client.executions.list()) == before
    desk.ran()
    other = code.drawn_with_more.replay(pipeline_run=source.name, skip=["research", "draft"])
    assert (other.result, desk.ran()) == ("discarded", ["publish", "discard"])


@pytest.mark.parametrize("flow", [code.careless, code.swallowing_all])
def test_a_body_that_swallows_exceptions_is_suspended_all_the_same(desk: Desk, flow: Flow[..., Any]) -> None:
    execution = desk.waiting(flow)
    assert "publish" not in desk.ran()
    assert [one.name for one in execution.refresh().waits] == ["go"]
    assert desk.answer(execution, "yes").result == "published yes"
    assert desk.ran() == ["publish"]


def test_a_flow_that_starts_no_step_completes_and_is_replayed(desk: Desk) -> None:
    source = desk.run(code.idle)
    assert (source.result, len(source.checkpoints)) == ("nothing to do", 0)
    assert desk.replay(source).result == "nothing to do"
    assert desk.ran() == ["body"]


def test_a_result_that_no_codec_takes_fails_the_flow_and_loses_none_of_its_steps(desk: Desk) -> None:
    source = desk.run(code.opaque_result)
    assert source.failure is not None
    assert source.failure.origin is FailureOrigin.USER_CODE
    for words in ("the result of flow 'opaque_result'", "Opaque", "register_codec"):
        assert words in source.failure.message
    assert source.checkpoints["publish"].load() == "published kept"
    with pytest.raises(UserCodeError, match="register_codec"):
        ExecutionHandle[str](source, desk.client.reach).wait()


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("wait", "wait() inside a step"),
        ("step", "step 'publish' is called inside a step"),
        ("submit", "inside a step"),
        ("as_completed", "as_completed() inside a step"),
    ],
)
def test_what_is_durable_is_refused_inside_a_step(desk: Desk, which: str, words: str) -> None:
    ended = desk.run(code.misplaced, which)
    assert ended.failure is not None
    assert (ended.failure.origin, ended.failure.exception_type) == (
        FailureOrigin.USER_CODE,
        "dalsegno.errors:ContextError",
    )
    assert words in ended.failure.message
    assert desk.ran() == ["publish"]
    assert [one.status for one in ended.checkpoints] == ["completed", "failed"]
