"""The recorded calls that travel with the task of a body."""

from __future__ import annotations

import pytest

from dalsegno.v1.value_pb2 import Output, Outputs, Payload
from dalsegno_planner.dispatch.recorded import recorded_calls
from tests.store.ledger import Ledger

LARGE = Outputs(outputs=[Output(name="output", payload=Payload(codec="bytes", inline=300_000 * b"x"))])


@pytest.mark.parametrize("expected", [7, 700], ids=["few", "many"])
async def test_they_come_in_pages_of_a_megabyte(ledger: Ledger, expected: int) -> None:
    """Whether they are read at once or, where many are expected, by and by."""
    execution_id = await ledger.flow()
    (body,) = await ledger.claim(await ledger.session())
    await ledger.commit(calls=[ledger.call(body, number) for number in range(1, 8)])
    await ledger.connection.execute("UPDATE invocations SET outputs = $1", LARGE.SerializeToString())
    pages = [page async for page in recorded_calls(ledger.connection, execution_id, expected)]
    assert [[call.number for call in page.calls] for page in pages] == [[1, 2, 3], [4, 5, 6], [7]]
    assert [page.more for page in pages] == [True, True, False]
    assert all(call.outputs == LARGE for page in pages for call in page.calls)
