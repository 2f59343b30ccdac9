"""What a client says of a planner that is not there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from dalsegno import BackendError, Client

SECONDS = 20
"""Within which it is said; retries take some six, and this machine may be busy."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "call"),
    [
        ("no-such-planner.invalid:7317", lambda client: client.executions.wait("any")),
        ("127.0.0.1", lambda client: client.executions.wait("any", timeout=60)),
        ("unix:/nowhere/planner.sock", lambda client: next(client.executions.list())),
    ],
)
def test_a_planner_that_was_never_there_is_said_within_seconds(address: str, call: Callable[[Client], object]) -> None:
    where = f"{address}:{free_port()}" if address == "127.0.0.1" else address
    with Client(where) as client:
        began = time.monotonic()
        with pytest.raises(BackendError) as caught:
            call(client)
        assert time.monotonic() - began < SECONDS
    assert where in str(caught.value)
    assert "DALSEGNO_ADDRESS" in str(caught.value)
