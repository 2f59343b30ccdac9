"""``dalsegno worker``: an executor for the code of one module or file."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import uvloop

from dalsegno.errors import UsageError
from dalsegno.project import project_name
from dalsegno_executor.executor import USAGE, Executor, Place
from dalsegno_executor.given import Runner
from dalsegno_executor.runners import RunnerCommand, describe_exit
from dalsegno_executor.saying import say

DEFAULT_ADDRESS = "127.0.0.1:7317"
BODIES = 100
"""Flow bodies that one executor runs at a time, unless it is told otherwise."""
_THREADS = 16


class Isolation(StrEnum):
    """What keeps steps apart."""

    PROCESS = "process"
    THREAD = "thread"


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker runs.

    Attributes:
        target: Module or file that defines flows and steps.
        address: The planner's, ``host:port`` or ``unix:/path``.
        project: Whose code it is.
        processes: How many runner processes; one a core, or one in all where threads keep steps apart.
        slots: How many steps a runner runs at a time; 1, or 16 where threads keep them apart.
        bodies: How many flow bodies all of them run at a time.
        isolation: What keeps steps apart.
        grace: Seconds that a drain may take.
    """

    target: str
    address: str = DEFAULT_ADDRESS
    project: str = "default"
    processes: int | None = None
    slots: int | None = None
    bodies: int = BODIES
    isolation: Isolation = Isolation.PROCESS
    grace: float = 30.0

    @property
    def process_count(self) -> int:
        """How many runner processes there are."""
        return self.processes or (1 if self.isolation is Isolation.THREAD else os.cpu_count() or 1)

    @property
    def command(self) -> RunnerCommand:
        """What each of them runs."""
        slots = self.slots or (_THREADS if self.isolation is Isolation.THREAD else 1)
        return RunnerCommand(self.target, slots, max(1, self.bodies // self.process_count))


def main(options: WorkerOptions) -> int:
    """Run a worker until it is told to end, and return the exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_work(options))


async def _work(options: WorkerOptions) -> int:
    place = Place(options.address, options.project, grace=options.grace)
    executor = Executor(place, options.command, most_alone=max(options.process_count, os.cpu_count() or 1))
    executor.drain_on_signals(signal.SIGTERM, signal.SIGINT)
    try:
        problem = await _first_runner(executor)
        if problem:
            say(problem)
            return USAGE
        for _ in range(options.process_count - 1):
            executor.supervisor.start_runner()
        return await executor.run()
    finally:
        await executor.end_runners()


async def _first_runner(executor: Executor) -> str:
    """Start one runner and wait until it has loaded its code; return what is wrong if it cannot."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def gone(runner: Runner, code: int) -> None:
        if not answer.done():
            executor.supervisor.closing = True  # there is no use in starting another one
            answer.set_result(f"the first runner {describe_exit(code)} before it was ready")

    def ready(runner: Runner) -> None:
        if not answer.done():
            answer.set_result("")

    executor.fleet.on_ready = ready
    executor.supervisor.on_gone = gone
    executor.supervisor.start_runner()
    ending = asyncio.create_task(executor.told_to_end())
    either: set[asyncio.Future[Any]] = {answer, ending}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    return answer.result() if answer.done() else ""


def options_from(arguments: Sequence[str] | None) -> WorkerOptions:
    """Read the command line; what it leaves out comes from the environment."""
    parser = argparse.ArgumentParser(prog="dalsegno worker", description="Run one executor for the code of a module.")
    parser.add_argument("target", metavar="MODULE_OR_FILE", help="what defines the flows and steps")
    parser.add_argument("--address", default=os.environ.get("DALSEGNO_ADDRESS") or DEFAULT_ADDRESS)
    parser.add_argument("--project", default=None)
    parser.add_argument("--processes", type=_positive, default=None, help="runner processes (one a core)")
    parser.add_argument("--slots", type=_positive, default=None, help="steps that one runner runs at a time")
    parser.add_argument("--bodies", type=_positive, default=BODIES, help="flow bodies that all run at a time (100)")
    parser.add_argument("--isolation", type=Isolation, choices=list(Isolation), default=Isolation.PROCESS)
    parser.add_argument("--grace", type=float, default=30.0, help="seconds that a drain may take")
    given = parser.parse_args(arguments)
    return WorkerOptions(
        target=given.target,
        address=given.address,
        project=given.project or project_name(),
        processes=given.processes,
        slots=given.slots,
        bodies=given.bodies,
        isolation=given.isolation,
        grace=given.grace,
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a worker as the command line says."""
    try:
        return main(options_from(arguments))
    except UsageError as error:
        say(str(error))
        return USAGE
