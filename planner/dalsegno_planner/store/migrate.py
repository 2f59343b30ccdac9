"""Brings a database to the schema of this planner: forward only, one transaction per file, one planner at a time.

Tables and types are made and changed by numbered migrations, each of which runs once. Functions hold no data: their
current text is in ``functions/*.sql``, and a file is run again whenever its text has changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

import asyncpg

from dalsegno.errors import BackendError

OLDEST_SERVER = 15
"""Major version of the oldest Postgres that the schema runs on."""

_LOCK_KEY = 0x64616C7365676E6F  # "dalsegno"; fits a signed bigint
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_CONNECT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.blake2b(self.sql.encode(), digest_size=16).hexdigest()


def shipped_migrations(folder: Traversable | None = None) -> tuple[Migration, ...]:
    """The migrations of this planner, in their order."""
    source = folder or resources.files("dalsegno_planner.store") / "migrations"
    found = sorted(entry.name for entry in source.iterdir() if _FILE_NAME.fullmatch(entry.name))
    return tuple(Migration(name, (source / name).read_text(encoding="utf-8")) for name in found)


def shipped_functions() -> tuple[Migration, ...]:
    """The SQL functions of this planner: files of ``CREATE OR REPLACE``, which run in this order, and may run again."""
    source = resources.files("dalsegno_planner.store") / "functions"
    found = sorted(entry.name for entry in source.iterdir() if entry.name.endswith(".sql"))
    return tuple(Migration(name, (source / name).read_text(encoding="utf-8")) for name in found)


async def migrate(
    dsn: str, migrations: Sequence[Migration] | None = None, functions: Sequence[Migration] | None = None
) -> None:
    """Apply what is missing.

    Args:
        dsn: The database.
        migrations: In their order; those of this planner where none are given.
        functions: Those of this planner where neither they nor migrations are given.

    Raises:
        BackendError: The server is too old, the schema is of a newer planner, or an applied file has been changed.
        OSError: The server cannot be reached.
        asyncpg.PostgresError: The server refused, or a migration failed and was rolled back.
    """
    if functions is None:
        functions = shipped_functions() if migrations is None else ()
    wanted = shipped_migrations() if migrations is None else tuple(migrations)
    connection = await asyncpg.connect(dsn, timeout=_CONNECT_TIMEOUT)
    try:
        check_server_version(connection.get_server_version().major)
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
        await _apply(connection, wanted)
        await _replace(connection, functions)
    finally:
        await connection.close()


def check_server_version(major: int) -> None:
    """Refuse a server that lacks what the schema uses.

    Raises:
        BackendError: With reason ``SERVER_TOO_OLD``.
    """
    if major < OLDEST_SERVER:
        raise BackendError(
            f"this is PostgreSQL {major}; version {OLDEST_SERVER} or later is needed: upgrade the server, or set "
            "DALSEGNO_DATABASE_URL to another one",
            reason="SERVER_TOO_OLD",
            fields={"version": str(major), "oldest": str(OLDEST_SERVER)},
        )


async def _apply(connection: asyncpg.Connection, wanted: Sequence[Migration]) -> None:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, digest text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    applied = {row["name"]: row["digest"] for row in await connection.fetch("SELECT * FROM schema_migrations")}
    _check_applied(applied, wanted)
    for migration in wanted:
        if migration.name not in applied:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (name, digest) VALUES ($1, $2)", migration.name, migration.digest
                )


async def _replace(connection: asyncpg.Connection, functions: Sequence[Migration]) -> None:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_functions (name text PRIMARY KEY, digest text NOT NULL,"
        " replaced_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    current = {row["name"]: row["digest"] for row in await connection.fetch("SELECT * FROM schema_functions")}
    for function in functions:
        if current.get(function.name) != function.digest:
            async with connection.transaction():
                await connection.execute(function.sql)
                await connection.execute(
                    "INSERT INTO schema_functions (name, digest) VALUES ($1, $2) ON CONFLICT (name)"
                    " DO UPDATE SET digest = excluded.digest, replaced_at = clock_timestamp()",
                    function.name,
                    function.digest,
                )


def _check_applied(applied: dict[str, str], wanted: Sequence[Migration]) -> None:
    known = {migration.name: migration.digest for migration in wanted}
    unknown = sorted(applied.keys() - known.keys())
    if unknown:
        raise BackendError(
            f"the database has the migration {unknown[-1]}, which this planner does not know: it was migrated by a "
            "newer planner; upgrade this one",
            reason="SCHEMA_TOO_NEW",
            fields={"migration": unknown[-1]},
        )
    changed = sorted(name for name, digest in applied.items() if known[name] != digest)
    if changed:
        raise BackendError(
            f"the migration {changed[0]} was applied with another content than this planner ships; migrations are "
            "never edited: restore the file, and put the change into a new one",
            reason="MIGRATION_CHANGED",
            fields={"migration": changed[0]},
        )
