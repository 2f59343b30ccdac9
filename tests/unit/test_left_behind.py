"""What is said of executions whose code ends before they do."""

from __future__ import annotations

import pytest

from dalsegno.client.left_behind import said, waiting_for
from dalsegno.v1.definition_pb2 import DefinitionRef
from dalsegno.v1.execution_pb2 import Execution


def _execution(name: str, module: str = "report") -> Execution:
    return Execution(id=f"id of {name}", name=name, definition=DefinitionRef(module=module))


def test_who_has_not_waited_is_told_that_he_could_have() -> None:
    assert said([_execution("left")]) == (
        "left has not ended, and the process that ran the code does: it goes on where a worker has it "
        "(dalsegno worker report); .wait() would have waited"
    )


def test_the_code_of_a_script_itself_names_no_worker_and_few_are_named() -> None:
    assert said([_execution(name, "__main__") for name in "abcde"]) == (
        "a, b, c and 2 more have not ended, and the process that ran the code does: they go on where a worker has it; "
        ".wait() would have waited"
    )


def test_who_has_waited_until_ctrl_c_is_told_how_it_is_cancelled_and_not_to_wait() -> None:
    with pytest.raises(KeyboardInterrupt) as interrupted, waiting_for("id of stopped", "stopped"):
        raise KeyboardInterrupt
    assert interrupted.value.__notes__ == ["stopped is not cancelled by this: dalsegno executions cancel stopped"]
    assert said([_execution("stopped")]).endswith("it goes on where a worker has it (dalsegno worker report)")
