"""Locks on files, released by the kernel when their last holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class FileLock:
    """A held ``flock``.

    It belongs to the open file, not to the process: a child that inherits ``fd`` holds it too, and it is free
    once every holder closed it or ended. That is why closing is the only way to release it: an explicit
    unlock would take it from the others.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def acquire(cls, path: Path, *, shared: bool = False) -> Self:
        """Waits until the lock is free and takes it."""
        lock = cls._take(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        assert lock is not None
        return lock

    @classmethod
    def try_acquire(cls, path: Path, *, shared: bool = False) -> Self | None:
        """Takes the lock, or returns ``None`` where somebody holds it."""
        return cls._take(path, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)

    @classmethod
    def _take(cls, path: Path, operation: int) -> Self | None:
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            lock = cls(fd)
            try:
                fcntl.flock(fd, operation)
            except BlockingIOError:
                lock.close()
                return None
            except BaseException:
                lock.close()
                raise
            # Whoever waited while the folder was removed and made again holds a lock that nobody else can
            # see.
            if lock.is_of(path):
                return lock
            lock.close()

    def is_of(self, path: Path) -> bool:
        """Whether ``path`` still names the locked file."""
        try:
            return os.path.samestat(path.stat(), os.fstat(self.fd))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Gives up this holder's part in the lock; may be called again."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
