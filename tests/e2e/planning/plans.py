"""What plans and their replays say, in short."""

from __future__ import annotations

from typing import Any

from dalsegno import Client, Execution
from dalsegno.client.plans import Plan, RootReason
from tests.e2e.planning.programs import ran


def ids(entries: Any) -> list[str]:
    """The invocation IDs of entries."""
    return [one.invocation_id for one in entries]


def reasons(plan: Plan) -> dict[str, list[tuple[RootReason, str]]]:
    """Why each root of a plan is one, with the cause."""
    return {one.invocation_id: [(reason.kind, reason.cause) for reason in one.reasons] for one in plan.roots}


def replayed(client: Client, source: Execution, **request: Any) -> Execution:
    """A replay that does what its plan says, and nothing else in a pipeline."""
    plan = client.executions.plan(source, **request)
    ran.clear()
    replay = client.executions.wait(client.executions.replay(source, expect_plan=plan.digest, **request), 60)
    names = {one.invocation_id: one.name for one in replay.checkpoints}
    assert sorted(ran) == sorted(names[one] for one in ids(plan.affected))
    assert {one.invocation_id for one in replay.checkpoints if one.status == "reused"} == set(ids(plan.reused))
    return replay
