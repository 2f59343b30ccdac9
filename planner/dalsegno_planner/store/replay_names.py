"""What a replay request names, before anything is looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dalsegno_planner.core import problems
from dalsegno_planner.core.overrides import parse_override_key, step_input_field
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.core.problems import Problem
from dalsegno_planner.core.selectors import Selector, parse_exact, parse_selector
from dalsegno_planner.store.replay_request import ReplayRequest


@dataclass(frozen=True, slots=True)
class Names:
    """The selectors of a request, by what it gives them as.

    Attributes:
        chosen: Of the mode `from`.
        kept: Of the mode `skip`.
        overrides: By the key of the override.
        steps: By the key of the overridden inputs.
        problems: What is none.
    """

    chosen: Mapping[str, Selector]
    kept: Mapping[str, Selector]
    overrides: Mapping[str, Selector]
    steps: Mapping[str, Selector]
    problems: tuple[Problem, ...]

    @property
    def selectors(self) -> list[Selector]:
        """All of them."""
        return [*self.chosen.values(), *self.kept.values(), *self.overrides.values(), *self.steps.values()]


def names_of(request: ReplayRequest) -> Names:
    """Parse the selectors of a request."""
    mode = request.chosen_mode
    chosen = {text: parse_selector(text, "from") for text in request.selectors} if mode is Mode.FROM else {}
    kept = {text: parse_exact(text, "skip") for text in request.selectors} if mode is Mode.SKIP else {}
    overrides = {key: parse_override_key(key) for key in request.overrides}
    steps = {key: parse_exact(key, step_input_field(key)) for key in request.step_input_overrides}
    found = [one for each in (chosen, kept, overrides, steps) for one in each.values() if isinstance(one, Problem)]
    if mode is Mode.FROM and not chosen:
        found.insert(0, _nothing_chosen())
    return Names(_parsed(chosen), _parsed(kept), _parsed(overrides), _parsed(steps), tuple(found))


def _nothing_chosen() -> Problem:
    return problems.usage(
        "MISSING_SELECTOR", "from", "no invocation is named; give a step's name, an invocation ID or a call ID"
    )


def _parsed(results: Mapping[str, Selector | Problem]) -> dict[str, Selector]:
    return {key: one for key, one in results.items() if isinstance(one, Selector)}
