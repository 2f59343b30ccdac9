"""The protocol of executors, by workers that lie, sleep through their lease, repeat themselves and vanish."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from dalsegno.v1 import execution_pb2, executor_service_pb2
from dalsegno.v1.executor_service_pb2 import ACK_STATUS_DURABLE, ACK_STATUS_FENCED
from dalsegno.v1.value_pb2 import Binding, OutputRef
from dalsegno_planner.store.pool import Connection
from tests.rpc.scripted_worker import ScriptedWorker, scripted_worker, time_out
from tests.rpc.serving import Serving, flow_header, pipeline_header, serving, step, told

COMPLETED = execution_pb2.EXECUTION_STATE_COMPLETED


def _output_of(number: int) -> Binding:
    return Binding(output=OutputRef(number=number, output="output"))


async def _works(planner: Serving, count: int) -> execution_pb2.Execution:
    names = ["work", *(f"work_{number}" for number in range(2, count + 1))]
    return await planner.start(pipeline_header(), [step(name) for name in names])


async def test_the_first_message_has_to_be_hello(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        worker.credit(1)
        error = told(await worker.next("end"))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NO_HELLO")


async def test_another_version_of_the_protocol_is_refused_by_name(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        worker.send(hello=executor_service_pb2.Hello(session_key=worker.key, protocol_version=2))
        error = told(await worker.next("end"))
    assert error.reason == "PROTOCOL_VERSION"
    assert "version 2" in error.message


async def test_the_planner_sets_the_timings_and_says_where_values_go(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        welcome = await worker.hello()
    assert welcome.lease_duration.ToSeconds() == planner.settings.lease_duration
    assert welcome.object_store_url == planner.settings.object_store
    assert welcome.inline_limit == 65_536


async def test_no_more_tasks_than_credit(planner: Serving) -> None:
    await _works(planner, 5)
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=2, bodies=9)
        tasks = (await worker.next("tasks")).tasks
        assert len(tasks) == 2
        worker.credit(steps=1)
        assert len((await worker.next("tasks")).tasks) == 1
        assert worker.count("tasks") == 0


async def test_credit_that_comes_with_reports_is_for_what_they_make_ready(planner: Serving) -> None:
    await planner.start(pipeline_header(), [step("work"), step("work_2", after=[1])])
    async with scripted_worker(planner.channel) as worker:
        assert (await worker.hello()).credit_with_reports
        worker.credit(steps=1)
        first = await worker.task()
        completed = executor_service_pb2.StepCompleted()
        report = executor_service_pb2.Report(report_id=1, token=first.token, completed=completed)
        credit = executor_service_pb2.Credit(steps=1)
        worker.send(reports=executor_service_pb2.Reports(reports=[report], credit=credit))
        assert (await worker.task()).step.invocation_id == "work_2"


async def test_credit_can_be_instead_of_what_was_offered_before(planner: Serving) -> None:
    await planner.start(pipeline_header(), [step("work")])
    async with scripted_worker(planner.channel) as worker:
        assert (await worker.hello()).credit_instead
        worker.credit(steps=9)
        task = await worker.task()
        worker.send(credit=executor_service_pb2.Credit(steps=2, instead=True))
        worker.credit(steps=1)
        await worker.ack(worker.complete(task))
        await planner.start(pipeline_header(), [step(f"work_{number}") for number in range(9)])
        assert len((await worker.next("tasks")).tasks) == 3


async def test_live_work_goes_first_and_has_credit_of_its_own(planner: Serving) -> None:
    for lane in (execution_pb2.LANE_BULK, execution_pb2.LANE_LIVE):
        await planner.start(pipeline_header(lane=lane), [step("work"), step("work_2")])
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.send(credit=executor_service_pb2.Credit(live_steps=1))
        reserved = await worker.task()
        assert (reserved.lane, reserved.reserved) == (execution_pb2.LANE_LIVE, True)
        worker.credit(steps=1)
        free = await worker.task()
        assert (free.lane, free.reserved) == (execution_pb2.LANE_LIVE, False)
        worker.credit(steps=2)
        assert [task.lane for task in (await worker.next("tasks")).tasks] == [execution_pb2.LANE_BULK] * 2


async def test_a_priority_that_there_is_not_is_refused(planner: Serving) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await planner.start(flow_header(priority=101))
    assert told(caught.value).reason == "INVALID_PRIORITY"


async def test_a_large_graph_is_bulk_unless_it_says_otherwise(planner: Serving) -> None:
    graph = [step(f"work_{number}") for number in range(5_000)]
    for lane, expected in (
        (execution_pb2.LANE_UNSPECIFIED, execution_pb2.LANE_BULK),
        (execution_pb2.LANE_LIVE, execution_pb2.LANE_LIVE),
    ):
        await planner.start(pipeline_header(lane=lane), graph)
        async with scripted_worker(planner.channel) as worker:
            await worker.hello()
            worker.credit(steps=1)
            assert (await worker.task()).lane == expected


async def test_a_result_frees_the_next_step_and_carries_its_input(planner: Serving) -> None:
    execution = await planner.start(pipeline_header(), [step("work"), step("work_2", x=_output_of(1))])
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=2)
        first = await worker.task()
        worker.complete(first, b"41")
        second = await worker.task()
        assert second.step.invocation_id == "work_2"
        assert second.step.inputs.bindings["x"].output.number == 1
        assert second.step.upstream[0].outputs.outputs[0].payload.inline == b"41"
        ack = await worker.ack(worker.complete(second))
        assert ack.status == ACK_STATUS_DURABLE
    assert (await planner.get(execution.id)).state == COMPLETED


@pytest.mark.parametrize("takes_them", [True, False])
async def test_acks_come_with_the_tasks_that_they_free_where_the_executor_takes_them(
    planner: Serving, takes_them: bool
) -> None:
    await planner.start(pipeline_header(), [step("work"), step("work_2", x=_output_of(1))])
    async with scripted_worker(planner.channel) as worker:
        await worker.hello(acks_with_tasks=takes_them)
        worker.credit(steps=1)
        report = executor_service_pb2.Report(
            report_id=1, token=(await worker.task()).token, completed=executor_service_pb2.StepCompleted()
        )
        # With the slot that it frees, so that one commit records the report and claims what follows.
        credit = executor_service_pb2.Credit(steps=1)
        worker.send(reports=executor_service_pb2.Reports(reports=[report], credit=credit))
        tasks = await worker.next("tasks")
        acks = tasks.acks if takes_them else (await worker.next("acks")).acks
        assert [(ack.report_id, ack.status) for ack in acks] == [(1, ACK_STATUS_DURABLE)]
        assert [task.step.invocation_id for task in tasks.tasks] == ["work_2"]
        assert worker.count("acks") == 0


async def test_a_task_that_is_not_accepted_in_time_goes_to_another(database: str, tmp_path: Path) -> None:
    async with serving(database, tmp_path, accept_within=1.0, poll_interval=0.1) as planner:
        await _works(planner, 1)
        async with scripted_worker(planner.channel) as deaf, scripted_worker(planner.channel) as worker:
            await deaf.hello()
            deaf.credit(steps=1)
            ignored = (await deaf.next("tasks")).tasks[0]
            await worker.hello()
            worker.credit(steps=1)
            task = await worker.task()
            assert task.token.epoch == ignored.token.epoch + 1
            assert (await deaf.next("cancel")).tokens[0] == ignored.token
            assert (await deaf.ack(deaf.complete(ignored))).status == ACK_STATUS_FENCED
            assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE


async def test_who_sleeps_through_its_lease_is_fenced(
    database: str, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    async with serving(database, tmp_path, poll_interval=0.1) as planner:
        execution = await _works(planner, 1)
        async with scripted_worker(planner.channel) as sleeper, scripted_worker(planner.channel) as worker:
            await sleeper.hello()
            sleeper.credit(steps=1)
            slept_on = await sleeper.task()
            await time_out(connection, sleeper)
            await worker.hello()
            worker.credit(steps=1)
            task = await worker.task()
            late = await sleeper.ack(sleeper.complete(slept_on, b'"late"'))
            assert late.status == ACK_STATUS_FENCED
            assert "another executor" in late.reason
            assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_DURABLE
        assert (await planner.get(execution.id)).state == COMPLETED


async def test_a_repeated_report_is_durable_again(planner: Serving) -> None:
    await _works(planner, 1)
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        first = worker.complete(task)
        assert (await worker.ack(first)).status == ACK_STATUS_DURABLE
        again = worker.complete(task, b'"another value"')
        assert (await worker.ack(again)).status == ACK_STATUS_DURABLE


async def test_an_invented_token_changes_nothing(planner: Serving) -> None:
    execution = await _works(planner, 1)
    async with scripted_worker(planner.channel) as worker, scripted_worker(planner.channel) as liar:
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        await liar.hello()
        assert (await liar.ack(liar.complete(task))).status == ACK_STATUS_FENCED, "right token, wrong session"
        forged = executor_service_pb2.Task()
        forged.CopyFrom(task)
        forged.token.epoch += 1
        assert (await worker.ack(worker.complete(forged))).status == ACK_STATUS_FENCED
    assert (await planner.get(execution.id)).state == execution_pb2.EXECUTION_STATE_RUNNING


async def test_a_result_survives_reconnecting_to_another_planner(
    planner: Serving, database: str, tmp_path: Path
) -> None:
    execution = await _works(planner, 1)
    async with scripted_worker(planner.channel) as worker, serving(database, tmp_path) as other:
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        worker.vanish()
        async with scripted_worker(other.channel, worker.key) as back:
            welcome = await back.hello(in_hand=[task.token])
            assert not welcome.lost
            assert (await back.ack(back.complete(task))).status == ACK_STATUS_DURABLE
        assert (await other.get(execution.id)).state == COMPLETED


async def test_a_task_that_the_executor_does_not_hold_when_it_comes_back_is_given_again(planner: Serving) -> None:
    await _works(planner, 1)
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        worker.vanish()
        async with scripted_worker(planner.channel, worker.key) as back:
            await back.hello()
            back.credit(steps=1)
            assert (await back.task()).token.epoch == task.token.epoch + 1


async def test_a_newer_stream_of_an_executor_ends_the_older_one(planner: Serving) -> None:
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        async with scripted_worker(planner.channel, worker.key) as newer:
            await newer.hello()
            await worker.next("end")
            await _works(planner, 1)
            newer.credit(steps=1)
            assert (await newer.task()).step.invocation_id == "work"


async def test_what_is_handed_back_goes_to_another_at_once(planner: Serving) -> None:
    await _works(planner, 1)
    async with scripted_worker(planner.channel) as leaving, scripted_worker(planner.channel) as worker:
        await leaving.hello()
        leaving.credit(steps=1)
        task = await leaving.task()
        await worker.hello()
        worker.credit(steps=1)
        leaving.send(returned=executor_service_pb2.Returned(tokens=[task.token]))
        await leaving.goodbye()
        assert (await worker.task()).token.epoch == task.token.epoch + 1


async def test_an_attempt_that_failed_is_tried_again_with_its_number(planner: Serving) -> None:
    await _works(planner, 1)
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=2)
        task = await worker.task()
        assert task.step.attempt == 1
        assert (await worker.ack(worker.retry(task, Duration(nanos=1000)))).status == ACK_STATUS_DURABLE
        again = await worker.task()
        assert again.step.attempt == 2
        worker.complete(again)


async def test_retries_come_when_they_are_due_and_not_at_the_next_poll(database: str, tmp_path: Path) -> None:
    never = {"poll_interval": 600.0, "heartbeat_interval": 600.0, "lease_duration": 1500.0}
    async with serving(database, tmp_path, **never) as planner, scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=2)
        await _works(planner, 2)
        first, second = [task for tasks in [await worker.next("tasks")] for task in tasks.tasks]
        worker.retry(second, Duration(nanos=200_000_000))  # also where another one is due before, or is reported after
        worker.retry(first, Duration(nanos=100_000_000))
        worker.credit(steps=2)
        again = [await worker.task() for _ in range(2)]
        assert [(task.token.number, task.step.attempt) for task in again] == [(1, 2), (2, 2)]


@pytest.mark.semantics("7", "Steps: retries with backoff")
async def test_a_retry_and_its_delay_outlive_the_planner(database: str, tmp_path: Path, connection: Connection) -> None:
    async with serving(database, tmp_path) as planner, scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        await _works(planner, 1)
        task = await worker.task()
        assert (await worker.ack(worker.retry(task, Duration(seconds=3600)))).status == ACK_STATUS_DURABLE
        await worker.goodbye()
    async with serving(database, tmp_path, poll_interval=0.05) as planner, scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        other = await _works(planner, 1)
        meanwhile = await worker.task()
        assert meanwhile.token.execution_id == UUID(other.id).bytes
        worker.complete(meanwhile)
        worker.credit(steps=1)
        left = await connection.fetchval("SELECT available_at - clock_timestamp() FROM tasks WHERE session_id IS NULL")
        assert 3500 < left.total_seconds() <= 3600
        await connection.execute("UPDATE tasks SET available_at = clock_timestamp()")
        again = await worker.task()
        assert (again.token.execution_id, again.step.attempt) == (task.token.execution_id, 2)


async def test_a_cancelled_execution_is_told_to_its_executors_and_fenced(planner: Serving) -> None:
    execution = await _works(planner, 1)
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        await planner.cancel(execution.id)
        assert (await worker.next("cancel")).tokens[0] == task.token
        assert (await worker.ack(worker.complete(task))).status == ACK_STATUS_FENCED
    assert (await planner.get(execution.id)).state == execution_pb2.EXECUTION_STATE_CANCELLED


async def test_a_report_that_cannot_be_recorded_fails_its_task_and_no_other(planner: Serving) -> None:
    good, bad = await _works(planner, 1), await _works(planner, 1)
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=2)
        arrived: list[executor_service_pb2.Task] = []
        while len(arrived) < 2:
            arrived += (await worker.next("tasks")).tasks
        of_good = next(task for task in arrived if task.token.execution_id == _bytes(good))
        of_bad = next(task for task in arrived if task.token.execution_id == _bytes(bad))
        poisoned = executor_service_pb2.StepCompleted(code_digest="no \0 in text")
        reports = executor_service_pb2.Reports(
            reports=[
                executor_service_pb2.Report(report_id=1, token=of_bad.token, completed=poisoned),
                executor_service_pb2.Report(
                    report_id=2, token=of_good.token, completed=executor_service_pb2.StepCompleted()
                ),
            ]
        )
        worker.send(reports=reports)
        assert (await worker.ack(2)).status == ACK_STATUS_DURABLE
    assert (await planner.get(good.id)).state == COMPLETED
    failed = await planner.get(bad.id)
    assert failed.failure.origin == execution_pb2.FAILURE_ORIGIN_BACKEND


async def test_a_report_outlives_the_troubles_of_the_database(
    planner: Serving, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    execution = await _works(planner, 1)
    await connection.execute(_FULL_DISK)
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(steps=1)
        task = await worker.task()
        report = worker.complete(task)
        while await connection.fetchval("SELECT last_value FROM tries") < 3:
            pass  # a sequence counts on though the commit fails
        assert worker.count("acks") == 0
        await connection.execute("DROP TRIGGER full_disk ON invocations")
        await worker.next("end")
        async with scripted_worker(planner.channel, worker.key) as back:
            await back.hello(in_hand=[task.token])
            assert (await back.ack(back.complete(task, report_id=report))).status == ACK_STATUS_DURABLE
    assert (await planner.get(execution.id)).state == COMPLETED


_FULL_DISK = """
    CREATE SEQUENCE tries;
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM nextval('tries');
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END $$;
    CREATE TRIGGER full_disk BEFORE UPDATE ON invocations FOR EACH ROW EXECUTE FUNCTION full_disk();
