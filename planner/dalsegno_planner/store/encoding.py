"""Graphs as they are copied into their tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from uuid import UUID

from dalsegno_planner.store import copying
from dalsegno_planner.store.invocations import CompletedRow, EncodedGraph, GraphRows, InvocationRow, StepCode

_MOST_KNOWN = 1_024


def encoded(rows: GraphRows) -> EncodedGraph:
    """Encode the invocations of one execution, and their edges."""
    if not rows.invocations:
        return EncodedGraph(rows, b"", b"")
    execution = rows.invocations[0].execution_id
    whole, completed = _encoders(execution)
    invocations = [completed(row) if isinstance(row, CompletedRow) else whole(row) for row in rows.invocations]
    key = execution.bytes
    edges = [copying.edge(key, upstream, row.number) for row in rows.invocations for upstream in row.upstream]
    return EncodedGraph(rows, b"".join(invocations), b"".join(edges))


def _encoders(execution: UUID) -> tuple[Callable[[InvocationRow], bytes], Callable[[CompletedRow], bytes]]:
    start = copying.row_start(len(InvocationRow._fields), execution)

    def whole(row: InvocationRow) -> bytes:
        texts = (row.name, row.kind, row.state, row.module, row.pinned_digest, row.code_digest)
        return b"".join(
            (
                start,
                copying.integers(row.number, row.position),
                copying.text(row.invocation_id),
                _in_common(texts, row.attempt, row.blocked_by),
                copying.moments(row.started_at, row.finished_at),
                copying.integer_array(row.upstream),
                copying.integer_array(row.after),
                copying.text_array(row.reads_inputs),
                copying.binary(row.inputs),
                copying.binary(row.outputs),
                copying.binary(row.failure),
                copying.binary(row.options),
                copying.binary(None if row.original_call_id is None else row.original_call_id.bytes),
            )
        )

    def completed(row: CompletedRow) -> bytes:
        _, number, invocation_id, code, code_digest, started, finished, upstream, reads_inputs, inputs, outputs = row
        name = invocation_id.encode()
        return b"".join(
            (
                start,
                copying.integers_and_length(number, number, len(name)),
                name,
                _completed_in_common(code, code_digest),
                copying.moments(started, finished),
                copying.integer_array(upstream),
                copying.NO_INTEGERS,
                copying.text_array(reads_inputs),
                copying.length(len(inputs)),
                inputs,
                copying.binary(outputs),
                _NOTHING_ELSE,
            )
        )

    return whole, completed


_NOTHING_ELSE = copying.binary(None) + copying.binary(b"") + copying.binary(None)
"""No failure, no options, no original call."""


@lru_cache(_MOST_KNOWN)
def _in_common(texts: tuple[str, ...], attempt: int, blocked_by: int) -> bytes:
    """Encode what calls of a step have in common: from the name to how many it waits for."""
    return b"".join(map(copying.text, texts)) + copying.integers(attempt, blocked_by)


@lru_cache(_MOST_KNOWN)
def _completed_in_common(code: StepCode, code_digest: str) -> bytes:
    return _in_common((code.name, "step", "completed", code.module, code.pinned_digest, code_digest), 1, 0)
