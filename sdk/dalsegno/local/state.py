"""What a running engine says of itself in ``engine.json``."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from dalsegno.local.processes import ProcessIdentity


@dataclass(frozen=True, slots=True)
class EngineState:
    """Written when a planner serves, and again for each planner that takes the place of one that died.

    Attributes:
        supervisor: The process that ends when it is sent SIGTERM, and everything with it.
        planner: Its present planner.
        address: Where the planner serves, ``unix:/…``.
        database_url: Connection string of the embedded Postgres.
        version: The version of Dal Segno that the supervisor runs.
    """

    supervisor: ProcessIdentity
    planner: ProcessIdentity
    address: str
    database_url: str
    version: str

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Reads the file; ``None`` where there is none, or none that this version understands."""
        try:
            raw = json.loads(path.read_text())
            return cls(
                supervisor=ProcessIdentity(**raw["supervisor"]),
                planner=ProcessIdentity(**raw["planner"]),
                address=str(raw["address"]),
                database_url=str(raw["database_url"]),
                version=str(raw["version"]),
            )
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def write(self, path: Path) -> None:
        """Replaces the file as a whole."""
        staging = path.with_name(f".{path.name}.new")
        staging.touch(mode=0o600)
        staging.write_text(json.dumps(asdict(self), indent=2))
        staging.replace(path)


def installed_version() -> str:
    """The version of Dal Segno that this process runs."""
    try:
        return importlib.metadata.version("dalsegno")
    except importlib.metadata.PackageNotFoundError:
        return "0+uninstalled"
