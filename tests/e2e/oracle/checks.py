"""Runs a scenario for real, and holds everything that can be seen of it against what has to come."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dalsegno import Client
from dalsegno.client.executions import Execution
from dalsegno.client.plans import Plan
from dalsegno.errors import ExecutionError
from tests.e2e.oracle.plain import Circumstances, PlainCall, PlainRun, leaves
from tests.e2e.oracle.programs import generated_async_flow, generated_flow, generated_pipeline
from tests.e2e.oracle.scenarios import INPUTS, Asked, Replay, Scenario, plan_request, planned, stale_calls
from tests.e2e.oracle.stale import run_stale_flow
from tests.e2e.oracle.steps import mended, ran
from tests.e2e.oracle.tables import Tables
from tests.unit.plan_oracle import expected_plan

TIMEOUT_S = 60


def same(found: object, expected: object) -> bool:
    return repr(found) == repr(expected)


def finished(client: Client, execution: object) -> Execution:
    return client.executions.wait(execution, TIMEOUT_S)


def went_on(client: Client, execution: object, circumstances: Circumstances) -> Execution:
    """Answer what an execution asks, until it has ended or is to be left waiting."""
    by = time.monotonic() + TIMEOUT_S
    while time.monotonic() < by:
        found = client.executions.get(execution)
        if found.status.finished:
            return found
        if found.status == "waiting":
            waits = list(found.waits)
            answered = [one for one in waits if one.status == "answered"]
            pending = [one for one in waits if one.status == "pending"]
            if circumstances.answered == len(answered):
                return found
            for one in pending:
                answer = circumstances.answer(one.invocation_id)
                client.executions.input(found, wait=one.invocation_id, value=answer)
        with suppress(TimeoutError):
            client.executions.wait(execution, 0.02)
    raise AssertionError(f"{client.executions.get(execution)!r} neither ends nor asks")


def shown(execution: Execution) -> list[object]:
    """Return everything that users are shown of an execution."""
    steps = [
        (one.invocation_id, one.status, one.call_id, one.stale_inputs, one.output_overridden, repr(values_of(one)))
        for one in execution.checkpoints
    ]
    waits = [(one.invocation_id, one.status, one.answer) for one in execution.waits]
    failure = None if execution.failure is None else (execution.failure.origin, execution.failure.message)
    return [execution.status, failure, repr(execution.result), execution.invocation_count, steps, waits]


def values_of(call: Any) -> list[Any]:
    return [one.load() for one in call.artifacts]


# Flows.


def check_flow(tables: Tables, scenario: Scenario) -> None:
    program, source, circumstances = scenario.program, scenario.source, scenario.circumstances
    flow = generated_async_flow if program.get("async") else generated_flow
    with Client() as client:
        ran.clear()
        execution = went_on(client, flow.run(program, x=INPUTS["x"]), circumstances)
        check_flow_end(execution, source)
        check_flow_outputs(execution, source, {one: call.state for one, call in source.steps.items()})
        assert Counter(ran) == Counter(one.salt for one in source.steps.values())
        for replay in scenario.replays:
            made = check_flow_replay(tables, client, scenario, execution, source, replay)
            if replay.expected is None:
                return
            if replay.source_after is not None:
                before = shown(client.executions.get(made))
                check_flow_goes_on(client, execution, source, replay)
                assert shown(client.executions.get(made)) == before, "a source that goes on has changed its replay"
            execution, source = made, replay.expected


def check_flow_replay(
    tables: Tables, client: Client, scenario: Scenario, execution: Execution, source: PlainRun, replay: Replay
) -> Execution:
    """Replay, and check what is planned, what runs, what comes of it and what is written."""
    asked = replay.asked
    tables.age(execution, asked.aged)
    plan = client.executions.plan(execution, **asked.keywords())
    check_plan(tables, plan, execution, asked)
    affected = {one.invocation_id for one in plan.affected}
    ran.clear()
    made = client.executions.replay(execution, expect_plan=plan.digest, **asked.keywords())
    made = went_on(client, made, replay.circumstances)
    expected, roots = replay.expected, {one.invocation_id for one in plan.roots}
    if expected is None:
        expected = run_stale_flow(scenario.program, INPUTS, source, replay, scenario.replays, affected, roots)
    check_flow_end(made, expected)
    executed = check_flow_counts(affected, source, expected, asked, Counter(ran))
    check_flow_outputs(
        made, expected, {k: one.state if k in executed else "reused" for k, one in expected.steps.items()}
    )
    if expected.diverged is None:
        new = affected | executed | set(asked.overrides.checkpoints)
        new |= {one for one, call in {**source.recorded, **expected.calls}.items() if call.is_wait}
        new |= {one for one, call in expected.steps.items() if call.stale}
        check_flow_rows(tables, made, source, expected, new)
    return made


def check_plan(tables: Tables, plan: Plan, execution: Execution, asked: Asked) -> None:
    """A flow's plan is that of the oracle of plans for the graph that was recorded."""
    steps = tables.recorded_steps(execution)
    expected = expected_plan(steps, plan_request(asked, is_flow=True))
    assert not expected.refused
    assert {one.invocation_id: {str(why.kind) for why in one.reasons} for one in plan.roots} == expected.roots
    assert {one.invocation_id for one in plan.affected} == expected.affected
    assert {one.invocation_id for one in plan.reused} == {one.id for one in steps} - expected.affected


