"""What a caller asks of a replay, checked as far as it can be here, and as the message that asks the planner."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dalsegno.client.given_values import KnownTypes, require_names, value_message
from dalsegno.errors import Problem, UsageError
from dalsegno.lanes import USUAL, Urgency
from dalsegno.v1 import replay_service_pb2
from dalsegno.v1.replay_service_pb2 import CodeVersion, InputOverrides, ReplaySpec, SelectorList

if TYPE_CHECKING:
    from dalsegno.client.storage import Uploads

_ON_STALE = {
    None: replay_service_pb2.ON_STALE_UNSPECIFIED,
    "reuse": replay_service_pb2.ON_STALE_REUSE,
    "rerun": replay_service_pb2.ON_STALE_RERUN,
    "fail": replay_service_pb2.ON_STALE_FAIL,
}


_ARGUMENTS = (
    *("from_", "skip", "skip_successful_steps", "overrides", "step_input_overrides", "rerun_changed_code"),
    *("on_stale", "expect_plan", "inputs", "timeout", "lane", "priority"),
)
_CONFIGURATION = ("parameters", "skip_successful_steps", "step_input_overrides", "steps_to_skip")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """What a replay is to do. A mode is asked for by being there: ``skip=[]`` is the mode skip.

    Attributes:
        from_: Selectors of what re-executes, with everything downstream.
        skip: Invocation IDs, or ``all:NAME``, of what does not re-execute.
        skip_successful_steps: Whether whatever succeeded, and is not touched by an override, is reused.
        everything: Whether everything re-executes, whatever is overridden.
        overrides: ``checkpoint.<selector>`` to the value that replaces the output.
        step_input_overrides: Invocation ID to input name to the value that replaces the input.
        rerun_changed_code: Whether steps whose code has changed re-execute.
        on_stale: ``reuse``, ``rerun`` or ``fail``: what happens to a reused call whose inputs differ only
            because flow inputs were overridden.
        expect_plan: The digest of the plan that was agreed to.
        inputs: Flow inputs that are replaced.
        flow_inputs: The same, given as keyword arguments.
        timeout: Seconds that the replay may take; None for as many as its source.
        urgency: What the work of the replay goes before.
        problems: What is known to be wrong with the request already.
    """

    from_: str | Sequence[str] | None = None
    skip: str | Sequence[str] | None = None
    skip_successful_steps: bool = False
    everything: bool = False
    overrides: Mapping[str, object] | None = None
    step_input_overrides: Mapping[str, Mapping[str, object]] | None = None
    rerun_changed_code: bool = False
    on_stale: str | None = None
    expect_plan: str | None = None
    inputs: Mapping[str, object] | None = None
    flow_inputs: Mapping[str, object] = field(default_factory=dict)
    timeout: float | None = None
    urgency: Urgency = USUAL
    problems: tuple[Problem, ...] = ()

    def all_inputs(self) -> dict[str, object]:
        """Return the flow inputs, in whichever way they were given.

        Raises:
            UsageError: If one was given in both ways.
        """
        inputs = require_names(self.inputs, "inputs")
        twice = sorted(set(inputs) & set(self.flow_inputs))
        if twice:
            raise UsageError(
                f"given twice, in inputs={{…}} and as a keyword argument: {', '.join(twice)}",
                reason="INPUT_GIVEN_TWICE",
                fields={"input": twice[0], "field": "inputs"},
            )
        return {**inputs, **self.flow_inputs}

    @contextmanager
    def hinting(self) -> Iterator[None]:
        """Say with a refusal which argument was meant, where a keyword that is no flow input looks like one."""
        try:
            yield
        except UsageError as error:
            refused = {problem.field for problem in error.problems}
            for name in self.flow_inputs:
                near = _argument_like(name) if f'inputs["{name}"]' in refused else None
                if near is not None:
                    error.add_note(f"{name} is taken as a flow input; the argument is called {near}")
            raise

    def draft(
        self,
        execution: str,
        project: str,
        uploads: Uploads,
        *,
        types: KnownTypes | None = None,
        code: CodeVersion | None = None,
        without_inputs: bool = False,
    ) -> tuple[ReplaySpec, Wrong]:
        """Return the message without what cannot be sent, and everything that is wrong as far as that shows here.

        Args:
            execution: The source.
            project: Where run names are looked up.
            uploads: Takes the content of large values.
            types: The types of the flow's inputs, where its code is here.
            code: Today's code, where the replay is made from code.
            without_inputs: Whether flow inputs are left out, having been found wrong already.
        """
        types = types or KnownTypes(None)
        wrong = Wrong([*self.problems, *self._mode_problems()])
        if self.on_stale not in _ON_STALE:
            wrong.add("on_stale", f"{self.on_stale!r} is none of 'reuse', 'rerun' and 'fail'")
        spec = ReplaySpec(
            execution=execution,
            project=project,
            rerun_changed_code=self.rerun_changed_code,
            on_stale=_ON_STALE.get(self.on_stale, replay_service_pb2.ON_STALE_UNSPECIFIED),
            code=code,
        )
        self._set_mode(spec)
        if not without_inputs:
            self._add_inputs(spec, uploads, types, wrong)
        self._add_overrides(spec, uploads, wrong)
        return spec, wrong

    def _mode_problems(self) -> list[Problem]:
        given = [
            name
            for name, is_given in (
                ("from_", self.from_ is not None),
                ("skip", self.skip is not None),
                ("skip_successful_steps", self.skip_successful_steps),
            )
            if is_given
        ]
        problems = [
            Problem(name, f"must be a selector or a list of selectors, not {selectors!r}")
            for name, selectors in (("from_", self.from_), ("skip", self.skip))
            if selectors is not None and not _are_selectors(selectors)
        ]
        if len(given) > 1:
            problems.append(Problem("", f"{' and '.join(given)} exclude each other; give one of them"))
        return problems

    def _set_mode(self, spec: ReplaySpec) -> None:
        # An empty list is set as well: its presence is the mode.
        if self.from_ is not None:
            getattr(spec, "from").CopyFrom(SelectorList(selectors=_listed(self.from_)))
        elif self.skip is not None:
            spec.skip.CopyFrom(SelectorList(selectors=_listed(self.skip)))
        elif self.skip_successful_steps:
            spec.skip_successful = True
        elif self.everything:
            spec.everything = True

    def _add_inputs(self, spec: ReplaySpec, uploads: Uploads, types: KnownTypes, wrong: Wrong) -> None:
        with wrong.gathered("inputs"):
            for name, value in self.all_inputs().items():
                field = f'inputs["{name}"]'
                with wrong.gathered(field):
                    misfits = types.problems({name: value}, "inputs")
                    wrong.problems += misfits
                    if not misfits:
                        message = value_message(
                            value, uploads, field, admits_uuid=types.admits_uuid(name), checked=True
                        )
                        spec.inputs[name].CopyFrom(message)

    def _add_overrides(self, spec: ReplaySpec, uploads: Uploads, wrong: Wrong) -> None:
        with wrong.gathered("overrides"):
            for key, value in require_names(self.overrides, "overrides").items():
                with wrong.gathered(f'overrides["{key}"]') as field:
                    # The message first: looking up a key of the map makes it.
                    message = value_message(value, uploads, field, checked=True)
                    spec.overrides[key].CopyFrom(message)
        with wrong.gathered("step_input_overrides"):
            for invocation, inputs in require_names(self.step_input_overrides, "step_input_overrides").items():
                where = f'step_input_overrides["{invocation}"]'
                replaced = InputOverrides()
                with wrong.gathered(where):
                    if not isinstance(inputs, Mapping):
                        wrong.add(where, f"must be a dict from input names to values, not {inputs!r}")
                        continue
                    for name, value in require_names(inputs, where).items():
                        with wrong.gathered(f'{where}["{name}"]') as field:
                            message = value_message(value, uploads, field, checked=True)
                            replaced.inputs[name].CopyFrom(message)
                spec.step_input_overrides[invocation].CopyFrom(replaced)


@dataclass(slots=True)
class Wrong:
    """Everything that is wrong with a request; `reason` is that of the first thing."""

    problems: list[Problem]
    reason: str = "INVALID_REPLAY"

    def add(self, field: str, description: str) -> None:
        """Note one thing."""
        self.problems.append(Problem(field, description))

    @contextmanager
    def gathered(self, field: str) -> Iterator[str]:
        """Note what is raised as wrong with a field."""
        try:
            yield field
        except UsageError as error:
            if not self.problems:
                self.reason = error.reason
            self.problems += error.problems or [Problem(field, error.message)]


def request_of_configuration(configuration: Mapping[str, Any] | None) -> ReplayRequest:
    """Return the request that a run configuration stands for; what is wrong with it is told with all the rest.

    Args:
        configuration: ``steps_to_skip``, ``skip_successful_steps``, ``parameters``, ``step_input_overrides``.

    Raises:
        UsageError: If it is no dict.
    """
    configuration = require_names(configuration, "run_configuration")
    problems = [_unknown_key(key) for key in configuration if key not in _CONFIGURATION]
    skip: Any = configuration.get("steps_to_skip")
    if skip is not None and not _are_selectors(skip):
        where = 'run_configuration["steps_to_skip"]'
        problems.append(Problem(where, f"must be an invocation ID or a list of them, not {skip!r}"))
        skip = []
    successful = configuration.get("skip_successful_steps")
    if successful not in (None, True, False):
        where = 'run_configuration["skip_successful_steps"]'
        problems.append(Problem(where, f"must be true or false, not {successful!r}"))
    step_inputs: Any = configuration.get("step_input_overrides")
    return ReplayRequest(
        skip=skip,
        skip_successful_steps=successful is True,
        everything=skip is None and not successful,
        inputs=require_names(configuration.get("parameters"), 'run_configuration["parameters"]'),
        step_input_overrides=step_inputs,
        problems=tuple(problems),
    )


def _unknown_key(key: str) -> Problem:
    close = difflib.get_close_matches(key, _CONFIGURATION, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return Problem(f'run_configuration["{key}"]', f"is not known; {hint}there are {', '.join(_CONFIGURATION)}")


def _are_selectors(selectors: object) -> bool:
    if isinstance(selectors, str):
        return True
    return isinstance(selectors, Sequence) and all(isinstance(one, str) for one in selectors)


def _listed(selectors: str | Sequence[str]) -> list[str]:
    if not _are_selectors(selectors):
        return []
    return [selectors] if isinstance(selectors, str) else list(selectors)


def _argument_like(name: str) -> str | None:
    contained = [argument for argument in _ARGUMENTS if argument in name]
    return next(iter(contained or difflib.get_close_matches(name, _ARGUMENTS, 1)), None)
