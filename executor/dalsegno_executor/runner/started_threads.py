"""Threads that user code starts inside a body or a step: they are inside it too.

A new thread starts with an empty context, where a step would be its plain function, and what it does would not be
recorded without anybody being told. So a thread takes over where it was started, and what cannot work there is refused.
"""

from __future__ import annotations

import threading

from dalsegno.durable import current_body, inside_step
from dalsegno_executor.runner.log_capture import current_writer

_start = threading.Thread.start


def mark_threads() -> None:
    """Let threads of this process know from now on in which body or step they were started."""
    threading.Thread.start = _start_marked  # type: ignore[assignment, method-assign]


def _start_marked(thread: threading.Thread) -> None:
    body, in_step = current_body.get(), inside_step.get()
    if body is not None or in_step:
        writer = current_writer.get()
        run = thread.run

        def run_inside() -> None:
            current_body.set(body)
            inside_step.set(in_step)
            current_writer.set(writer)
            run()

        thread.run = run_inside  # type: ignore[method-assign]
    _start(thread)
