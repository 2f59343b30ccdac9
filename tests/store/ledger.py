"""A hand on the dispatch functions: executions are written directly, commits are made one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from dalsegno_planner.core.lanes import Lane
from dalsegno_planner.dispatch.composites import BodyCall, BodyEnd, Claim, TaskResult, TaskToken
from dalsegno_planner.dispatch.dispatcher import DISPATCH_SETTINGS
from dalsegno_planner.entropy import new_execution_id
from dalsegno_planner.store.pool import prepare_connection
from dalsegno_planner.store.sql import load

QUERIES = load("dispatch")
ROUTES = ["default/m:f", "default/m:s"]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LONG_LEASE = 3600.0
NOBODY = UUID(int=0)
WAITS_FOR_THIS = """
    SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))
"""
"""Whether anybody waits for a lock of this connection. `pg_stat_activity` is the same throughout a transaction."""


@dataclass(frozen=True)
class Held:
    """A task that was claimed."""

    execution_id: UUID
    number: int
    epoch: int
    session_id: UUID


@dataclass
class Committed:
    """What one commit returned."""

    durable: set[int]
    claimed: list[Held]
    rows: list[Any]
    resolved: list[Any]
    moved: list[UUID]
    requeued: bool
    promoting: bool


async def connect(dsn: str) -> asyncpg.Connection[Any]:
    """Connect as a commit loop does."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(dsn, server_settings=DISPATCH_SETTINGS)
    await prepare_connection(connection)
    return connection


