"""User code that logs and prints, as a module for workers and as a script."""

from __future__ import annotations

import json
import logging
import sys

from dalsegno import Client, flow, step

log = logging.getLogger("training")


@step
def train(x: int) -> int:
    print(f"x is {x}")
    log.warning("loss %.1f", x / 2)
    return x


@step(retries=1, retry_delay=0.01)
def unsure(seen: list[int]) -> int:
    print("trying", file=sys.stderr)
    raise LookupError("never")


@flow
def training(x: int) -> int:
    print("begin")
    value = train(x) + train.submit(x + 1).result()
    try:
        unsure([])
    except LookupError:
        log.error("gave up")
    return value


if __name__ == "__main__":
    handle = training.run(7)
    handle.wait(60)
    replay = training.replay(handle.exec_id, from_="train_2")
    replay.wait(60)
    client = Client()
    logs = {
        name: [str(line) for line in client.executions.logs(one.exec_id)]
        for name, one in (("run", handle), ("replay", replay))
    }
    print(json.dumps({"exec_id": handle.exec_id, **logs}))
