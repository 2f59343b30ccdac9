"""A user's script: it runs a flow and a pipeline at the same time, each with a step that meets the test.

Takes the folder of the FIFOs, and prints the two executions and their results as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dalsegno import Client, flow, pipeline, step


@step
def begin() -> int:
    return 1


@step
def meet(folder: str, label: str, after: int) -> int:
    with (Path(folder) / "journal").open("a") as journal:
        journal.write(f"{label}\n")
    (Path(folder) / f"{label}.started").write_text("x")  # a FIFO: waits for its reader
    (Path(folder) / f"{label}.go").read_text()  # a FIFO: waits for its writer
    return after + 1


@step
def finish(value: int) -> int:
    return value * 10


@flow
def dynamic(folder: str) -> int:
    return finish(meet(folder, "flow", begin()))


@pipeline
def static(folder: str) -> int:
    return finish(meet(folder, "pipeline", begin()))


if __name__ == "__main__":
    handle = dynamic.run(sys.argv[1])
    client = Client()
    other = client.executions.start(static, sys.argv[1])
    results = {handle.exec_id: handle.wait(), other.exec_id: client.executions.wait(other).result}
    print(json.dumps(results))