"""


async def test_a_body_gets_back_what_it_recorded_when_it_is_recovered(planner: Serving) -> None:
    execution = await planner.start(flow_header())
    async with scripted_worker(planner.channel) as worker:
        await worker.hello()
        worker.credit(bodies=1)
        body = await worker.task()
        call = executor_service_pb2.Call(number=1, position=1, name="work", invocation_id="work")
        call.kind = execution_pb2.INVOCATION_KIND_STEP
        call.definition.module, call.definition.name = "training", "work"
        call.completed.outputs.outputs.add(name="output").payload.inline = b"7"
        assert (await worker.ack(worker.report(body.token, call=call))).status == ACK_STATUS_DURABLE
        worker.send(returned=executor_service_pb2.Returned(tokens=[body.token]))
        worker.credit(bodies=1)
        recovered = await worker.task()
        (recorded,) = recovered.body.recorded.calls
        assert (recorded.invocation_id, recorded.own, recorded.action) == (
            "work", True, executor_service_pb2.RECORDED_CALL_ACTION_REUSE,
        )  # fmt: skip
        assert recorded.outputs.outputs[0].payload.inline == b"7"
        returned = executor_service_pb2.BodyReturned()
        returned.result.inline = b"7"
        assert (await worker.ack(worker.report(recovered.token, returned=returned))).status == ACK_STATUS_DURABLE
    finished = await planner.get(execution.id)
    assert (finished.state, finished.result.inline) == (COMPLETED, b"7")


async def test_an_outcome_reaches_a_body_on_another_planner(planner: Serving, database: str, tmp_path: Path) -> None:
    await planner.start(flow_header())
    async with serving(database, tmp_path) as other, scripted_worker(planner.channel) as host:
        await host.hello()
        host.credit(bodies=1)
        body = await host.task()
        async with scripted_worker(other.channel) as worker:
            await worker.hello()
            worker.credit(steps=1)
            _submit(host, body)
            await worker.ack(worker.complete(await worker.task(), b"5"))
        (resolved,) = (await host.next("resolved")).calls
        assert (resolved.number, resolved.outputs.outputs[0].payload.inline) == (1, b"5")


def _submit(worker: ScriptedWorker, body: executor_service_pb2.Task) -> None:
    call = executor_service_pb2.Call(number=1, position=1, name="work", invocation_id="work")
    call.definition.module, call.definition.name = "training", "work"
    call.submitted.SetInParent()
    worker.report(body.token, call=call)


def _bytes(execution: execution_pb2.Execution) -> bytes:
    return UUID(execution.id).bytes
