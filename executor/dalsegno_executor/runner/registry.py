"""The code that a runner has, by kind, module and name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dalsegno.decorators import Decorated, Flow, Step
from dalsegno.v1.definition_pb2 import DefinitionRef


class Registry:
    """Finds flows and steps by what tasks call them.

    A process may have several versions of one name, as in a notebook whose cell was run again: a task that is pinned
    gets the version that it was pinned to.
    """

    def __init__(self) -> None:
        self._current: dict[tuple[str, str, str], Decorated[..., Any]] = {}
        self._versions: dict[tuple[str, str, str, str], Decorated[..., Any]] = {}

    def add(self, objects: Iterable[Decorated[..., Any]]) -> None:
        """Add code; of several that have one name, the last one is the current one."""
        for decorated in objects:
            key = decorated.kind, decorated.module, decorated.name
            self._current[key] = decorated
            self._versions[*key, decorated.digest] = decorated

    def step(self, ref: DefinitionRef) -> Step[..., Any] | None:
        """Return a step, if it is here; another version than a pinned one where that is not."""
        found = self._find(Step.kind, ref)
        return found if isinstance(found, Step) else None

    def flow(self, ref: DefinitionRef) -> Flow[..., Any] | None:
        """Return a flow, if it is here; another version than a pinned one where that is not."""
        found = self._find(Flow.kind, ref)
        return found if isinstance(found, Flow) else None

    def _find(self, kind: str, ref: DefinitionRef) -> Decorated[..., Any] | None:
        key = kind, ref.module, ref.name
        return self._versions.get((*key, ref.pinned_digest)) or self._current.get(key)
