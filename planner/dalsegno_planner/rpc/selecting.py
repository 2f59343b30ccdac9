"""Which invocations a selector of a request names."""

from __future__ import annotations

from collections.abc import Sequence

from dalsegno_planner.core.ids import ExecutionId, Number
from dalsegno_planner.core.problems import Problem
from dalsegno_planner.core.selectors import SelectorKind, no_match, parse_selector, select
from dalsegno_planner.store import graph
from dalsegno_planner.store.pool import Connection
from dalsegno_planner.store.refusal import refusal

_FIELD = "selector"


async def selected(connection: Connection, execution_id: ExecutionId, text: str) -> Sequence[Number]:
    """Return the numbers of the invocations that a selector names, in their order.

    Raises:
        UsageError: It is blank.
        StateError: It names none, or is ambiguous.
    """
    selector = parse_selector(text, _FIELD)
    if isinstance(selector, Problem):
        raise refusal("the selector", [selector])
    found = select(selector, await graph.candidates(connection, execution_id, [selector]), _FIELD)
    if isinstance(found, Problem):
        raise refusal("the selector", [found])
    if not found:
        available = await graph.known_names(connection, execution_id)
        raise refusal("the selector", [no_match(selector, available, _FIELD)])
    if selector.kind is SelectorKind.ALL:
        return await graph.numbers_of_name(connection, execution_id, selector.value)
    return [one.number for one in found]
