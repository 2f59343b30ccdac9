"""Where the two sequences of calls part: what is recorded, and what the body did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dalsegno.errors import Divergence, DivergenceKind, DivergentCall

if TYPE_CHECKING:
    from dalsegno.v1 import execution_pb2

_KIND_PREFIX = "DIVERGENCE_KIND_"
_DIGEST_SHOWN = 8


class Side(StrEnum):
    """To which of the sequences a line belongs."""

    BOTH = "both"
    RECORDED = "recorded"
    MADE = "made"
    AHEAD = "ahead"
    """Recorded after the divergence, where the body was stopped: whether it would have made the call is not known."""


_MARKS = {Side.BOTH: " ", Side.RECORDED: "-", Side.MADE: "+", Side.AHEAD: " "}


@dataclass(frozen=True, slots=True)
class DifferenceLine:
    """One call in the difference of two sequences.

    Attributes:
        call: As it is written, with the digests of its inputs; or that there is none.
        remark: What else there is to say of it.
    """

    side: Side
    position: int
    call: str
    remark: str = ""


def divergence_of(message: execution_pb2.Divergence) -> Divergence:
    """Return what a recorded divergence says."""
    from dalsegno.v1 import execution_pb2

    kind = execution_pb2.DivergenceKind.Name(message.kind).removeprefix(_KIND_PREFIX).lower()
    return Divergence(
        kind=DivergenceKind(kind) if kind in set(DivergenceKind) else DivergenceKind.GRAPH_CHANGED,
        position=message.position or None,
        expected=_call(message.expected) if message.HasField("expected") else None,
        actual=_call(message.actual) if message.HasField("actual") else None,
        inputs=tuple(message.inputs),
        before=tuple(map(_call, message.before)),
        following=tuple(map(_call, message.following)),
    )


def difference(divergence: Divergence) -> Iterator[DifferenceLine]:
    """Yield the calls around a divergence, in their order; none where it is not about a call."""
    position, expected, actual = divergence.position, divergence.expected, divergence.actual
    if position is None:
        return
    for place, call in enumerate(divergence.before, start=position - len(divergence.before)):
        yield DifferenceLine(Side.BOTH, place, _written(call))
    if expected is None:
        yield DifferenceLine(Side.RECORDED, position, "(nothing is recorded here)")
    else:
        yield DifferenceLine(Side.RECORDED, expected.position or position, _written(expected, _changed(divergence)))
    if actual is None:
        yield DifferenceLine(Side.MADE, position, "(the body ended)")
    else:
        moved = actual.position is not None and actual.position != position
        remark = f"recorded as call {actual.position}" if moved else ""
        yield DifferenceLine(Side.MADE, position, _written(actual, _changed(divergence)), remark)
    after = Side.RECORDED if actual is None else Side.AHEAD
    for count, call in enumerate(divergence.following):
        remark = "recorded next" if after is Side.AHEAD and count == 0 else ""
        yield DifferenceLine(after, call.position or position, _written(call), remark)


def difference_text(divergence: Divergence) -> str:
    """Return the difference as lines of text; empty where there is none to show."""
    lines = list(difference(divergence))
    if not lines:
        return ""
    drawn = (
        f"{_MARKS[line.side]} {line.position:>4}  {line.call}{_in_brackets(line.remark)}".rstrip() for line in lines
    )
    return "\n".join(("Calls (- recorded, + made now):", *drawn))


def _call(message: execution_pb2.DivergentCall) -> DivergentCall:
    from dalsegno.v1 import execution_pb2

    return DivergentCall(
        invocation_id=message.invocation_id,
        name=message.name,
        is_wait=message.kind == execution_pb2.INVOCATION_KIND_WAIT,
        position=message.position or None,
        digests=dict(sorted(message.input_digests.items())),
    )


def _changed(divergence: Divergence) -> frozenset[str] | None:
    """Return the inputs that make the difference; None where it is not made by inputs."""
    return frozenset(divergence.inputs) if divergence.kind is DivergenceKind.INPUT_CHANGED else None


def _written(call: DivergentCall, only: frozenset[str] | None = None) -> str:
    if call.is_wait:
        return f"wait {call.invocation_id}"
    shown = [
        f"{name}={digest[:_DIGEST_SHOWN]}" for name, digest in call.digests.items() if only is None or name in only
    ]
    if len(shown) < len(call.digests):
        shown.append("…")
    return f"{call.invocation_id}({', '.join(shown)})" if shown else call.invocation_id


def _in_brackets(remark: str) -> str:
    return f"  ({remark})" if remark else ""
