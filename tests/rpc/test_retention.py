"""A planner that is told for how long executions are kept lets go of the others, by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from dalsegno_planner.core import ids
from tests.rpc.serving import serving
from tests.store.ledger import Ledger

KEPT = 30.0


async def test_what_ended_long_ago_goes_where_a_planner_is_told_so(database: str, tmp_path: Path) -> None:
    ledger = await Ledger.open(database)
    ended = datetime.now(UTC) - timedelta(days=KEPT + 1)
    old = await ledger.bulk(1, execution_id=ids.execution_id(int(ended.timestamp() * 1000), 1))
    await ledger.connection.execute("DELETE FROM tasks")
    await ledger.connection.execute("UPDATE executions SET state = 'completed', finished_at = $1", ended)
    young = await ledger.bulk(1)
    async with serving(database, tmp_path, retention_days=KEPT):
        while await ledger.connection.fetchval("SELECT true FROM invocations WHERE execution_id = $1", old):
            pass
    assert [row["id"] for row in await ledger.connection.fetch("SELECT id FROM executions")] == [young]
    await ledger.connection.close()
