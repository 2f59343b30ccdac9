"""The code that a runner has, by kind, module and name."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from dalsegno.decorators import Decorated, Flow, Step
from dalsegno.v1.definition_pb2 import DefinitionRef


class Registry:
    """Finds flows and steps by what tasks call them."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, str], Step[..., Any]] = {}
        self._flows: dict[tuple[str, str], Flow[..., Any]] = {}

    def add(self, objects: Iterable[Decorated[..., Any]]) -> None:
        """Add code; where two have one name, the one that the module has under its name."""
        for decorated in sorted(objects, key=_is_current):
            key = decorated.module, decorated.name
            if isinstance(decorated, Step):
                self._steps[key] = decorated
            elif isinstance(decorated, Flow):
                self._flows[key] = decorated

    def step(self, ref: DefinitionRef) -> Step[..., Any] | None:
        """Return a step, if it is here."""
        return self._steps.get((ref.module, ref.name))

    def flow(self, ref: DefinitionRef) -> Flow[..., Any] | None:
        """Return a flow, if it is here."""
        return self._flows.get((ref.module, ref.name))


def _is_current(decorated: Decorated[..., Any]) -> bool:
    module = sys.modules.get(decorated.function.__module__)
    return getattr(module, decorated.function.__name__, None) is decorated
