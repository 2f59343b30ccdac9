"""``python -m dalsegno_executor.runner``: one runner process, started by its stream process."""

from __future__ import annotations

import argparse
import io
import os
import socket
import sys
import threading

from dalsegno.errors import UsageError
from dalsegno_executor.runner.channel import Channel
from dalsegno_executor.runner.engine import Runner
from dalsegno_executor.runner.loader import load_target
from dalsegno_executor.runner.parent import die_with_parent, leave_signals_to_parent
from dalsegno_executor.runner.running import answer_wake_ups

IMPORT_FAILED = 2
"""Exit code of a runner whose code cannot be loaded."""
_SECONDS_TO_LEAVE = 2.0


def main(arguments: list[str] | None = None) -> int:
    """Load the code, say so, and run tasks until the stream process closes the socket."""
    options = _parser().parse_args(arguments)
    die_with_parent(options.parent)
    leave_signals_to_parent()
    answer_wake_ups()
    _show_lines_at_once()
    channel = Channel(socket.socket(fileno=options.fd))
    runner = Runner(channel, body_threads=options.bodies)
    try:
        objects = load_target(options.target)
    except UsageError as error:
        print(f"dalsegno worker: {error}", file=sys.stderr, flush=True)
        return IMPORT_FAILED
    runner.announce(objects)
    runner.steps.start(max(0, options.steps - 1))
    threading.Thread(target=_serve, args=(runner,), name="reader", daemon=True).start()
    runner.offer(options.steps, options.bodies)
    # The first step thread is the main thread: some libraries work nowhere else.
    runner.steps.run_here()
    return 0


def _serve(runner: Runner) -> None:
    try:
        runner.serve()
    finally:
        # Code that runs on is nobody's any more.
        last_resort = threading.Timer(_SECONDS_TO_LEAVE, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()


def _show_lines_at_once() -> None:
    """Let what user code prints appear line by line, also where the worker's output goes to a file or a pipe."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dalsegno_executor.runner")
    parser.add_argument("target", help="module or file")
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket")
    parser.add_argument("--parent", type=int, required=True, help="process ID of the stream process")
    parser.add_argument("--steps", type=int, default=1, help="steps at a time")
    parser.add_argument("--bodies", type=int, default=1, help="flow bodies at a time")
    return parser


if __name__ == "__main__":
    sys.exit(main())
