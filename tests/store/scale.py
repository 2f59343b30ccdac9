"""A database with much in it, loaded in a moment, and what work on it reads: rows, pages, and in which way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg

from dalsegno.v1.value_pb2 import Output, Outputs
from dalsegno_planner.core import ids
from dalsegno_planner.core.ids import ExecutionId
from dalsegno_planner.entropy import new_execution_id
from dalsegno_planner.store.pool import prepare_connection
from tests.store.graphs import MODULE, PROJECT, RECORDED, Database, payload
from tests.store.ledger import ROUTES, Ledger

CHAIN = 100
"""How long the chains are, so how much a replay from the first link of one affects."""
MOST_QUEUED = 100_000
QUEUES = 100
"""In how many executions ready work is."""
LEAST_ENDED = 5_000
OLD = datetime(2025, 1, 1, tzinfo=UTC)
"""When what retention may delete has ended."""

BIG = ("executions", "invocations", "edges", "events", "lineage", "tasks", "waits", "attempts", "yields", "logs")
_OUTPUTS = Outputs(outputs=[Output(name="output", payload=payload(1))]).SerializeToString()

# The source, number 1, and chains that all start from it; an event for each.
_GRAPH = """
INSERT INTO executions (id, project, name, flow, kind, state, module, code_digest, next_number, invocation_count,
                        last_event, started_at, finished_at)
VALUES ($1, $2, 'large', 'large', 'pipeline', 'completed', $3, $4, $5::integer + 1, $5::integer, $5::integer + 1,
        now(), now())
"""
_LINKS = """
INSERT INTO invocations (execution_id, number, position, invocation_id, name, state, module, code_digest, attempt,
                         epoch, upstream, outputs, started_at, finished_at)
SELECT $1, n, n, 'link_' || n, CASE n WHEN 1 THEN 'load' ELSE 'link' END, 'completed', $2, $3, 1, 1,
       CASE WHEN n = 1 THEN '{}' WHEN (n - 2) % $6 = 0 THEN '{1}' ELSE ARRAY[n - 1] END, $4, now(), now()
FROM generate_series(1, $5::integer) n
"""
_EDGES = """
INSERT INTO edges (execution_id, upstream, downstream)
SELECT $1, CASE WHEN (n - 2) % $3 = 0 THEN 1 ELSE n - 1 END, n FROM generate_series(2, $2::integer) n ORDER BY 2, 3
"""
_EVENTS = """
INSERT INTO events (execution_id, event, number, state)
SELECT $1, n, n % ($2 + 1), 'completed' FROM generate_series(1, $2::integer + 1) n
"""
_QUEUED_EXECUTIONS = """
INSERT INTO executions (id, project, name, flow, kind, state, module, unfinished, next_number, lane)
SELECT id, $2, id::text, 'f', 'pipeline', 'running', 'm', $3::integer, $3::integer + 1, 0 FROM unnest($1::uuid[]) id
"""
_QUEUED_STEPS = """
INSERT INTO invocations (execution_id, number, position, invocation_id, name, state, module)
SELECT id, n, n, 's_' || n, 's', 'pending', 'm' FROM unnest($1::uuid[]) id, generate_series(1, $2::integer) n
"""
_QUEUED_TASKS = """
INSERT INTO tasks (execution_id, number, is_body, route)
SELECT id, n, false, $3 FROM unnest($1::uuid[]) id, generate_series(1, $2::integer) n
"""
_ENDED = """
INSERT INTO executions (id, project, name, flow, kind, state, module, finished_at)
SELECT id, $2, id::text, 'f', 'pipeline', 'completed', 'm', $3 FROM unnest($1::uuid[]) id
"""
# Of each of these a wait that was answered, an attempt that failed, and a future that was handed out.
_REST = """
WITH asked AS (
    INSERT INTO waits (execution_id, number, state, answered_at) SELECT id, 1, 'answered', $2 FROM unnest($1::uuid[]) id
), tried AS (
    INSERT INTO attempts (execution_id, number, attempt) SELECT id, 1, 1 FROM unnest($1::uuid[]) id
)
INSERT INTO yields (execution_id, place, number) SELECT id, 1, 1 FROM unnest($1::uuid[]) id
"""
# What one execution has written, much of it.
_LINES = """
INSERT INTO logs (execution_id, written_at, number, invocation_id, attempt, level, logger, text, left_out)
SELECT $1, $2::timestamptz + n * interval '1 second', n, 's_' || n, 1, 'info', 'print', 'said', 0
FROM generate_series(1, $3::integer) n
"""
# What is to happen some day, and not now: retries, waits and executions that may yet be answered and end.
_LATER = """
WITH running AS (
    INSERT INTO executions (id, project, name, flow, kind, state, module, deadline)
    SELECT id, $2, id::text, 'f', 'flow', 'waiting', 'm', '2199-01-01' FROM unnest($1::uuid[]) id
), asked AS (
    INSERT INTO waits (execution_id, number, deadline) SELECT id, 1, '2199-01-01' FROM unnest($1::uuid[]) id
)
INSERT INTO tasks (execution_id, number, is_body, route, available_at)
SELECT id, 2, false, $3, '2199-01-01' FROM unnest($1::uuid[]) id
"""
_LINEAGE = "INSERT INTO lineage SELECT id, 0, id, 2147483647 FROM unnest($1::uuid[]) id"

_COUNTERS = """
SELECT s.relname, s.seq_scan, s.seq_tup_read + coalesce(s.idx_tup_fetch, 0) AS rows,
       io.heap_blks_read + io.heap_blks_hit + coalesce(io.idx_blks_read + io.idx_blks_hit, 0) AS pages
