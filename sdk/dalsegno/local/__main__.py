"""``python -m dalsegno.local``: the process that the local engine is, and the upgrade of its data.

``run`` is what ``ensure_engine`` starts. It writes one word about its start to ``--ready-fd`` and closes it:
``ready <address>``, or ``error <why>``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from pathlib import Path

from dalsegno.errors import DalsegnoError
from dalsegno.local.databases import upgrade
from dalsegno.local.engine import idle_timeout
from dalsegno.local.home import EngineHome
from dalsegno.local.locks import FileLock
from dalsegno.local.supervisor import Supervisor

_log = logging.getLogger("dalsegno.local")


class _Starter:
    """Whoever started this process and waits for its word; it may have been killed meanwhile."""

    def __init__(self, ready_fd: int, start_lock_fd: int) -> None:
        self._ready_fd = ready_fd
        self._start_lock = FileLock(start_lock_fd)

    def tell(self, word: str) -> None:
        # The lock first: whoever is told may want to start or stop something at once.
        self._start_lock.close()
        if self._ready_fd < 0:
            return
        fd, self._ready_fd = self._ready_fd, -1
        try:
            os.write(fd, word.encode())
        except BrokenPipeError:
            _log.info("whoever started the engine has ended meanwhile")
        finally:
            os.close(fd)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m dalsegno.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the engine; started by whoever needs one")
    run.add_argument("--ready-fd", type=int, required=True)
    run.add_argument("--start-lock-fd", type=int, required=True)
    move = commands.add_parser("upgrade", help="take over the data of another major version of PostgreSQL")
    move.add_argument("--from-bin", type=Path, required=True, help="the folder of the old version's programs")
    options = parser.parse_args(arguments)
    if options.command == "run":
        return _run(_Starter(options.ready_fd, options.start_lock_fd))
    return _upgrade(options.from_bin)


def _run(starter: _Starter) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(process)d] %(message)s")
    assert threading.current_thread() is threading.main_thread()
    try:
        home = EngineHome.from_environment()
        supervisor = Supervisor(
            home, idle_timeout_s=idle_timeout(), announce=lambda address: starter.tell(f"ready {address}")
        )
        _log.info("starting the engine of %s", home.root)
        supervisor.run()
    except DalsegnoError as error:
        _log.error("%s", error)
        starter.tell(f"error {error}")
        return 1
    _log.info("the engine of %s has stopped", home.root)
    return 0


def _upgrade(old_bin_dir: Path) -> int:
    try:
        home = EngineHome.from_environment()
        home.create()
        target = upgrade(home, old_bin_dir)
    except DalsegnoError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"The data is in {target} now; the old folder beside it can be removed.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
