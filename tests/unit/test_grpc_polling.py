"""How the planner and the stream process have gRPC poll."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SAY = "import os; print(os.environ.get('GRPC_EXPERIMENTS'))"


def _python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"} | variables
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )


@pytest.mark.parametrize("entry", ["dalsegno_planner.__main__", "dalsegno_executor.worker", "dalsegno_executor.attach"])
def test_processes_that_are_ours_choose_the_poller_before_they_import_grpc(entry: str) -> None:
    code = f"""
import sys
sys.modules["grpc"] = None
try:
    import {entry}
except ImportError as error:
    assert "grpc" in str(error), error
{_SAY}
"""
    assert _python(code).stdout.strip() == "-event_engine_client,-event_engine_listener"


def test_grpc_knows_what_is_chosen() -> None:
    ended = _python("import dalsegno.grpc_polling, grpc; grpc.insecure_channel('unix:/nowhere').close()")
    assert ended.stderr == ""


def test_what_the_environment_says_wins() -> None:
    told = _python(f"import dalsegno.grpc_polling; {_SAY}", GRPC_EXPERIMENTS="tcp_frame_size_tuning")
    assert told.stdout.strip() == "tcp_frame_size_tuning"


@pytest.mark.parametrize("given", [{}, {"GRPC_EXPERIMENTS": "tcp_frame_size_tuning"}])
def test_processes_with_user_code_get_the_environment_as_it_was(given: dict[str, str]) -> None:
    code = "from dalsegno.grpc_polling import environment_of_others as f; print(f().get('GRPC_EXPERIMENTS', ''))"
    assert _python(code, **given).stdout.strip() == given.get("GRPC_EXPERIMENTS", "")
