"""How gRPC waits for its sockets, in processes that are all ours: the planner and the executor's stream process.

gRPC's "event engine" hands each message from thread to thread, some eleven switches for one that comes and goes; the
poller it had before makes six, and takes half the CPU (110 against 60 us, and 180 against 100 us for an echo over a
Unix socket). Import this before grpc, which reads its environment once. Set ``GRPC_EXPERIMENTS`` to choose otherwise.
"""

from __future__ import annotations

import os

_VARIABLE = "GRPC_EXPERIMENTS"
_IS_OURS = _VARIABLE not in os.environ

os.environ.setdefault(_VARIABLE, "-event_engine_client,-event_engine_listener")


def environment_of_others() -> dict[str, str]:
    """Returns the environment for processes with user code: how their gRPC polls is not ours to choose."""
    return {name: value for name, value in os.environ.items() if name != _VARIABLE or not _IS_OURS}
