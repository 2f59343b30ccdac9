"""Exit codes, and which error ends with which."""

from __future__ import annotations

from enum import IntEnum

from dalsegno.errors import BackendError, DalsegnoError, ExecutionError, WaitTimeoutError


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    EXECUTION_FAILED = 1
    USAGE = 2
    """The request was refused: wrong, ambiguous, of something unknown, or at a wrong moment."""
    BACKEND = 3
    """The planner, its database or the engine cannot be reached, or is at fault."""
    DEFECT = 70
    """None of these: a defect of Dal Segno, or of an extension; 70 is EX_SOFTWARE of sysexits."""
    INTERRUPTED = 130
    """Ctrl-C."""
    NOBODY_READS = 141
    """Who read standard output has ended, as in ``… | head``."""


class NobodyReadsError(Exception):
    """Who read standard output has ended. No `OSError`: the parser of the command line has its own way with those."""


def exit_code_of(error: DalsegnoError) -> ExitCode:
    """Return the exit code of an error."""
    if isinstance(error, ExecutionError | WaitTimeoutError):
        return ExitCode.EXECUTION_FAILED
    if isinstance(error, BackendError):
        return ExitCode.BACKEND
    return ExitCode.USAGE
