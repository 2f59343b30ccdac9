"""The stream process of a script that is a runner itself.

The script starts it with one end of a socket pair. It ends when the script does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket

import uvloop

from dalsegno_executor.executor import Executor, Place
from dalsegno_executor.given import Runner
from dalsegno_executor.worker import DEFAULT_ADDRESS


def run() -> int:
    """Serve the script behind a socket until it closes it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dalsegno_executor.attach")
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket")
    parser.add_argument("--address", default=os.environ.get("DALSEGNO_ADDRESS") or DEFAULT_ADDRESS)
    parser.add_argument("--project", default="default")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds to deliver what the script has done")
    parser.add_argument("--patient", action="store_true", help="let steps take longer than their timeout")
    given = parser.parse_args()
    place = Place(given.address, given.project, pinned_only=True, grace=given.grace, quiet=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(place, socket.socket(fileno=given.fd), patient=given.patient))


async def _serve(place: Place, sock: socket.socket, *, patient: bool) -> int:
    executor = Executor(place, None)
    executor.supervisor.enforces_timeouts = not patient
    # A terminal sends its interrupt to the script's whole group; it is the script's to decide what that means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    executor.drain_on_signals(signal.SIGTERM)
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def ready(runner: Runner) -> None:
        if not answer.done():
            answer.set_result(True)

    def gone(runner: Runner, code: int) -> None:
        if not answer.done():
            answer.set_result(False)
        executor.script_gone()

    executor.fleet.on_ready = ready
    executor.supervisor.on_gone = gone
    executor.fleet.add(sock, None)
    return await executor.run() if await answer else 0
