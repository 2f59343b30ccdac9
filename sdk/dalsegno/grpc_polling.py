"""How gRPC waits for its sockets, in processes that are all ours: the planner and the executor's stream process.

gRPC's "event engine" hands each message from thread to thread, some eleven switches for one that comes and goes; the
poller it had before makes six, and takes half the CPU (110 against 60 us, and 180 against 100 us for an echo over a
Unix socket). Set ``GRPC_EXPERIMENTS`` to choose otherwise.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Final

LIGHTER_POLLER: Final = ("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
"""The variable that chooses it, and what it says."""


def import_grpc() -> None:
    """Import grpc with the lighter poller; to be called before anything else imports it.

    It reads its environment when it is imported, and no more after that. So the environment is then as it was: how gRPC
    polls in processes with user code, which are started from here, is not ours to choose.
    """
    variable, value = LIGHTER_POLLER
    if variable in os.environ:
        return
    os.environ[variable] = value
    try:
        import_module("grpc")
    finally:
        del os.environ[variable]
