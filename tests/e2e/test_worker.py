"""Workers, planners and clients as real processes: what they do, and what they survive."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from dalsegno import Client
from dalsegno.client.handles import ExecutionHandle
from dalsegno.client.starts import ended_well, start_flow, start_pipeline
from dalsegno.decorators import Flow
from dalsegno.errors import ExecutionError, FailureOrigin
from tests.e2e import worker_flows as code
from tests.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
LEASE = 2.0


class Process:
    """A process of ours, whose lines can be waited for."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.lines: list[str] = []
        self._new: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env={**os.environ, **environment},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def line(self, words: str) -> str:
        """Wait for a line with these words."""
        while (line := self._new.get(timeout=SECONDS)) is not None:
            self.lines.append(line)
            if words in line:
                return line
        raise AssertionError(f"it ended without saying {words!r}:\n" + "".join(self.lines))

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait until it has ended, and return its exit code."""
        code = self._process.wait(SECONDS)
        self._reader.join()
        return code

    def close(self) -> None:
        """Kill it, if need be."""
        self._process.kill()
        self.ended()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._new.put(line)
        self._new.put(None)


class Place:
    """A database, and the processes that serve it."""

    def __init__(self, database: str, folder: Path, stack: ExitStack, lease: float = LEASE) -> None:
        self.folder = folder
        self.address = f"unix:{folder}/planner.sock"
        self.planners: list[Process] = []
        self._stack = stack
        self._settings = {
            "DALSEGNO_DATABASE_URL": database,
            "DALSEGNO_LISTEN": self.address,
            "DALSEGNO_OBJECT_STORE": (folder / "objects").as_uri(),
            "DALSEGNO_LEASE_DURATION": str(lease),
            "DALSEGNO_HEARTBEAT_INTERVAL": "0.4",
            "DALSEGNO_POLL_INTERVAL": "0.2",
            "DALSEGNO_CANCEL_GRACE": "0.5",
        }

    def for_test(self, folder: Path, stack: ExitStack) -> Place:
        """Return the same place with another folder, for processes that end with another stack."""
        place = Place("", folder, stack)
        place.address = self.address
        return place

    def planner(self) -> Process:
        """Start a planner, and wait until it serves."""
        planner = self._started(Process("dalsegno_planner", **self._settings))
        planner.line("ready ")
        self.planners.append(planner)
        return planner

    def worker(self, *options: str, connected: bool = True, module: str = code.__name__) -> Process:
        """Start a worker, and wait until it is connected."""
        target = ["dalsegno_executor", module, "--address", self.address, "--project", "e2e"]
        worker = self._started(Process(*target, *(options or ("--processes", "1"))))
        if connected:
            worker.line("connected")
        return worker

    def start(self, flow: Flow[..., Any], *args: object) -> ExecutionHandle[Any]:
        """Start a flow."""
        return start_flow(flow, args, {}, self.client)

    def run(self, flow: Flow[..., Any], *args: object) -> Any:
        """Run a flow and return its value."""
        return self.start(flow, *args).wait(SECONDS)

    @property
    def client(self) -> Client:
        """A client of its own."""
        return self._stack.enter_context(Client(self.address, "e2e"))

    def fifo(self, name: str) -> Path:
        """A FIFO in the folder that user code is given."""
        path = self.folder / name
        os.mkfifo(path)
        return path

    def _started(self, process: Process) -> Process:
        self._stack.callback(process.close)
        return process


@pytest.fixture
def place(database: str, tmp_path: Path) -> Iterator[Place]:
    """A database without any process yet."""
    with ExitStack() as stack:
        yield Place(database, tmp_path, stack)


@pytest.fixture(scope="module")
def engine(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A database with a planner, which most tests share."""
    name = postgres.create_database(migrated=True)
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, name)
        shared = Place(postgres.dsn(name), tmp_path_factory.mktemp("engine"), stack)
        shared.planner()
        yield shared


