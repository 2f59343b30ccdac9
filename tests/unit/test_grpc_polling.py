"""How the planner and the stream process have gRPC poll."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SAY = "import os; print(os.environ.get('GRPC_EXPERIMENTS', ''))"
_SAY_WHEN_GRPC_IS_IMPORTED = f"""
import sys

class Finder:
    def find_spec(name, path, target):
        if name == "grpc":
            {_SAY}
            sys.exit()

sys.meta_path.insert(0, Finder)
"""


def _python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"} | variables
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )


@pytest.mark.parametrize(
    "entry", ["dalsegno_planner.__main__", "dalsegno_executor.__main__", "dalsegno_executor.attach"]
)
def test_processes_that_are_ours_choose_the_poller_before_they_import_grpc(entry: str) -> None:
    told = _python(f"{_SAY_WHEN_GRPC_IS_IMPORTED}\nfrom {entry} import main; main()")
    assert told.stdout.strip() == "-event_engine_client,-event_engine_listener"


def test_grpc_reads_what_is_chosen_when_it_is_imported_and_knows_it() -> None:
    unknown = "import grpc, os; os.environ.clear(); grpc.insecure_channel('unix:/nowhere').close()"
    assert "Unknown experiment: no_such" in _python(unknown, GRPC_EXPERIMENTS="no_such").stderr
    chosen = "from dalsegno.grpc_polling import import_grpc; import_grpc(); import sys; assert 'grpc' in sys.modules"
    assert _python(chosen).stderr == ""


def test_what_the_environment_says_wins() -> None:
    told = _python(
        f"{_SAY_WHEN_GRPC_IS_IMPORTED}\nfrom dalsegno.grpc_polling import import_grpc; import_grpc(); import grpc",
        GRPC_EXPERIMENTS="tcp_frame_size_tuning",
    )
    assert told.stdout.strip() == "tcp_frame_size_tuning"


@pytest.mark.parametrize("given", [{}, {"GRPC_EXPERIMENTS": "tcp_frame_size_tuning"}])
def test_processes_with_user_code_get_the_environment_as_it_was(given: dict[str, str]) -> None:
    told = _python(f"from dalsegno.grpc_polling import import_grpc; import_grpc(); {_SAY}", **given)
    assert told.stdout.strip() == given.get("GRPC_EXPERIMENTS", "")
