"""The code of this process, as a planner is told of it: where the process runs it itself, and exactly this version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dalsegno.client.executions import Execution
from dalsegno.client.given_values import KnownTypes
from dalsegno.client.identity import execution_text
from dalsegno.decorators import Decorated, Step, decorated_objects
from dalsegno.definitions import definition_of, definition_ref
from dalsegno.local import join
from dalsegno.v1.definition_pb2 import DEFINITION_KIND_STEP, DefinitionRef
from dalsegno.v1.replay_service_pb2 import CodeVersion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dalsegno.client.reach import Reach
    from dalsegno.v1.definition_pb2 import Definition

_definitions: WeakKeyDictionary[Decorated[..., Any], Definition] = WeakKeyDictionary()

_ran: dict[str, tuple[str, str, str]] = {}
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class CodeHere:
    """What this process knows of the code of an execution.

    Attributes:
        types: The types of its inputs.
        code: The code, for the planner; None where it is not here, or where any executor may run it.
    """

    types: KnownTypes
    code: CodeVersion | None


def for_source(reach: Reach, exec_id: object, *, pin: bool) -> CodeHere:
    """Return what this process knows of the code of an execution that is replayed without naming its flow.

    Args:
        reach: The planner.
        exec_id: The execution.
        pin: Whether a replay follows, for which the process must be joined.
    """
    nothing = CodeHere(KnownTypes(None), None)
    candidates = [one for one in decorated_objects() if join.runs_here(reach.connection, one)]
    if not candidates:
        return nothing
    wanted = _definition_of(reach, exec_id)
    for candidate in reversed(candidates):
        if (candidate.kind, candidate.module, candidate.name) == wanted:
            return for_decorated(reach, candidate, pin=pin)
    return nothing


def pinned(reach: Reach, exec_id: object) -> list[DefinitionRef]:
    """Return the code of an execution that this process runs itself, and let it do so; nothing where it does not."""
    code = for_source(reach, exec_id, pin=True).code
    if code is None or not code.definition.pinned_digest:
        return []
    steps = [
        DefinitionRef(module=one.module, name=one.name, pinned_digest=one.digest)
        for one in code.definitions
        if one.kind == DEFINITION_KIND_STEP
    ]
    return [code.definition, *steps]


def _definition_of(reach: Reach, exec_id: object) -> tuple[str, str, str]:
    """Return kind, module and name of what an execution ran. They never change, so a full ID is asked about once."""
    text = execution_text(exec_id)
    if text not in _ran:
        source = exec_id if isinstance(exec_id, Execution) else reach.execution(text)
        if len(_ran) >= _MOST_REMEMBERED:
            _ran.clear()
        if text != source.exec_id:
            return source.kind, source.module, source.flow
        _ran[text] = source.kind, source.module, source.flow
    return _ran[text]


def for_decorated(reach: Reach, decorated: Decorated[..., Any], *, pin: bool = True) -> CodeHere:
    """Return what this process knows of the code of a flow or pipeline; that is all of it."""
    pinned = pin and joined(reach, decorated)
    code = CodeVersion(
        definition=definition_ref(decorated, pinned=pinned),
        code_digest=decorated.digest,
        definitions=definitions(_with_steps(decorated)),
    )
    return CodeHere(KnownTypes(decorated.function), code)


def _with_steps(decorated: Decorated[..., Any]) -> Iterable[Decorated[..., Any]]:
    """Return it and the steps of this process; of several that have one name, it itself or the current one."""
    steps = [one for one in decorated_objects() if isinstance(one, Step)]
    return {(one.kind, one.module, one.name): one for one in (*steps, decorated)}.values()


def joined(reach: Reach, decorated: Decorated[..., Any]) -> bool:
    """Return whether this process runs the code of a flow or pipeline itself, and let it do so."""
    if not join.runs_here(reach.connection, decorated):
        return False
    join.join(reach.connection)
    return True


def definitions(decorated: Iterable[Decorated[..., Any]]) -> list[Definition]:
    """Return the definitions of decorated objects, each made once."""
    found = []
    for one in decorated:
        if one not in _definitions:
            _definitions[one] = definition_of(one)
        found.append(_definitions[one])
    return found