def check_flow_goes_on(client: Client, execution: Execution, source: PlainRun, replay: Replay) -> None:
    """Answer or retry a source after it has been replayed: what it had stays, and the rest runs."""
    assert replay.source_after is not None
    after, mending = replay.source_after, replay.goes_on.mended
    ran.clear()
    with mended(mending):
        if mending:
            client.executions.retry(execution)
        ended = went_on(client, execution, replay.goes_on)
    check_flow_end(ended, after)
    # A failure after which the body made no call may have been caught or not: a retry repeats that call too.
    had = {call.salt for call in source.steps.values() if call.state == "completed"}
    counts = Counter(ran)
    assert not had & set(counts), "ran again, though it had ended"
    assert mending <= set(counts) <= {call.salt for call in after.steps.values()}
    assert all(times == 1 for times in counts.values())
    for one in ended.checkpoints:
        if one.invocation_id in after.steps and one.status != "not_reached":
            call = after.steps[one.invocation_id]
            assert call.error is not None or same(one.load(), call.received), one.invocation_id


def check_flow_rows(tables: Tables, replay: Execution, source: PlainRun, expected: PlainRun, new: set[str]) -> None:
    """Copy on write: a replay's rows are what it affects, deltas and tombstones, and no more."""
    rows = tables.own(replay)
    tables.check_edges(replay)
    if tables.lineage_length(replay) == 1:
        assert set(rows) >= set(expected.calls)
        return
    moved = {one for one, call in expected.calls.items() if call.position != position_of(source, one)}
    not_made = set(source.recorded) - set(expected.calls)
    if expected.waiting:
        assert set(rows) - not_made == (new | moved) - not_made
        return
    assert set(rows) == new | not_made | moved
    assert {one for one, row in rows.items() if row["state"] == "not_reached"} == not_made


def position_of(run: PlainRun, identity: str) -> int | None:
    return run.recorded[identity].position if identity in run.recorded else None


def check_flow_end(ended: Execution, expected: PlainRun) -> None:
    """The value or the failure is that of the full execution."""
    if expected.diverged is not None:
        assert ended.failure is not None, ended.status
        assert ended.failure.origin == "divergence", ended.failure
        return
    if expected.waiting:
        assert ended.status == "waiting", ended.failure
        return
    if expected.error is None:
        assert ended.status == "completed", ended.failure
        assert same(ended.result, expected.result)
        return
    assert ended.status == "failed"
    assert ended.failure is not None
    assert (ended.failure.origin, ended.failure.message) == ("user_code", str(expected.error)), ended.failure
    assert (ended.failure.exception_type or "").endswith(type(expected.error).__name__)


