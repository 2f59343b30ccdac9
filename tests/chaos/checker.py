"""Holds what is left of a run against what must be true whatever went wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dalsegno import Client
from dalsegno.client.executions import Execution
from dalsegno.v1.executor_service_pb2 import UpstreamOutputs
from dalsegno.v1.value_pb2 import FlowInputs, Inputs, Outputs
from dalsegno_executor.runner.environment import Environment
from dalsegno_executor.runner.resolve import Resolver
from tests.chaos import code
from tests.chaos.journal import Run
from tests.chaos.tables import Row, Tables
from tests.chaos.workload import Begun
from tests.e2e.oracle.checks import check_flow_counts, check_flow_end, check_flow_outputs, check_pipeline, same
from tests.e2e.oracle.steps import compute, digest_of

Token = tuple[str, int, int, int]
"""Execution, number, epoch and attempt."""


@dataclass
class Findings:
    """What is not as it must be, by execution; what is of none has an empty name."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, execution: object, what: str) -> None:
        self.found[str(execution or "")].append(what)


class Checker:
    """Checks one run.

    Args:
        client: Reads what users read.
        tables: Reads what is stored.
        runs: The journal.
        begun: What was started.
    """

    def __init__(self, client: Client, tables: Tables, runs: Sequence[Run], begun: Sequence[Begun]) -> None:
        self.findings = Findings()
        self._client = client
        self._tables = tables
        self._begun = begun
        self._results = tables.results()
        self._by_token: dict[Token, list[Run]] = defaultdict(list)
        self._by_execution: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            self._by_token[run.execution, run.number, run.epoch, run.attempt].append(run)
            self._by_execution[run.execution].append(run)
        self._accepted: dict[str, dict[str, str]] = defaultdict(dict)
        """Salts of the runs whose results were accepted, by execution and invocation ID."""

    def check(self) -> Findings:
        """Check everything, and return what is wrong."""
        self._nothing_is_left()
        for row in self._results:
            self._one_result(row)
        for begun in self._begun:
            self._what_had_to_come(begun)
        return self.findings

    @property
    def accepted(self) -> int:
        """How many results were accepted."""
        return len(self._results)

    # What is stored.

    def _nothing_is_left(self) -> None:
        for row in self._tables.in_limbo():
            state = row["invocation_state"]
            self.findings.add(row["execution"], f"has ended ({row['state']}), and {row['invocation_id']} is {state}")
        for row in self._tables.asleep():
            self.findings.add(row["execution"], "is waiting, and no question is open")
        for row in self._tables.uneven():
            self.findings.add(row["execution"], f"has {row['events']} events and counts {row['last_event']}")

    def _one_result(self, row: Row) -> None:
        """A result was accepted once, from the run that its token names, which got the inputs that are recorded."""
        execution, what = row["execution"], f"{row['invocation_id']} (number {row['number']}, epoch {row['epoch']})"
        if row["completions"] != 1:
            self.findings.add(execution, f"{what} was completed {row['completions']} times")
        inputs = _recorded_inputs(row)
        salt = str(inputs["salt"])
        value = compute(row["name"], salt, {name: one for name, one in inputs.items() if name != "salt"})
        if not same(_recorded_value(row), value):
            self.findings.add(execution, f"{what} is recorded with a value that does not come from its inputs")
        # Attempts are counted from the first run of the execution, over its retries.
        attempt = row["attempts_before"] + row["attempt"]
        runs = self._by_token.get((execution, row["number"], row["epoch"], attempt), [])
        counted = [run for run in runs if run.output == digest_of(value)]
        if not counted:
            self.findings.add(execution, f"{what}: the run that its token names did not return this value: {runs}")
        elif counted[0].inputs != digest_of(sorted(inputs.items())):
            self.findings.add(execution, f"{what} ran with other inputs than are recorded")
        self._accepted[execution][row["invocation_id"]] = salt

    # What had to come.

    def _what_had_to_come(self, begun: Begun) -> None:
        ended = self._client.executions.get(begun.exec_id)
        if not ended.status.finished or ended.status == "cancelled":
            return
        if begun.expected is None:
            self._holds(begun, lambda: _check_asking(ended, begun))
        elif begun.plan is None:
            self._holds(begun, lambda: self._check_first(ended, begun))
        else:
            self._holds(begun, lambda: self._check_replay(ended, begun))

    def _check_first(self, ended: Execution, begun: Begun) -> None:
        assert begun.expected is not None
        calls = begun.expected.calls
        if ended.kind == "flow":
            check_flow_end(ended, begun.expected)
            check_flow_outputs(ended, begun.expected, {one: call.state for one, call in begun.expected.steps.items()})
        else:
            check_pipeline(ended, begun.expected, set(calls))

    def _check_replay(self, ended: Execution, begun: Begun) -> None:
        """Nothing affected was reused, and nothing reused was run."""
        assert begun.expected is not None
        assert begun.source is not None
        assert begun.plan is not None
        assert begun.asked is not None
        calls = begun.expected.calls
        ran = Counter({run.salt for run in self._by_execution[begun.exec_id]})
        affected = {one.invocation_id for one in begun.plan.affected}
        if ended.kind == "pipeline":
            assert frozenset(affected) == begun.affected, "the plan is not the oracle's"
            check_pipeline(ended, begun.expected, affected)
            must = {one.salt for k, one in calls.items() if k in affected and one.state != "blocked"}
            assert set(ran) == must, f"ran {sorted(ran)}, and had to run {sorted(must)}"
            return
        check_flow_end(ended, begun.expected)
        executed = check_flow_counts(affected, begun.source, begun.expected, begun.asked, ran)
        statuses = {k: one.state if k in executed else "reused" for k, one in begun.expected.steps.items()}
        check_flow_outputs(ended, begun.expected, statuses)
        own = set(self._accepted[begun.exec_id])
        assert {k for k in executed if calls[k].state == "completed"} <= own, "what ran was not recorded here"

    def _holds(self, begun: Begun, check: Callable[[], None]) -> None:
        try:
            check()
        except AssertionError as error:
            self.findings.add(begun.exec_id, f"{type(error).__name__}: {error}; {_ended(self._client, begun)}")


