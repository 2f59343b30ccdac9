"""What a flow gives that reuses calls though flow inputs that they depend on are overridden: SEMANTICS §5 by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.e2e.oracle.plain import Overrides, PlainCall, PlainCalls, PlainRun, run_flow
from tests.e2e.oracle.programs import Description
from tests.e2e.oracle.scenarios import Replay


class Diverged(BaseException):
    """The body does not repeat what was recorded."""


class StaleCalls(PlainCalls):
    """Makes calls as a replay does, with what its source recorded.

    Args:
        replay: The replay, with ``on_stale="reuse"``.
        affected: What re-executes by plan.
    """

    def __init__(
        self, overrides: Overrides, source: PlainRun, replay: Replay, affected: set[str], roots: set[str]
    ) -> None:
        super().__init__(overrides, replay.circumstances)
        self._by_id = source.recorded
        self._by_position = {call.position: call for call in source.recorded.values()}
        self._asked = replay.asked
        self._affected = affected
        self._roots = roots
        self._fresh: set[str] = set()
        self.received_new = False

    def _execute(self, call: PlainCall) -> None:
        before = self._matched(call)
        differs = before is None or repr(dict(before.inputs)) != repr(dict(call.inputs))
        if before is None or call.invocation_id in self._affected or (differs and self.received_new):
            self._fresh.add(call.invocation_id)
            super()._execute(call)
            return
        if call.invocation_id in self._asked.overrides.checkpoints:
            self._fresh.add(call.invocation_id)
        call.value, call.state, call.error = before.value, before.state, before.error
        call.stale = differs

    def _matched(self, call: PlainCall) -> PlainCall | None:
        if self.received_new:
            return self._by_id.get(call.invocation_id)
        before = self._by_position.get(call.position)
        if before is None:
            if self._roots:
                raise Diverged("extra call")
            return None
        if (before.invocation_id, before.name, before.is_wait) != (call.invocation_id, call.name, call.is_wait):
            raise Diverged("another call")
        return before

    def _asks(self, call: PlainCall) -> None:
        self._matched(call)
        self._fresh.add(call.invocation_id)

    async def settle(self, future: PlainCall) -> None:
        await super().settle(future)
        if future.invocation_id in self._fresh:
            self.received_new = True

    def check_end(self) -> None:
        """Say whether the end of the body is one.

        Raises:
            Diverged: The body has made too few calls.
        """
        left = [one for one in self._by_id.values() if one.invocation_id not in self.made]
        if self.received_new or not left:
            return
        if any(not one.is_wait and one.invocation_id not in self._affected for one in left):
            raise Diverged("missing call")
        if self._roots and not self._roots & set(self.made):
            raise Diverged("root not reached")


def run_stale_flow(
    program: Description,
    inputs: Mapping[str, Any],
    source: PlainRun,
    replay: Replay,
    replays: Sequence[Replay],
    affected: set[str],
    roots: set[str],
) -> PlainRun:
    """Run the body of a flow on what its source recorded."""
    overrides = Overrides()
    for one in replays:
        overrides = overrides.and_then(one.asked.overrides)
    calls = StaleCalls(overrides, source, replay, affected, roots)
    try:
        run = run_flow(program, inputs, overrides, calls=calls)
        if run.error is None:
            calls.check_end()
    except Diverged as diverged:
        run = PlainRun(calls.made, diverged=str(diverged))
    return run