def check_flow_outputs(ended: Execution, expected: PlainRun, statuses: Mapping[str, str]) -> None:
    found = {one.invocation_id: one for one in ended.checkpoints}
    if not expected.waiting and expected.diverged is None:
        assert {k for k, one in found.items() if one.status != "not_reached"} == set(expected.steps)
    for identity, call in expected.steps.items():
        assert found[identity].status == statuses[identity], identity
        assert found[identity].stale_inputs == call.stale, identity
        if call.overridden or call.error is None:
            assert same(found[identity].load(), call.received), identity


def fresh_by_value(call: PlainCall, before: PlainCall | None, fresh: list[PlainCall], source: PlainRun) -> bool:
    """Whether a call takes, or took, or comes after what could be an output of a fresh call, now or then."""
    taken = [*leaves(call.inputs), *call.inputs.values(), *call.after_values, *leaves(list(call.after_values))]
    taken += [] if before is None else [*leaves(before.inputs), *before.inputs.values()]
    taken += parts_of(call.inputs) + ([] if before is None else parts_of(before.inputs))
    then = [source.recorded[one.invocation_id] for one in fresh if one.invocation_id in source.recorded]
    outputs = [value for one in (*fresh, *then) for value in (one.received, one.value) if value is not None]
    outputs += [part for value in outputs if isinstance(value, tuple) for part in value]
    return any(same(value, output) for value in taken for output in outputs)


def takes_for_sure(call: PlainCall, fresh: list[PlainCall]) -> bool:
    """Whether a call takes, or comes after, an output of a fresh call that can be nothing else."""
    outputs = {text for one in fresh for text in leaves([one.received]) if is_unique(text)}
    return any(is_unique(one) and one in outputs for one in leaves([dict(call.inputs), *call.after_values]))


def is_unique(value: object) -> bool:
    """Whether a value is the text of one output: those of steps and answers are long, others are not."""
    return isinstance(value, str) and len(value) >= 12