@dataclass
class Ledger:
    """Writes executions and commits reports, as the commit loop does."""

    connection: asyncpg.Connection[Any]
    items: count[int] = field(default_factory=count)

    @classmethod
    async def open(cls, dsn: str) -> Ledger:
        """Connect, with the settings of dispatch."""
        return cls(await asyncpg.connect(dsn, server_settings=DISPATCH_SETTINGS))

    async def session(self, lease: float = LONG_LEASE, in_hand: Sequence[Held] = (), key: UUID | None = None) -> UUID:
        """Open a session that serves every route."""
        session_id = key or uuid4()
        tokens = [TaskToken(h.execution_id, h.number, h.epoch, h.session_id) for h in in_hand]
        await self.connection.fetchrow(QUERIES["open_session"], session_id, "worker", "default", ROUTES, lease, tokens)
        return session_id

    async def generation(self, session: UUID) -> int:
        """Return that of the session's latest stream; 0 where there is no session."""
        row = await self.connection.fetchrow("SELECT generation FROM sessions WHERE id = $1", session)
        return 0 if row is None else row["generation"]

    async def extend(self, sessions: Sequence[UUID], lease: float = LONG_LEASE) -> None:
        """Take signs of life of sessions."""
        generations = [await self.generation(session) for session in sessions]
        kept = await self.connection.fetch(QUERIES["extend_sessions"], sessions, generations, lease)
        assert len(kept) == len(sessions)

    async def pipeline(self, upstream: Mapping[int, Sequence[int]]) -> UUID:
        """Write a pipeline: the upstream numbers of each number."""
        execution_id = new_execution_id()
        await self._execution(execution_id, "pipeline", unfinished=len(upstream))
        await self.connection.executemany(
            """INSERT INTO invocations (execution_id, number, position, invocation_id, name, state, module, blocked_by,
                                        upstream)
               VALUES ($1, $2, $2, 's_' || $2::integer, 's', 'pending', 'm', $3, $4)""",
            [(execution_id, number, len(producers), list(producers)) for number, producers in upstream.items()],
        )
        await self.connection.executemany(
            "INSERT INTO edges VALUES ($1, $2, $3)",
            [(execution_id, producer, number) for number, producers in upstream.items() for producer in producers],
        )
        for number in [number for number, producers in upstream.items() if not producers]:
            await self._task(execution_id, number, is_body=False)
        return execution_id

    async def bulk(
        self, steps: int, rank: int = 0, execution_id: UUID | None = None, limit: tuple[str, int] | None = None
    ) -> UUID:
        """Write a pipeline of independent steps, quickly; with a limit of a name and a number."""
        execution_id = execution_id or new_execution_id()
        await self._execution(execution_id, "pipeline", unfinished=steps, rank=rank)
        await self.connection.execute(
            """INSERT INTO invocations (execution_id, number, position, invocation_id, name, state, module)
               SELECT $1, n, n, 's_' || n, 's', 'pending', 'm' FROM generate_series(1, $2::integer) n""",
            execution_id, steps,
        )  # fmt: skip
        await self.connection.execute(
            """INSERT INTO tasks (execution_id, number, is_body, route, lane, limited_by, at_most)
               SELECT $1, n, false, $3, $4, $5, $6 FROM generate_series(1, $2::integer) n""",
            execution_id, steps, ROUTES[1], rank, *(limit or ("", 0)),
        )  # fmt: skip
        return execution_id

    async def fan(self, consumers: int) -> UUID:
        """Write a pipeline of one step, number 1, and many that take its output."""
        execution_id = new_execution_id()
        await self._execution(execution_id, "pipeline", unfinished=consumers + 1)
        await self.connection.execute(
            """INSERT INTO invocations (execution_id, number, position, invocation_id, name, state, module, blocked_by,
                                        upstream)
               SELECT $1, n, n, 's_' || n, 's', 'pending', 'm', (n > 1)::integer,
                      CASE WHEN n > 1 THEN '{1}'::integer[] ELSE '{}' END
               FROM generate_series(1, $2::integer + 1) n""",
            execution_id, consumers,
        )  # fmt: skip
        await self.connection.execute(
            "INSERT INTO edges SELECT $1, 1, n FROM generate_series(2, $2::integer + 1) n", execution_id, consumers
        )
        await self._task(execution_id, 1, is_body=False)
        return execution_id

    async def promote(self) -> int | None:
        """Make ready a part of what follows from an end."""
        promoted: int | None = await self.connection.fetchval(QUERIES["promote"])
        return promoted

    async def mark_unreached(self) -> int | None:
        """Mark a part of what comes after failures."""
        row = await self.connection.fetchrow(QUERIES["mark_unreached"])
        assert row is not None
        marked: int | None = row["marked"]
        return marked

    async def flow(self) -> UUID:
        """Write a flow whose body is ready."""
        execution_id = new_execution_id()
        await self._execution(execution_id, "flow", unfinished=0)
        await self._task(execution_id, 0, is_body=True)
        return execution_id

    async def commit(
        self,
        *,
        results: Sequence[TaskResult] = (),
        calls: Sequence[BodyCall] = (),
        ends: Sequence[BodyEnd] = (),
        returned: Sequence[Held] = (),
        claims: Sequence[tuple[UUID, int, int]] = (),
        generation: int | None = None,
        lane: Lane = Lane.LIVE,
        last_turns: tuple[UUID, UUID] = (NOBODY, NOBODY),
    ) -> Committed:
        """Commit once. `claims` are (session, steps, bodies); of their latest streams, unless a generation is given."""
        row = await self.connection.fetchrow(
            QUERIES["commit"], results, calls, [], ends,
            [TaskToken(h.execution_id, h.number, h.epoch, h.session_id) for h in returned],
            [
                Claim(session, generation or await self.generation(session), steps, bodies, ROUTES, *lane.ranks,
                      *last_turns)
                for session, steps, bodies in claims
            ],
        )  # fmt: skip
        assert row is not None
        rows = sorted(row["claimed"] or [], key=lambda r: (r["execution_id"], r["number"]))
        held = [Held(r["execution_id"], r["number"], r["epoch"], r["session_id"]) for r in rows]
        return Committed(
            set(row["durable"]),
            held,
            rows,
            list(row["resolved"] or []),
            list(row["moved"] or []),
            row["requeued"],
            row["promoting"],
        )

    async def claim(self, session: UUID, steps: int = 100, bodies: int = 100, **how: Any) -> list[Held]:
        """Claim for one session."""
        return (await self.commit(claims=[(session, steps, bodies)], **how)).claimed

    def result(self, held: Held, outcome: str = "completed", delay: float = 0.0) -> TaskResult:
        """The row that reports the end of a step's task."""
        outputs = b"" if outcome == "completed" else None
        failure = None if outcome == "completed" else b"\x12\x04oops"
        return TaskResult(next(self.items), held.execution_id, held.number, held.epoch, held.session_id, outcome,
                          outputs, failure, "", NOON, NOON, delay, "worker")  # fmt: skip

    def call(
        self,
        body: Held,
        number: int,
        action: str = "completed",
        upstream: Sequence[int] = (),
        yields: Mapping[int, int] = {},
    ) -> BodyCall:
        """The row that reports a durable call; `yields` has the numbers of calls by place."""
        kind = "wait" if action == "wait" else "step"
        outputs = b"" if action == "completed" else None
        return BodyCall(next(self.items), body.execution_id, body.epoch, body.session_id, action, number, number, kind,
                        "s", f"s_{number}", "m", "", "", b"", list(upstream), [], [], b"", outputs, None, 1, NOON,
                        NOON, 0.0, False, "", "", "", None, list(yields), list(yields.values()))  # fmt: skip

    def end(
        self, body: Held, outcome: str = "returned", waits: Sequence[int] = (), yields: Mapping[int, int] = {}
    ) -> BodyEnd:
        """The row that reports the end of a body."""
        return BodyEnd(next(self.items), body.execution_id, body.epoch, body.session_id, outcome, b"", None, [],
                       list(waits), list(yields), list(yields.values()))  # fmt: skip

    async def state(self, execution_id: UUID) -> str:
        """The state of an execution."""
        return str(await self.connection.fetchval("SELECT state FROM executions WHERE id = $1", execution_id))

    async def states(self, execution_id: UUID) -> dict[int, str]:
        """The states of its invocations."""
        rows = await self.connection.fetch(
            "SELECT number, state FROM invocations WHERE execution_id = $1", execution_id
        )
        return {row["number"]: row["state"] for row in rows}

    async def events(self, execution_id: UUID) -> list[tuple[int, int, str]]:
        """Its events, as (event, number, state)."""
        rows = await self.connection.fetch(
            "SELECT event, number, state FROM events WHERE execution_id = $1 ORDER BY event", execution_id
        )
        return [(row["event"], row["number"], row["state"]) for row in rows]

    async def _execution(self, execution_id: UUID, kind: str, unfinished: int, rank: int = 0) -> None:
        await self.connection.execute(
            """INSERT INTO executions (id, project, name, flow, kind, state, module, unfinished, next_number, lane)
               VALUES ($1, 'default', $2, 'f', $3, 'pending', 'm', $4::integer, $4::integer + 1, $5)""",
            execution_id, str(execution_id), kind, unfinished, rank,
        )  # fmt: skip
        await self.connection.execute("INSERT INTO lineage VALUES ($1, 0, $1, 2147483647)", execution_id)

    async def _task(self, execution_id: UUID, number: int, *, is_body: bool) -> None:
        await self.connection.execute(
            "INSERT INTO tasks (execution_id, number, is_body, route) VALUES ($1, $2, $3, $4)",
            execution_id, number, is_body, ROUTES[0] if is_body else ROUTES[1],
        )  # fmt: skip
