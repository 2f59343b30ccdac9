"""User code that fails in every way that there is, that does not stop, and that says how far it has come."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import dalsegno
from dalsegno import flow, pipeline, step


class WithLock(Exception):
    """It cannot be serialised."""

    def __init__(self) -> None:
        super().__init__("it has a lock", threading.Lock())


class Unbuildable(Exception):
    """Its arguments are not those of its constructor."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}: {hint}")


class Speechless(Exception):
    """It cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


MISLEADING = "DivergenceError: the flow diverged; the process was killed by SIGKILL, as the kernel does; backend down"


def _fail(kind: str) -> NoReturn:
    match kind:
        case "misleading":
            raise RuntimeError(MISLEADING)
        case "lock":
            raise WithLock
        case "unbuildable":
            raise Unbuildable(3, hint="look elsewhere")
        case "speechless":
            raise Speechless
        case "local":

            class Local(Exception):
                pass

            raise Local("nobody finds this class")
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "leave":
            os._exit(0)
    raise AssertionError(kind)


@step(retries=1, retry_delay=0.01)
def fails(kind: str) -> int:
    _fail(kind)


@flow
def directly(kind: str) -> int:
    return fails(kind)


@flow
def elsewhere(kind: str) -> int:
    return fails.submit(kind).result()


@pipeline
def piped(kind: str) -> int:
    return fails(kind)


@flow
def in_the_body(kind: str) -> None:
    _fail(kind)


@flow
def caught(kind: str) -> str:
    try:
        fails(kind)
    except Exception as error:  # noqa: BLE001 - what it is, is the question
        return type(error).__name__
    return "nothing"


@step(retries=2, retry_delay=0.01, retry_on=ConnectionError, no_retry_on=BrokenPipeError)
def choosy(kind: str) -> int:
    raise {"reset": ConnectionResetError, "pipe": BrokenPipeError, "value": ValueError}[kind]("no")


@flow
def choosy_directly(kind: str) -> int:
    return choosy(kind)


@flow
def choosy_elsewhere(kind: str) -> int:
    return choosy.submit(kind).result()


@pipeline
def choosy_piped(kind: str) -> int:
    return choosy(kind)


@step(timeout=0.5, retries=1, retry_delay=0.01)
def stuck_once(folder: str) -> int:
    """Hang in C code that keeps the interpreter for itself, the first time."""
    first = Path(folder) / "first"
    if first.exists():
        return os.getpid()
    first.write_text(str(os.getpid()))
    ctypes.PyDLL(None).usleep(60_000_000)
    return 0


@flow
def stuck(folder: str) -> int:
    return stuck_once(folder)


@step
def sleeps(folder: str) -> None:
    """Sleep, and tidy up."""
    try:
        (Path(folder) / "started").write_text(f"{os.getpid()}\n")  # a FIFO: waits for its reader
        time.sleep(3600)
    finally:
        (Path(folder) / "tidied").write_text(str(dalsegno.cancelled()))


@step
def stubborn(folder: str) -> None:
    """Go on, whatever is said."""
    (Path(folder) / "started").write_text(f"{os.getpid()}\n")
    ctypes.PyDLL(None).usleep(3_600_000_000)


@flow
def sleeping(folder: str) -> None:
    sleeps(folder)


@flow
def sleeping_elsewhere(folder: str) -> None:
    sleeps.submit(folder).result()


@flow
def stubborn_directly(folder: str) -> None:
    stubborn(folder)


@flow
def stubborn_elsewhere(folder: str) -> None:
    stubborn.submit(folder).result()


@flow
def stubborn_body(folder: str) -> None:
    stubborn.function(folder)


@step
def whoami() -> int:
    return os.getpid()


@flow
def asking() -> int:
    return whoami()


@step
def counts(folder: str) -> int:
    """Say how far it has come, and go on when told so."""
    for done in range(1, 4):
        dalsegno.progress(done, 3, "epochs")
    (Path(folder) / "go").read_text()  # a FIFO: waits for its writer
    return 3


@flow
def counting(folder: str) -> int:
    return counts(folder)