@pytest.fixture
def served(engine: Place, tmp_path: Path) -> Iterator[Place]:
    """The shared planner, and a folder and workers of the test's own."""
    with ExitStack() as stack:
        yield engine.for_test(tmp_path, stack)


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_flows_and_pipelines_run_on_a_worker(served: Place, isolation: str) -> None:
    served.worker("--isolation", isolation, "--processes", "2", "--slots", "2")
    assert served.run(code.chain, 20) == 190
    assert served.run(code.fan, 5) == 25
    reach = served.client.reach
    (served.folder / "crashed").touch()
    run = ended_well(reach, start_pipeline(code.fixed, (str(served.folder),), {}, reach))
    assert [one.status for one in run.checkpoints] == ["completed"] * 4


def test_many_short_steps_all_complete(served: Place) -> None:
    served.worker("--processes", "2")
    reach = served.client.reach
    run = ended_well(reach, start_pipeline(code.wide, (400,), {}, reach))
    values = [one.artifacts["output"].load() for one in run.checkpoints]
    assert values == list(range(1, 401))


def test_steps_run_in_the_processes_that_are_there(served: Place) -> None:
    worker = served.worker("--processes", "2")
    reach = served.client.reach
    run = ended_well(reach, start_pipeline(code.whereabouts, (100,), {}, reach))
    runners = {child.pid for child in psutil.Process(worker.pid).children()}
    assert {one.artifacts["output"].load() for one in run.checkpoints} <= runners


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what a process has loaded is not to be seen")
def test_planners_and_executors_have_the_fast_event_loop(engine: Place, served: Place) -> None:
    for process in (*engine.planners, served.worker()):
        loaded = {Path(mapped.path).parent.name for mapped in psutil.Process(process.pid).memory_maps()}
        assert "uvloop" in loaded


def test_hundreds_of_bodies_run_at_a_time(served: Place) -> None:
    served.worker("--processes", "1", "--bodies", str(code.CROWD))
    handles = [served.start(code.crowd) for _ in range(code.CROWD)]
    assert [handle.wait(SECONDS) for handle in handles] == [2] * code.CROWD


def test_code_that_cannot_be_imported_ends_the_worker_with_its_traceback(tmp_path: Path) -> None:
    target = tmp_path / "broken_flows.py"
    target.write_text("import dalsegno\n\nvalue = dalsegno.nonsense\n")
    worker = Process("dalsegno_executor", str(target), "--address", "127.0.0.1:1")
    assert worker.ended() == 2
    worker.line("broken_flows.py")
    worker.line("has no attribute 'nonsense'")
    worker.close()


def test_a_file_without_flows_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "empty_flows.py"
    target.write_text("")
    worker = Process("dalsegno_executor", str(target), "--address", "127.0.0.1:1")
    assert worker.ended() == 2
    worker.line("defines no flow")
    worker.close()


def test_a_worker_waits_for_its_planner(place: Place) -> None:
    worker = place.worker(connected=False)
    worker.line("cannot reach the planner")
    place.planner()
    worker.line("connected")
    assert place.run(code.chain, 3) == 3


@pytest.mark.parametrize("flow", [code.meeting, code.meeting_elsewhere])
def test_a_worker_that_is_killed_in_a_step_loses_nothing(served: Place, flow: Flow[..., Any]) -> None:
    started, go = served.fifo("started"), served.fifo("go")
    first = served.worker()
    handle = served.start(flow, str(served.folder))
    runner, parent = map(int, started.read_text().split())
    assert parent == first.pid
    first.kill()
    first.ended()
    psutil.wait_procs([psutil.Process(runner)] if psutil.pid_exists(runner) else [], timeout=SECONDS)
    second = served.worker()
    again, parent = map(int, started.read_text().split())
    assert parent == second.pid
    go.write_text("go")
    value = handle.wait(SECONDS)
    assert value == ([2, again, 3] if flow is code.meeting else again)
    assert (served.folder / "attempts").read_text() == "xx"


@pytest.fixture
def patient(database: str, tmp_path: Path) -> Iterator[Place]:
    """A database with a planner that gives executors more time to come back than starting it takes."""
    with ExitStack() as stack:
        place = Place(database, tmp_path, stack, lease=SECONDS)
        place.planner()
        yield place


