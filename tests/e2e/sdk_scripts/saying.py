"""How the scripts tell the tests what happened: one line of JSON for each thing."""

from __future__ import annotations

import json
from typing import Any

from dalsegno import Execution


def say(what: str, **facts: Any) -> None:
    """Print one fact."""
    print(json.dumps({"what": what, **facts}, default=str), flush=True)


def checkpoints(execution: Execution) -> dict[str, str]:
    """Return the states of an execution's checkpoints, with what marks them."""
    marks = ("output_overridden", "stale_inputs")
    return {
        one.invocation_id: " ".join([one.status, *(mark for mark in marks if getattr(one, mark))])
        for one in execution.checkpoints
    }
