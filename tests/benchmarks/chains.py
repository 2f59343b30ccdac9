"""What a step costs in a chain, and a replay of its end."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks import budgets
from tests.benchmarks.engine import Isolation
from tests.benchmarks.figures import Figure, Unit
from tests.benchmarks.flows import chain_flow, chain_pipeline
from tests.benchmarks.samples import repeated
from tests.benchmarks.session import WAIT_S, Session

LENGTH = 100
LAST_STEP = f"invocation:increment_{LENGTH}"

_RUNS = 15
_REPLAYS = 40


def chains(session: Session) -> Iterator[Figure]:
    """From the request to the result, divided by the steps; and beside them what a run without steps costs."""
    for isolation in (Isolation.PROCESSES, Isolation.THREADS):
        budgeted = isolation is Isolation.PROCESSES
        where = f"in {isolation.plural}"
        with session.worker(isolation):
            flow = repeated(_RUNS, lambda: chain_flow.run(LENGTH).wait(timeout=WAIT_S))
            yield Figure(
                f"flow, chain of {LENGTH} {where}, per step",
                Unit.MILLISECONDS,
                flow.scaled(1 / LENGTH),
                budgets.FLOW_STEP,
            )
            pipeline = repeated(_RUNS, lambda: chain_pipeline(LENGTH))
            yield Figure(
                f"pipeline, chain of {LENGTH} {where}, per step",
                Unit.MILLISECONDS,
                pipeline.scaled(1 / LENGTH),
                budgets.PIPELINE_STEP,
            )
            if budgeted:
                bare = repeated(_RUNS, lambda: chain_flow.run(0).wait(timeout=WAIT_S))
                yield Figure("flow without steps, request to result", Unit.MILLISECONDS, bare)


def replays(session: Session) -> Iterator[Figure]:
    """A replay of a chain from its last step: request to result, then planning alone and a request alone."""
    with session.worker(Isolation.PROCESSES):
        sources = {
            "pipeline": chain_pipeline(LENGTH).exec_id,
            "flow": chain_flow.run(LENGTH).exec_id,
        }
        for kind, source in sources.items():
            session.client.executions.wait(source, timeout=WAIT_S)

            def replay(source: str = source) -> None:
                created = session.client.executions.replay(source, from_=LAST_STEP)
                session.client.executions.wait(created.exec_id, timeout=WAIT_S)

            replay()
            yield Figure(
                f"replay of the last of {LENGTH} in a {kind}, request to result",
                Unit.MILLISECONDS,
                repeated(_REPLAYS, replay),
                budgets.REPLAY_OF_LAST_STEP,
            )
        source = sources["pipeline"]
        plans = repeated(_REPLAYS, lambda: session.client.executions.plan(source, from_=LAST_STEP))
        yield Figure("of it, planning", Unit.MILLISECONDS, plans)
        asked = repeated(_REPLAYS, lambda: session.wire.round_trip(source))
        yield Figure("of it, one request and its answer", Unit.MILLISECONDS, asked)
