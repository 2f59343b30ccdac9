"""The process of a planner. Settings come from the environment, see `dalsegno_planner.settings`.

Prints ``ready <address>`` on stdout once it serves and its database is there. Logs go to stderr.
Exit codes: 0 stopped, 2 the settings are wrong, 3 it cannot serve or cannot use its database.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import structlog
import uvloop

from dalsegno.errors import BackendError, UsageError
from dalsegno_planner.logs import configure_logs
from dalsegno_planner.server import Planner
from dalsegno_planner.settings import Settings, read_settings

EXIT_USAGE = 2
EXIT_BACKEND = 3

_COLLECT_AFTER = 50_000
"""Objects after which cycles are looked for. Rows and messages come by the thousand and have none: looking for them
after every few hundred took a third of an import's time."""

_log = structlog.get_logger("dalsegno.planner")


def run() -> int:
    """Run a planner until it is told to stop, and return its exit code."""
    try:
        settings = read_settings()
    except UsageError as error:
        print(f"dalsegno planner: {error}", file=sys.stderr)
        return EXIT_USAGE
    configure_logs(settings.log_level, settings.log_format)
    gc.set_threshold(_COLLECT_AFTER)
    try:
        uvloop.run(serve(settings))
    except BackendError as error:
        print(f"dalsegno planner: {error}", file=sys.stderr)
        return EXIT_BACKEND
    return 0


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        BackendError: It cannot serve where it was told to, cannot use its database, or is broken.
    """
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)
    planner = Planner(settings)
    stop = asyncio.create_task(told_to_stop.wait())
    broken = asyncio.create_task(planner.broken())
    try:
        await planner.start()
        connected = asyncio.create_task(planner.connect())
        await asyncio.wait([connected, stop], return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            await connected
            print(f"ready {planner.address}", flush=True)
            _log.info("ready", address=planner.address)
            await asyncio.wait([stop, broken], return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                raise BackendError(
                    "a part of the planner has ended with an error that was not foreseen; its log has the traceback. "
                    "Start it again: nothing is lost",
                    reason="PLANNER_BROKEN",
                )
        connected.cancel()
    finally:
        stop.cancel()
        broken.cancel()
        _log.info("stopping")
        await planner.stop()
