"""A script that ends in the middle of things: by itself, or because somebody ends it."""

from __future__ import annotations

import sys
import threading

from dalsegno import flow, step
from tests.e2e.sdk_scripts.saying import say


@step
def work(blocked: bool) -> str:
    say("started")
    if blocked:
        threading.Event().wait()
    return "done"


@flow
def working(blocked: bool) -> str:
    return work(blocked)


if __name__ == "__main__":
    mode = sys.argv[1]
    handle = working.run(blocked=mode != "finish")
    if mode != "leave":
        say("result", result=handle.wait(60))
