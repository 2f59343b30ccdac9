"""The server settings of the embedded Postgres: durable, and sized for a developer's machine of two cores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

_SETTINGS: Mapping[str, str] = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "64MB",
    "random_page_cost": "1.1",
    "jit": "off",  # compiling costs more than any of our queries
    "max_worker_processes": "4",
    "max_logical_replication_workers": "0",
    "max_parallel_workers_per_gather": "0",
    # Files in the data folder: /dev/shm is 64 MB in a container, and is swept when an ordinary user logs out.
    "dynamic_shared_memory_type": "mmap",
    # Durable commits stay durable. They are fast because nothing is logged for replicas that do not exist,
    # and because checkpoints, after which every first change of a page is logged whole, are rare.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_buffers": "16MB",
    "min_wal_size": "128MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "autovacuum_max_workers": "2",
    "autovacuum_naptime": "15s",  # the table of ready work is small and turns over all the time
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    # Recovery says how far it is this often, so that a long one can be told from one that is stuck.
    "log_startup_progress_interval": "1s",
}

_SETTINGS_SINCE: Mapping[int, Mapping[str, str]] = {
    18: {"io_method": "sync"},  # three processes fewer, for a database that fits the page cache
}

OWN_SETTINGS_FILE = "user.conf"
OWN_SETTINGS_TEXT = "# Your own server settings, read after those of postgresql.conf. A restart applies them.\n"


def cluster_name(data_dir: Path) -> str:
    """A name for the server of ``data_dir``, which each of its processes shows in its title."""
    return f"dalsegno-{hashlib.sha256(str(data_dir).encode()).hexdigest()[:16]}"


def render(*, major: int, data_dir: Path, socket_dir: Path, settings: Mapping[str, str]) -> str:
    """The text of ``postgresql.conf``; ``settings`` win over the defaults, the user's own file over both."""
    merged = dict(_SETTINGS)
    for since, added in _SETTINGS_SINCE.items():
        if major >= since:
            merged |= added
    merged |= settings
    # What the supervisor itself relies on cannot be changed.
    fixed = {
        "listen_addresses": "",
        "unix_socket_directories": f'"{socket_dir}"',
        "unix_socket_permissions": "0700",
        "cluster_name": cluster_name(data_dir),
        "logging_collector": "off",
    }
    return "\n".join(
        [
            f"# Written by Dal Segno at each start. Your own settings belong into {OWN_SETTINGS_FILE}.",
            *_lines(merged),
            f"include_if_exists = '{OWN_SETTINGS_FILE}'",
            *_lines(fixed),
            "",
        ]
    )


def _lines(settings: Mapping[str, str]) -> list[str]:
    return [f"{name} = '{_quoted(value)}'" for name, value in settings.items()]


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
