"""Planning and creating replays."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING

from dalsegno.client import left_behind
from dalsegno.client.connection import new_request_id
from dalsegno.client.executions import Execution
from dalsegno.client.lanes import lane_message
from dalsegno.client.plans import Plan
from dalsegno.client.storage import Uploads
from dalsegno.durable import refuse_at_import
from dalsegno.lanes import USUAL, Urgency
from dalsegno.timeouts import duration
from dalsegno.v1.replay_service_pb2 import (
    PLAN_VIEW_ROOTS,
    ReplayServiceCreateRequest,
    ReplayServicePlanRequest,
    ReplaySpec,
)

if TYPE_CHECKING:
    from dalsegno.client.reach import Reach


def plan_replay(reach: Reach, spec: ReplaySpec) -> Plan:
    """Return what a replay would do; nothing is stored or created."""
    return Plan(reach.connection, spec)


def create_replay(
    reach: Reach,
    spec: ReplaySpec,
    uploads: Uploads,
    *,
    expect_plan: str | None = None,
    single_step: bool = False,
    debug: bool = False,
    timeout: float | None = None,
    urgency: Urgency = USUAL,
) -> Execution:
    """Create a replay.

    Args:
        reach: The planner.
        spec: What it is to do.
        uploads: Its large values. They are stored once the planner has found nothing wrong with it.
        expect_plan: The digest of the plan that was agreed to.
        single_step: Whether nothing but the one invocation that it names is to run.
        debug: Whether this process runs it, and nobody else.
        timeout: Seconds that it may take; None for as many as its source.
        urgency: What its work goes before.
    """
    refuse_at_import(f"execution {spec.execution} cannot be replayed")
    # The plan of a single step is not asked for beforehand: what it would refuse, the creation refuses.
    if uploads and not single_step:
        check = ReplayServicePlanRequest(spec=spec, view=PLAN_VIEW_ROOTS, page_size=1)
        reach.connection.call(lambda stubs: stubs.replays.Plan, check)
    uploads.send()
    request = ReplayServiceCreateRequest(
        spec=spec,
        request_id=new_request_id(),
        expect_plan=expect_plan or "",
        requested_by=who_asks(),
        single_step=single_step,
        debug=debug,
        timeout=duration(timeout),
        lane=lane_message(urgency.lane),
        priority=urgency.priority,
    )
    response = reach.connection.call(lambda stubs: stubs.replays.Create, request)
    if spec.code.definition.pinned_digest and not debug:
        left_behind.remember(reach.connection, response.execution.id)
    return Execution(response.execution, reach)


def who_asks() -> str:
    """Return the user and host that this process runs as."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # an account without a name, as in some containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
