"""Overrides: which keys are allowed, and which outputs can be replaced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dalsegno_planner.core import problems
from dalsegno_planner.core.problems import Problem
from dalsegno_planner.core.selectors import Selector, parse_selector

CHECKPOINT = "checkpoint."
WAIT = "wait."
DEFAULT_OUTPUT = "output"


def override_field(key: str) -> str:
    """How problems name an override."""
    return f'overrides["{key}"]'


def step_input_field(key: str, name: str = "") -> str:
    """How problems name the overridden inputs of a step, or one of them."""
    return f'step_input_overrides["{key}"]' + (f'["{name}"]' if name else "")


def input_field(name: str) -> str:
    """How problems name a flow input."""
    return f'inputs["{name}"]'


def parse_override_key(key: str) -> Selector | Problem:
    """The selector of the checkpoint whose output is overridden."""
    place = override_field(key)
    if key.startswith(CHECKPOINT):
        rest = key.removeprefix(CHECKPOINT)
        if not rest.strip():
            return problems.usage(
                "MISSING_SELECTOR",
                place,
                "a selector is missing after 'checkpoint.'; write checkpoint.<step name, invocation ID or call ID>",
            )
        return parse_selector(rest, place)
    if key == "wait" or key.startswith(WAIT):
        return problems.usage(
            "WAIT_OVERRIDE",
            place,
            "waits cannot be overridden or answered beforehand: the replay asks again, and its wait is answered with "
            "executions.input(exec_id, wait=NAME, value=…) or: dalsegno executions input ID --wait NAME --value JSON",
        )
    return problems.usage(
        "UNKNOWN_OVERRIDE",
        place,
        f"an override's key starts with 'checkpoint.'; write 'checkpoint.{key}' for the output of that checkpoint, "
        "or pass a flow input by its own name",
    )


@dataclass(frozen=True, slots=True)
class Overridable:
    """What decides whether the output of a checkpoint can be overridden.

    Attributes:
        outputs: The names of its outputs: those that it declares, those that are recorded, and those that
            consumers take.
        has_consumer: Whether an invocation takes its output, or the body of a flow does.
    """

    invocation_id: str
    is_wait: bool
    outputs: frozenset[str]
    has_consumer: bool


def check_overridable(target: Overridable, key: str) -> list[Problem]:
    """Refuse an override of a wait, of several outputs, or of an output that nobody takes."""
    place, name = override_field(key), target.invocation_id
    if target.is_wait:
        return [
            problems.usage(
                "WAIT_OVERRIDE",
                place,
                f"{name} is a wait, and waits cannot be overridden; answer it when the replay asks, with "
                "executions.input(…)",
            )
        ]
    found = []
    if len(target.outputs) > 1:
        listed = ", ".join(sorted(target.outputs))
        found.append(
            problems.usage(
                "SEVERAL_OUTPUTS",
                place,
                f"{name} has several outputs ({listed}), and only the output of a checkpoint with exactly one can be "
                "overridden; override the inputs of its consumers with step_input_overrides",
            )
        )
    if not target.has_consumer:
        found.append(
            problems.state(
                "NO_CONSUMER",
                place,
                f"no invocation takes the output of {name}, so that overriding it would change nothing",
            )
        )
    return found


def check_names(given: Iterable[str], known: Iterable[str], what: str, fields: Mapping[str, str]) -> list[Problem]:
    """Refuse names that are not known; `fields` says how problems name each of them."""
    available = frozenset(known)
    return [
        problems.usage("UNKNOWN_INPUT", fields[name], f"{what} {name!r}; {problems.closest(name, available)}")
        for name in sorted(given)
        if name not in available
    ]
