"""A process that replays one execution over and over: ``python -m tests.benchmarks.replay_client SOURCE SELECTOR``.

It connects, says ``ready``, begins when it is told to by a line, and prints how many replays it has seen
completed in the seconds that it was given.
"""

from __future__ import annotations

import sys
import threading
import time

from dalsegno import Client
from tests.benchmarks.session import WAIT_S


def main(source: str, selector: str, clients: int, seconds: float) -> None:
    """Runs several clients, each in a thread with a connection of its own."""
    lock, completed = threading.Lock(), 0
    connected = threading.Barrier(clients + 1)
    begun = threading.Event()

    def work() -> None:
        nonlocal completed
        client = Client()
        client.executions.get(source)
        connected.wait()
        begun.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            replay = client.executions.replay(source, from_=selector)
            client.executions.wait(replay.exec_id, timeout=WAIT_S)
            with lock:
                completed += time.perf_counter() <= end

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    connected.wait()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    begun.set()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"{completed}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
