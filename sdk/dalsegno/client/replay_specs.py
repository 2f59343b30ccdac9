"""Replay requests as they are sent; one that is wrong is refused with all that is, here and at the planner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dalsegno.client.replay_request import ReplayRequest, Wrong
from dalsegno.errors import AuthError, BackendError, DalsegnoError, Problem, UsageError
from dalsegno.v1.replay_service_pb2 import ReplayServicePlanRequest, ReplaySpec

if TYPE_CHECKING:
    from dalsegno.client.code_here import CodeHere
    from dalsegno.client.reach import Reach
    from dalsegno.client.storage import Uploads


def checked_spec(
    reach: Reach,
    request: ReplayRequest,
    execution: str,
    here: CodeHere,
    uploads: Uploads,
) -> ReplaySpec:
    """Return the message for a request.

    Args:
        reach: The planner.
        request: The request.
        execution: Which execution is replayed.
        here: What this process knows of its code.
        uploads: Takes its large values.

    Raises:
        UsageError: If something is wrong that shows here; then with what the planner finds wrong as well.
    """
    spec, wrong = request.draft(execution, reach.project, uploads, types=here.types, code=here.code)
    if wrong.problems:
        raise refusal(reach, spec, wrong)
    return spec


def refusal(reach: Reach, spec: ReplaySpec, wrong: Wrong) -> UsageError:
    """Return the error for a request that is wrong.

    Args:
        reach: The planner, which is asked about the rest.
        spec: The request without what is known to be wrong.
        wrong: What that is.
    """
    problems = [*wrong.problems, *_told_by_planner(reach, spec)]
    return UsageError("the replay cannot be made", reason=wrong.reason, problems=problems)


def _told_by_planner(reach: Reach, spec: ReplaySpec) -> Sequence[Problem]:
    try:
        reach.connection.call(lambda stubs: stubs.replays.Plan, ReplayServicePlanRequest(spec=spec, page_size=1))
    except (AuthError, BackendError):
        return ()  # the request is wrong in any case
    except DalsegnoError as error:
        return error.problems or [Problem("", error.message)]
    return ()