def parts_of(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    return [value, *(part for one in value for part in parts_of(one))] if isinstance(value, list | tuple) else [value]


def check_flow_counts(
    affected: set[str], source: PlainRun, expected: PlainRun, asked: Asked, counts: Counter[str]
) -> set[str]:
    """What is affected ran once, where it was reached; what else ran, SEMANTICS §5 lets run. Returns what ran."""
    assert not set(counts) - {one.salt for one in expected.steps.values()}, "ran, though the program does not call it"
    assert all(times == 1 for times in counts.values()), counts
    fresh: list[PlainCall] = []
    executed = set()
    for identity, call in expected.calls.items():
        before = source.recorded.get(identity)
        if call.is_wait:
            fresh.append(call)
            continue
        differs = before is None or (not call.stale and not same(before.inputs, call.inputs))
        must = identity in affected or differs or takes_for_sure(call, fresh)
        may = must or fresh_by_value(call, before, fresh, source)
        times = counts[call.salt]
        assert times <= may, f"{identity} re-executed, and nothing let it"
        assert times >= must, f"{identity} did not re-execute"
        # An override is something new in the replay that makes it, and in no later one.
        if times or identity in asked.overrides.checkpoints:
            fresh.append(call)
        if times:
            executed.add(identity)
    return executed


# Pipelines.


def check_pipeline_scenario(tables: Tables, scenario: Scenario) -> None:
    program, source = scenario.program, scenario.source
    with Client() as client:
        ran.clear()
        execution = finished(client, client.executions.start(generated_pipeline, program, x=INPUTS["x"]))
        affected = set(source.calls)
        check_pipeline(execution, source, affected)
        assert Counter(ran) == Counter(one.salt for one in source.calls.values() if one.state != "blocked")
        for replay in scenario.replays:
            affected_before, affected = affected, planned(source, replay.asked)
            made = check_pipeline_replay(tables, client, execution, source, affected, replay)
            assert replay.expected is not None
            if replay.source_after is not None:
                before = shown(client.executions.get(made))
                check_pipeline_retried(client, execution, source, affected_before, replay)
                assert shown(client.executions.get(made)) == before, "a retried source has changed its replay"
            execution, source = made, replay.expected


def check_pipeline_replay(
    tables: Tables, client: Client, execution: Execution, source: PlainRun, affected: set[str], replay: Replay
) -> Execution:
    """Replay, and check what is planned, what runs, what comes of it and what is written."""
    asked, expected = replay.asked, replay.expected
    assert expected is not None
    tables.age(execution, asked.aged)
    plan = client.executions.plan(execution, **asked.keywords())
    assert {one.invocation_id for one in plan.affected} == affected
    assert {one.invocation_id for one in plan.reused} == set(source.calls) - affected
    ran.clear()
    made = replayed_pipeline(client, execution, asked, from_code=replay.from_code)
    must = [one.salt for k, one in expected.calls.items() if k in affected and one.state != "blocked"]
    assert Counter(ran) == Counter(must)
    check_pipeline(made, expected, affected)
    tables.check_edges(made)
    stale = {k for k, call in stale_calls(source, asked, affected).items() if call.reads & set(asked.overrides.inputs)}
    if tables.lineage_length(made) > 1:
        assert set(tables.own(made)) == affected | set(asked.overrides.checkpoints) | stale
    return made


def check_pipeline_retried(
    client: Client, execution: Execution, source: PlainRun, affected: set[str], replay: Replay
) -> None:
    """Retry a source after it has been replayed: what failed and what never ran runs, and nothing else."""
    after = replay.source_after
    assert after is not None
    ran.clear()
    with mended(replay.goes_on.mended):
        client.executions.retry(execution)
        ended = finished(client, execution)
    again = {k for k in affected if source.calls[k].state != "completed"}
    must = [after.calls[k].salt for k in again if after.calls[k].state != "blocked"]
    assert Counter(ran) == Counter(must)
    check_pipeline(ended, after, affected)


def replayed_pipeline(client: Client, source: Execution, asked: Asked, *, from_code: bool) -> Execution:
    """Replay on the server, or from code where that can say the same."""
    on_server = asked.overrides.checkpoints or asked.mode in ("from", "overrides") or asked.reruns_changed
    if not from_code or on_server or (asked.overrides.inputs and asked.on_stale == "rerun"):
        return finished(client, client.executions.replay(source, **asked.keywords()))
    try:
        return generated_pipeline.replay(
            pipeline_run=source.exec_id,
            skip=asked.request.get("skip"),
            skip_successful_steps="skip_successful_steps" in asked.request,
            input_overrides=asked.overrides.inputs,
            step_input_overrides=asked.overrides.step_inputs,
        )
    except ExecutionError as error:
        if error.exec_id is None:
            raise
        return client.executions.get(error.exec_id)


def check_pipeline(ended: Execution, expected: PlainRun, affected: set[str]) -> None:
    """Every value is that of a full execution, and what failed stops what comes after, and nothing else."""
    found = {one.invocation_id: one for one in ended.checkpoints}
    assert set(found) == set(expected.calls)
    for identity, call in expected.calls.items():
        status = found[identity].status
        if identity not in affected:
            assert status == "reused", identity
        elif call.state == "blocked":
            assert status not in ("completed", "reused", "failed"), (identity, status)
        else:
            assert status == call.state, (identity, found[identity].failure)
        if call.overridden or call.state == "completed":
            assert same(found[identity].load(), call.received), identity
    well = all(call.state == "completed" for one, call in expected.calls.items() if one in affected)
    assert ended.status == ("completed" if well else "failed"), ended.failure
    if well and all(call.state == "completed" for call in expected.calls.values()):
        assert same(ended.result, expected.result)
