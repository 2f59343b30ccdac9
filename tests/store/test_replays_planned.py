"""What a replay's plan says: SEMANTICS §2 and §3, sentence by sentence."""

from __future__ import annotations

import pytest

from dalsegno.errors import StateError
from dalsegno_planner.core.ids import call_id
from dalsegno_planner.core.plan import Mode
from dalsegno_planner.store.replay_request import Given
from tests.store.graphs import Database, Recorded, finish, own_rows, payload, plan, record, replay, tasks
from tests.store.replay_requests import asking, chain, from_, skipping, usage_problems


async def test_a_plan_has_roots_affected_and_reused_with_their_call_ids(connection: Database) -> None:
    source = await chain(connection)
    found = await plan(connection, from_(source, "fit"))
    assert found.roots == {"fit": {"from"}}
    assert found.affected == ["fit", "test", "report"]
    assert found.reused == {"load": str(call_id(source.id, 1))}


async def test_an_order_edge_carries_no_output_but_affects(connection: Database) -> None:
    source = await chain(connection)
    assert (await plan(connection, from_(source, "test"))).affected == ["test", "report"]


async def test_equal_plans_have_equal_digests_and_others_have_others(connection: Database) -> None:
    source = await chain(connection)
    digests = [
        (await plan(connection, request)).digest
        for request in (
            from_(source, "fit"),
            from_(source, "invocation:fit"),
            from_(source, "test"),
            from_(source, "fit", inputs={"lr": payload(1)}),
            from_(source, "fit", inputs={"lr": payload(2)}),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


async def test_a_preview_creates_nothing(connection: Database) -> None:
    source = await chain(connection)
    await plan(connection, from_(source, "fit"))
    assert await connection.fetchval("SELECT count(*) FROM executions") == 1
    assert await connection.fetchval("SELECT count(*) FROM artifacts") == 0


async def test_several_selectors_name_several_roots(connection: Database) -> None:
    source = await chain(connection)
    found = await plan(connection, from_(source, "fit", f"call:{call_id(source.id, 4)}"))
    assert found.roots == {"fit": {"from"}, "report": {"from"}}


async def test_all_names_every_call_of_a_step(connection: Database) -> None:
    source = await record(connection, [Recorded("work"), Recorded("work_2", "work"), Recorded("other")])
    found = await plan(connection, from_(source, "all:work"))
    assert found.roots == {"work": {"from"}, "work_2": {"from"}}


async def test_a_flow_s_replay_starts_with_its_body_and_asks_every_wait_again(connection: Database) -> None:
    steps = [
        Recorded("research"),
        Recorded("approve", kind="wait", reads=()),
        Recorded("draft", takes=["research"]),
        Recorded("publish", takes=["draft"]),
    ]
    source = await record(connection, steps, kind="flow", inputs={"topic": "x"})
    found = await plan(connection, from_(source, "draft"))
    assert (found.affected, found.waits) == (["draft", "publish"], ["approve"])
    assert list(found.reused) == ["research"]
    made = await replay(connection, from_(source, "draft"))
    rows = await own_rows(connection, made)
    assert {one: (row["state"], row["kind"], row["called"]) for one, row in rows.items()} == {
        "approve": ("pending", "wait", False),
        "draft": ("pending", "step", False),
        "publish": ("pending", "step", False),
    }
    assert await tasks(connection, made) == {0: "default/m:training"}
    assert made.state == "pending"


async def test_calls_that_a_replayed_body_did_not_make_are_no_part_of_it(connection: Database) -> None:
    source = await chain(connection, kind="flow")
    first = await replay(connection, from_(source, "test"))
    await connection.execute(
        "UPDATE invocations SET state = 'not_reached' WHERE execution_id = $1 AND number = 4", first.id
    )
    await finish(connection, first)
    found = await plan(connection, from_(first, "load"))
    assert found.affected == ["load", "fit", "test"]
    with pytest.raises(StateError, match="refused"):
        await plan(connection, from_(first, "report"))


@pytest.mark.semantics("3", "only if it succeeded in the source", "largest upstream-closed set of steps that succeeded")
@pytest.mark.semantics("3", "each invocation that did not complete in the source and whose output is not overridden")
async def test_what_failed_and_was_overridden_did_not_succeed_in_any_replay_of_it(connection: Database) -> None:
    steps = [
        Recorded("a", state="failed"),
        Recorded("b", takes=["a"], state="not_reached"),
        Recorded("c", outputs=()),
        Recorded("d", takes=["c"]),
    ]
    source = await record(connection, steps, state="failed")
    overrides: dict[str, Given] = {"checkpoint.a": payload(1), "checkpoint.c": payload(2)}
    first = await replay(connection, asking(source, overrides=overrides))
    await finish(connection, first)
    second = await replay(connection, from_(first, "d"))
    await finish(connection, second)
    for made in (first, second):
        assert (await plan(connection, from_(made, "d"))).affected == ["d"], "an overridden output can be reused"
        assert "a cannot be skipped: it did not succeed" in await usage_problems(connection, skipping(made, "a", "b"))
        assert (await plan(connection, skipping(made, "c", "d"))).affected == ["a", "b"]
        found = await plan(connection, asking(made, mode=Mode.SKIP_SUCCESSFUL))
        assert found.roots == {"a": {"not_completed"}}
        assert found.affected == ["a", "b"]
