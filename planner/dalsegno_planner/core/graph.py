"""The graph of an execution: its invocations, and what each of them takes or comes after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dalsegno_planner.core.execution import InvocationKind
from dalsegno_planner.core.ids import InvocationId, Number


@dataclass(frozen=True, slots=True)
class Node:
    """One invocation, as far as planning looks at it.

    Attributes:
        takes: The invocations whose outputs its inputs take, also inside lists, tuples and dicts.
        after: The invocations that it was declared to come after, besides those.
        succeeded: Whether it completed, here or where it is reused from; an overridden output is no success.
        overridden: Whether its output is overridden in the execution already.
        reads_inputs: The flow inputs that its inputs name.
        code_digest: Of the code that ran; empty where it is not known.
    """

    number: Number
    invocation_id: InvocationId
    name: str
    kind: InvocationKind = InvocationKind.STEP
    takes: frozenset[Number] = frozenset()
    after: frozenset[Number] = frozenset()
    succeeded: bool = True
    overridden: bool = False
    reads_inputs: frozenset[str] = frozenset()
    module: str = ""
    code_digest: str = ""

    @property
    def upstream(self) -> frozenset[Number]:
        """The invocations that an edge leads from."""
        return self.takes | self.after

    @property
    def is_step(self) -> bool:
        """Whether it is the call of a step, and no wait."""
        return self.kind is InvocationKind.STEP


@dataclass(frozen=True, slots=True)
class Graph:
    """Invocations by their number."""

    nodes: Mapping[Number, Node]
    _downstream: Mapping[Number, list[Number]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        downstream: defaultdict[Number, list[Number]] = defaultdict(list)
        for node in self.nodes.values():
            for upstream in node.upstream:
                downstream[upstream].append(node.number)
        object.__setattr__(self, "_downstream", downstream)

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Graph:
        """The graph of these invocations."""
        return cls({node.number: node for node in nodes})

    @property
    def steps(self) -> Iterable[Node]:
        """The invocations that are calls of steps."""
        return (node for node in self.nodes.values() if node.is_step)

    def with_descendants(self, roots: Iterable[Number]) -> frozenset[Number]:
        """The roots and everything downstream of them, over every edge."""
        found = set(roots)
        waiting = list(found)
        while waiting:
            for number in self._downstream.get(waiting.pop(), ()):
                if number not in found:
                    found.add(number)
                    waiting.append(number)
        return frozenset(found)

    def consumers(self, number: Number) -> frozenset[Number]:
        """The invocations whose inputs take an output of this one."""
        found = self._downstream.get(number, ())
        return frozenset(one for one in found if number in self.nodes[one].takes)
