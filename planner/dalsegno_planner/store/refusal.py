"""Problems of a request as the one error that tells all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from dalsegno import errors
from dalsegno_planner.core.problems import Problem, ProblemKind


def refusal(what: str, problems: Sequence[Problem]) -> errors.DalsegnoError:
    """Return the error for a request: of usage where any of its problems is, else of state, else of something missing.

    Args:
        what: What is refused, as the error begins.
        problems: At least one.
    """
    kinds = {problem.kind for problem in problems}
    kind = next(kind for kind in ProblemKind if kind in kinds)
    leading = next(problem for problem in problems if problem.kind is kind)
    told = [errors.Problem(problem.field, problem.description) for problem in problems]
    return _error_class(kind)(
        f"{what} is refused", reason=leading.reason, fields={"field": leading.field}, problems=told
    )


def _error_class(kind: ProblemKind) -> type[errors.DalsegnoError]:
    match kind:
        case ProblemKind.USAGE:
            return errors.UsageError
        case ProblemKind.STATE:
            return errors.StateError
        case ProblemKind.NOT_FOUND:
            return errors.NotFoundError
        case _:
            assert_never(kind)
