"""What the checker finds where something is wrong; a run that finds nothing says something only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from dalsegno import Client
from dalsegno.payloads import inline_payload
from dalsegno.v1.value_pb2 import Binding, Inputs, Output, Outputs
from dalsegno.values import encode
from tests.chaos.checker import Checker
from tests.chaos.journal import Run
from tests.chaos.tables import Tables
from tests.e2e.oracle.steps import compute, digest_of
from tests.store.ledger import Ledger

INPUTS = {"salt": "s1", "parts": [1, 2]}
VALUE = compute("gather", "s1", {"parts": [1, 2]})


class Recorded:
    """A pipeline of one step that has completed, and how it was run."""

    def __init__(self, dsn: str, ledger: Ledger, execution: UUID) -> None:
        self.dsn, self.ledger, self.execution = dsn, ledger, execution
        self.run = Run(
            execution=str(execution), number=1, epoch=1, invocation_id="gather", attempt=1, salt="s1",
            inputs=digest_of(sorted(INPUTS.items())), started=1.0, executor=7, finished=2.0, output=digest_of(VALUE),
        )  # fmt: skip

    async def write(self, what: str, *values: object) -> None:
        """Change the step's row."""
        await self.ledger.connection.execute(
            f"UPDATE invocations SET {what} WHERE execution_id = $1", self.execution, *values
        )

    async def found(self, *runs: Run) -> list[str]:
        """Have it checked, with what the journal has."""
        return await asyncio.to_thread(check, self.dsn, runs)


@pytest.fixture
async def recorded(database: str) -> AsyncIterator[Recorded]:
    ledger = await Ledger.open(database)
    execution = await ledger.pipeline({1: []})
    session = await ledger.session()
    (held,) = await ledger.claim(session)
    await ledger.commit(results=[ledger.result(held)])
    made = Recorded(database, ledger, execution)
    inputs = Inputs(
        bindings={name: Binding(value=inline_payload(encode(value))) for name, value in INPUTS.items()}
    ).SerializeToString()
    await made.write("name = 'gather', invocation_id = 'gather', inputs = $2, outputs = $3", inputs, outputs(VALUE))
    yield made
    await ledger.connection.close()


def outputs(value: object) -> bytes:
    return Outputs(outputs=[Output(name="output", payload=inline_payload(encode(value)))]).SerializeToString()


def check(dsn: str, runs: Sequence[Run]) -> list[str]:
    with Tables(dsn) as tables, Client("127.0.0.1:1", "chaos") as nobody:
        return [one for found in Checker(nobody, tables, runs, []).check().found.values() for one in found]


async def test_nothing_is_found_where_nothing_is_wrong(recorded: Recorded) -> None:
    assert await recorded.found(recorded.run) == []
    cut_short = replace(recorded.run, epoch=9, finished=None, output=None)
    assert await recorded.found(cut_short, recorded.run) == []


async def test_a_value_that_does_not_come_from_the_inputs_is_found(recorded: Recorded) -> None:
    await recorded.write("outputs = $2", outputs("made up"))
    assert "does not come from its inputs" in " ".join(await recorded.found(recorded.run))


@pytest.mark.parametrize("other", [{"epoch": 2}, {"attempt": 2}, {"output": None}, {"execution": str(UUID(int=1))}])
async def test_a_result_of_another_run_than_its_token_names_is_found(recorded: Recorded, other: dict[str, Any]) -> None:
    """What ran after it was fenced, and was counted, has another token than the one that was accepted."""
    found = await recorded.found(replace(recorded.run, **other))
    assert "did not return this value" in " ".join(found)


async def test_a_run_with_other_inputs_than_are_recorded_is_found(recorded: Recorded) -> None:
    found = await recorded.found(replace(recorded.run, inputs="other"))
    assert "other inputs" in " ".join(found)


async def test_a_second_completion_is_found(recorded: Recorded) -> None:
    connection = recorded.ledger.connection
    await connection.execute("INSERT INTO events VALUES ($1, 9, 1, 'completed')", recorded.execution)
    found = " ".join(await recorded.found(recorded.run))
    assert "completed 2 times" in found
    assert "events" in found, "and that their numbers have a gap"


async def test_an_execution_that_ended_before_its_steps_or_waits_for_nothing_is_found(recorded: Recorded) -> None:
    await recorded.write("state = 'pending'")
    assert "is pending" in " ".join(await recorded.found(recorded.run))
    await recorded.ledger.connection.execute("UPDATE executions SET state = 'waiting'")
    assert "no question is open" in " ".join(await recorded.found(recorded.run))