def _check_asking(ended: Execution, begun: Begun) -> None:
    answers = [one.answer for one in ended.waits if one.status == "answered"]
    assert set(answers) <= set(begun.answers), f"{answers} were never given"
    if ended.status == "completed":
        assert len(answers) == 2, answers
        assert same(ended.result, code.asked_for(begun.salt, "x", answers)), ended.result
    else:
        raise AssertionError(f"it is {ended.status}: {ended.failure}")


def _ended(client: Client, begun: Begun) -> str:
    ended = client.executions.get(begun.exec_id)
    asked = f", {begun.asked.mode} {begun.asked.keywords()}" if begun.asked is not None else ""
    return f"{ended.kind} {ended.status}{asked}, failure {ended.failure}"


def _recorded_inputs(row: Row) -> Mapping[str, object]:
    upstream = [
        UpstreamOutputs(number=number, outputs=Outputs.FromString(outputs or b""))
        for number, outputs in zip(row["upstream"] or (), row["upstream_outputs"] or (), strict=True)
    ]
    resolver = Resolver(Environment(), upstream, FlowInputs.FromString(row["flow_inputs"]))
    inputs = resolver.arguments(Inputs.FromString(row["inputs"]))
    return {"second": None, **inputs} if row["name"] == "mix" else inputs


def _recorded_value(row: Row) -> object:
    values = [Environment().read(output.payload) for output in Outputs.FromString(row["outputs"]).outputs]
    return values[0] if len(values) == 1 else tuple(values)


def lines(findings: Findings, tables: Tables, runs: Sequence[Run], most: int = 10) -> Iterator[str]:
    """Yield what was found, with the history of each execution that it is about."""
    for execution, found in list(findings.found.items())[:most]:
        yield f"\n{execution or 'the run'}:"
        yield from (f"  - {one}" for one in found)
        if execution:
            yield tables.story(execution)
            its = sorted((run for run in runs if run.execution == execution), key=lambda run: run.started)
            yield "    journal:"
            yield from (f"      {run}" for run in its)
    if len(findings.found) > most:
        yield f"\n… and of {len(findings.found) - most} executions more"