def test_whichever_worker_is_killed_nothing_is_lost_or_doubled(served: Place) -> None:
    length, flows, kills = 12, 4, 2
    fifo = served.fifo("ticks")
    keep_open = os.open(fifo, os.O_RDWR)
    workers = [served.worker(), served.worker()]
    handles = [served.start(code.ticking, str(fifo), length) for _ in range(flows)]
    values: list[int] = []

    def collect() -> None:
        values.extend(handle.wait(SECONDS) for handle in handles)
        fifo.write_text("end\n")

    collector = threading.Thread(target=collect)
    collector.start()
    with fifo.open() as ticks:
        for count, line in enumerate(iter(ticks.readline, "end\n"), start=1):
            assert line == "tick\n"
            if count % (length * flows // 2) == 0 and count // (length * flows // 2) <= kills:
                workers.pop(0).kill()
                workers.append(served.worker(connected=False))
    collector.join()
    os.close(keep_open)
    assert values == [length + sum(range(1, length + 1))] * flows
    for handle in handles:
        calls = list(handle.execution.checkpoints)
        assert [call.status for call in calls] == ["completed"] * 2 * length
        assert len({call.invocation_id for call in calls}) == 2 * length


def test_results_outlive_the_planner(patient: Place) -> None:
    served = patient
    started, go = served.fifo("started"), served.fifo("go")
    worker = served.worker()
    handle = served.start(code.meeting, str(served.folder))
    pid, _ = map(int, started.read_text().split())
    served.planners[-1].kill()
    served.planners[-1].ended()
    worker.line("lost the planner")
    go.write_text("go")
    served.planner()
    worker.line("connected")
    assert handle.wait(SECONDS) == [2, pid, 3]
    assert (served.folder / "attempts").read_text() == "x"


def test_a_step_that_crashes_its_runner_is_a_failed_attempt(served: Place) -> None:
    worker = served.worker()
    assert served.run(code.crashing_in_the_body, str(served.folder)) == 1
    worker.line("SIGSEGV")
    assert "exited with code 3 while step 'crashes' ran" in served.run(code.crashing_for_good)


def test_a_step_of_a_pipeline_that_crashes_its_runner_is_tried_again(served: Place) -> None:
    served.worker()
    reach = served.client.reach
    run = ended_well(reach, start_pipeline(code.fixed, (str(served.folder),), {}, reach))
    assert [one.status for one in run.checkpoints] == ["completed"] * 4


def test_a_body_that_ends_its_runner_fails(served: Place) -> None:
    served.worker()
    with pytest.raises(ExecutionError) as caught:
        served.run(code.dies)
    assert caught.value.failure is not None
    assert caught.value.failure.origin is FailureOrigin.RUNTIME
    assert served.run(code.chain, 2) == 1


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_a_step_that_exceeds_its_timeout_is_ended(served: Place, isolation: str) -> None:
    served.worker("--isolation", isolation, "--processes", "1")
    assert served.run(code.timing_out) == "step 'too_slow' exceeded its timeout of 0.3 s"


def test_code_that_holds_the_interpreter_does_not_cost_the_lease(served: Place) -> None:
    served.worker()
    handle = served.start(code.holding, LEASE * 1.5)
    assert handle.wait(SECONDS) == 1
    assert [one.status for one in handle.execution.checkpoints] == ["completed"]


def test_sigterm_finishes_the_step_and_hands_back_its_flow(served: Place) -> None:
    started, go = served.fifo("started"), served.fifo("go")
    first = served.worker()
    handle = served.start(code.meeting, str(served.folder))
    pid, _ = map(int, started.read_text().split())
    first.kill(signal.SIGTERM)
    first.line("finishing what runs")
    go.write_text("go")
    assert first.ended() == 0
    served.worker()
    assert handle.wait(SECONDS) == [2, pid, 3]
    assert (served.folder / "attempts").read_text() == "x"


def test_a_second_signal_ends_a_worker_at_once(served: Place) -> None:
    started = served.fifo("started")
    served.fifo("go")
    worker = served.worker()
    handle = served.start(code.meeting, str(served.folder))
    runner, _ = map(int, started.read_text().split())
    process = psutil.Process(runner)
    worker.kill(signal.SIGTERM)
    worker.line("finishing what runs")
    worker.kill(signal.SIGTERM)
    assert worker.ended() == 1
    assert not psutil.wait_procs([process], timeout=SECONDS)[1]
    served.client.executions.cancel(handle.exec_id)
