"""Planning and creating replays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalsegno.client import left_behind
from dalsegno.client.connection import new_request_id
from dalsegno.client.executions import Execution
from dalsegno.client.lanes import lane_message
from dalsegno.client.plans import Plan
from dalsegno.client.replay_specs import checked_spec
from dalsegno.client.requester import who_asks
from dalsegno.client.storage import Uploads
from dalsegno.durable import refuse_at_import
from dalsegno.errors import StateError
from dalsegno.timeouts import duration
from dalsegno.v1.replay_service_pb2 import (
    PLAN_VIEW_ROOTS,
    ReplayServiceCreateRequest,
    ReplayServicePlanRequest,
)

if TYPE_CHECKING:
    from dalsegno.client.code_here import CodeHere
    from dalsegno.client.reach import Reach
    from dalsegno.client.replay_request import ReplayRequest


def plan_replay(reach: Reach, execution: str, request: ReplayRequest, here: CodeHere) -> Plan:
    """Return what a replay would do; nothing is stored or created.

    Raises:
        UsageError: If the request is wrong, with everything that is.
        StateError: If another plan was agreed to.
    """
    spec = checked_spec(reach, request, execution, here, Uploads(reach.storage))
    plan = Plan(reach.connection, spec)
    if request.expect_plan is not None and plan.digest != request.expect_plan:
        raise StateError(
            f"the plan is not the expected one: it has the digest {plan.digest}, expected was {request.expect_plan}; "
            "plan again",
            reason="PLAN_CHANGED",
            fields={"expected": request.expect_plan, "actual": plan.digest},
        )
    return plan


def create_replay(
    reach: Reach,
    execution: str,
    request: ReplayRequest,
    here: CodeHere,
    uploads: Uploads,
    *,
    single_step: bool = False,
    debug: bool = False,
) -> Execution:
    """Create a replay.

    Args:
        reach: The planner.
        execution: What is replayed.
        request: What the replay is to do.
        here: What this process knows of the code.
        uploads: Takes large values. They are stored once the planner has found nothing wrong with the request.
        single_step: Whether nothing but the one invocation that it names is to run.
        debug: Whether this process runs it, and nobody else.

    Raises:
        UsageError: If the request is wrong, with everything that is.
        StateError: If it does not fit the execution, or another plan was agreed to.
    """
    spec = checked_spec(reach, request, execution, here, uploads)
    refuse_at_import(f"execution {execution} cannot be replayed")
    # The plan of a single step is not asked for beforehand: what it would refuse, the creation refuses.
    if uploads and not single_step:
        check = ReplayServicePlanRequest(spec=spec, view=PLAN_VIEW_ROOTS, page_size=1)
        reach.connection.call(lambda stubs: stubs.replays.Plan, check)
    uploads.send()
    create = ReplayServiceCreateRequest(
        spec=spec,
        request_id=new_request_id(),
        expect_plan=request.expect_plan or "",
        requested_by=who_asks(),
        single_step=single_step,
        debug=debug,
        timeout=duration(request.timeout),
        lane=lane_message(request.urgency.lane),
        priority=request.urgency.priority,
    )
    response = reach.connection.call(lambda stubs: stubs.replays.Create, create)
    if spec.code.definition.pinned_digest and not debug:
        left_behind.remember(reach.connection, response.execution.id)
    return Execution(response.execution, reach)
