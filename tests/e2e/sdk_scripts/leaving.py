"""A script that ends: with ``silent`` before what it has started, with ``seen`` after it, without having waited."""

from __future__ import annotations

import sys
import threading

from dalsegno import flow, pipeline, step


@step
def work(for_ever: bool) -> int:
    if for_ever:
        threading.Event().wait()
    return 1


@flow
def working(for_ever: bool) -> int:
    return work(for_ever)


@pipeline
def drawn() -> int:
    return work(False)


if __name__ == "__main__":
    assert drawn().result == 1
    if sys.argv[1] == "silent":
        working.with_options(name="left").run(True)
        working.with_options(name="replaced").run(False).wait()
    else:
        handle = working.run(False)
        while not handle.status.finished:
            pass
