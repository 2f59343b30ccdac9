"""Who asks for what is created or answered, as it is kept with that."""

from __future__ import annotations

import getpass
import os
import socket


def who_asks() -> str:
    """Return the user and host that this process runs as."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # an account without a name, as in some containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
