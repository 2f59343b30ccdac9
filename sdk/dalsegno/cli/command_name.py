"""How this command is typed in the shell that it was started from."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

PROGRAM = "dalsegno"


def command_name() -> str:
    """Return ``dalsegno`` where the shell finds this command by that name, else the path to it."""
    own = Path(sys.argv[0])
    if own.name != PROGRAM or not own.is_file():
        return PROGRAM
    found = shutil.which(PROGRAM)
    if found is not None and Path(found).samefile(own):
        return PROGRAM
    return min(str(own.absolute()), os.path.relpath(own), key=len)