FROM pg_stat_user_tables s JOIN pg_statio_user_tables io USING (relid) WHERE s.relname = ANY ($1)
"""
_EXPLAINED = {
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_level": "notice",
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is in the database.

    Attributes:
        dsn: Where it is.
        rows: Invocations of the large execution.
        large: That execution: a finished pipeline.
        queued: Executions with ready work.
        ready: Tasks that are ready, over all of these.
        ended: Executions that retention may delete.
    """

    dsn: str
    rows: int
    large: ExecutionId
    queued: list[ExecutionId]
    ready: int
    ended: list[ExecutionId]

    def first_link(self, chain: int) -> int:
        """The number of the invocation that only one chain depends on."""
        return 2 + chain * CHAIN

    @property
    def middle(self) -> int:
        """The first link of a whole chain in the middle."""
        return self.first_link((self.rows - 2) // CHAIN // 2)


@dataclass(slots=True)
class Cost:
    """What work has read.

    Attributes:
        rows: Of all tables.
        pages: Of all tables and their indexes, cached or not, as often as they were looked at.
        scanned: Tables that were gone through.
        plans: Of the statements, those within functions included; empty where the server has no `auto_explain`.
    """

    rows: int = 0
    pages: int = 0
    scanned: list[str] = field(default_factory=list)
    plans: list[Mapping[str, Any]] = field(default_factory=list)

    def assert_within(self, rows: int, pages: int) -> None:
        """No large table or index was gone through, and little was read."""
        assert not self.scanned, f"gone through: {self.scanned}\n{self._told}"
        for node in self.nodes():
            if node.get("Relation Name") in BIG:
                assert node["Node Type"] != "Seq Scan", node
        assert self.rows <= rows, f"{self.rows} rows were read, and {rows} may be\n{self._told}"
        assert self.pages <= pages, f"{self.pages} pages were looked at, and {pages} may be\n{self._told}"

    def nodes(self) -> Iterator[Mapping[str, Any]]:
        """The nodes of all plans."""
        for plan in self.plans:
            yield from _nodes(plan["Plan"])

    @property
    def _told(self) -> str:
        return "\n".join(f"{plan['Query Text'].strip()}\n{json.dumps(plan['Plan'], indent=1)}" for plan in self.plans)


async def load(dsn: str, rows: int) -> Loaded:
    """Load a database that has the schema and nothing else."""
    connection = await asyncpg.connect(dsn)
    try:
        # What is looked at is counted: nobody else may look.
        for table in BIG:
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        large, ready = new_execution_id(), min(rows, MOST_QUEUED)
        queued = [new_execution_id() for _ in range(QUEUES)]
        last = int(OLD.timestamp() * 1000)
        ended = [ids.execution_id(last - n * 1000, n) for n in range(max(LEAST_ENDED, rows // CHAIN))]
        await connection.execute(_GRAPH, large, PROJECT, MODULE, RECORDED, rows)
        await connection.execute(_LINKS, large, MODULE, RECORDED, _OUTPUTS, rows, CHAIN)
        await connection.execute(_EDGES, large, rows, CHAIN)
        await connection.execute(_EVENTS, large, rows)
        await connection.execute(_QUEUED_EXECUTIONS, queued, PROJECT, ready // QUEUES)
        await connection.execute(_QUEUED_STEPS, queued, ready // QUEUES)
        await connection.execute(_QUEUED_TASKS, queued, ready // QUEUES, ROUTES[1])
        await connection.execute(_ENDED, ended, PROJECT, OLD)
        await connection.execute(_REST, ended, OLD)
        await connection.execute(_LINES, queued[-1], OLD, rows)
        later = [new_execution_id() for _ in range(len(ended))]
        await connection.execute(_LATER, later, PROJECT, ROUTES[1])
        await connection.execute(_LINEAGE, [large, *queued, *ended, *later])
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
    return Loaded(dsn, rows, large, queued, ready, ended)


class Looks:
    """Counts what a connection reads.

    Args:
        connection: Does the work. Nobody else may work on the database meanwhile.
        plans: Filled with the plans of what it runs, where the server tells them.
    """

    def __init__(self, connection: Database, plans: list[Mapping[str, Any]]) -> None:
        self.connection = connection
        self._plans = plans

    @asynccontextmanager
    async def cost(self) -> AsyncIterator[Cost]:
        """What is done in the block is taken back in the end, and told."""
        cost = Cost()
        before = await self._counters()
        self._plans.clear()
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            yield cost
        finally:
            await transaction.rollback()
        after = await self._counters()
        cost.plans = [plan for plan in self._plans if "pg_stat" not in plan["Query Text"]]
        for table, now in after.items():
            cost.rows += now["rows"] - before[table]["rows"]
            cost.pages += now["pages"] - before[table]["pages"]
            if now["seq_scan"] > before[table]["seq_scan"]:
                cost.scanned.append(table)

    async def _counters(self) -> dict[str, asyncpg.Record]:
        await self.connection.execute("SELECT pg_stat_force_next_flush()")
        await self.connection.execute("SELECT pg_stat_clear_snapshot()")
        return {row["relname"]: row for row in await self.connection.fetch(_COUNTERS, BIG)}


@asynccontextmanager
async def looking(dsn: str, settings: Mapping[str, str] | None = None) -> AsyncIterator[Looks]:
    """Connect as the planner does, with these settings."""
    connection = await asyncpg.connect(dsn, server_settings={"jit": "off", **(settings or {})})
    plans: list[Mapping[str, Any]] = []
    try:
        await prepare_connection(connection)
        await _have_plans_told(connection, plans)
        yield Looks(connection, plans)
    finally:
        await connection.close()


async def _have_plans_told(connection: Database, plans: list[Mapping[str, Any]]) -> None:
    try:
        await connection.execute("LOAD 'auto_explain'")
    except asyncpg.UndefinedFileError:  # the embedded server comes without; then the counters tell
        return
    for name, value in _EXPLAINED.items():
        await connection.execute("SELECT set_config($1, $2, false)", name, value)

    def told(_: object, message: asyncpg.PostgresLogMessage) -> None:
        text = getattr(message, "message", "")
        start = text.find("{")
        if "plan:" in text and start >= 0:
            plans.append(json.loads(text[start:]))

    connection.add_log_listener(told)


def ledger_of(looks: Looks) -> Ledger:
    """A hand on the dispatch functions."""
    return Ledger(looks.connection)


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)
