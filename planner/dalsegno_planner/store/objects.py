"""Values above the inline limit: content-addressed objects, which never change."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Iterable
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

import obstore
from obstore.exceptions import BaseError as ObstoreError
from obstore.store import LocalStore, ObjectStore, from_url

from dalsegno.errors import BackendError, NotFoundError, UsageError
from dalsegno.values import checksum

_ASKED_AT_ONCE = 32

_DATABASES = "databases"
_KEY = re.compile(r"blobs/[0-9a-f]{2}/[0-9a-f]{62}")


class Objects:
    """The objects behind a URL, opened at first use.

    Args:
        url: ``file:///…``, ``s3://…``, ``gs://…`` or ``az://…``; credentials come from the environment.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store: ObjectStore | None = None

    async def put(self, data: bytes) -> str:
        """Store content and return its key. Storing the same content again makes it new.

        Raises:
            BackendError: The store cannot be written.
        """
        key = key_of(data)
        try:
            await obstore.put_async(self._open(), key, data)
        except (ObstoreError, OSError) as error:
            raise self._failed("write", key, error) from error
        return key

    async def read(self, key: str, chunk_size: int) -> AsyncIterator[bytes]:
        """Yield the content of an object in chunks of at most this size.

        Raises:
            UsageError: The key is not one of an object.
            NotFoundError: There is no such object.
            BackendError: The store cannot be read.
        """
        check_key(key)
        try:
            result = await obstore.get_async(self._open(), key)
            async for part in result.stream(min_chunk_size=chunk_size):
                content = bytes(part)
                for start in range(0, len(content), chunk_size):
                    yield content[start : start + chunk_size]
        except FileNotFoundError as error:
            raise NotFoundError(
                f"the object {key} is not in the store {self.url}; it was deleted, or written to another store",
                reason="OBJECT_NOT_FOUND",
                fields={"object_key": key, "url": self.url},
            ) from error
        except (ObstoreError, OSError) as error:
            raise self._failed("read", key, error) from error

    async def missing(self, keys: Iterable[str]) -> frozenset[str]:
        """Return which of these objects are not there.

        Raises:
            BackendError: The store cannot be asked.
        """
        at_once = asyncio.Semaphore(_ASKED_AT_ONCE)

        async def is_missing(key: str) -> bool:
            async with at_once:
                return not await self._has(key)

        wanted = sorted(set(keys))
        found = await asyncio.gather(*map(is_missing, wanted))
        return frozenset(key for key, gone in zip(wanted, found, strict=True) if gone)

    async def register(self, database: UUID) -> None:
        """Note that a database has objects here.

        Raises:
            BackendError: The store cannot be written.
        """
        key = f"{_DATABASES}/{database}"
        try:
            await obstore.put_async(self._open(), key, b"")
        except (ObstoreError, OSError) as error:
            raise self._failed("write", key, error) from error

    async def databases(self) -> frozenset[str]:
        """Return the databases that have objects here, as they have said.

        Raises:
            BackendError: The store cannot be asked.
        """
        try:
            listed = await obstore.list_with_delimiter_async(self._open(), f"{_DATABASES}/")
        except (ObstoreError, OSError) as error:
            raise self._failed("list", _DATABASES, error) from error
        return frozenset(found["path"].rsplit("/", 1)[-1] for found in listed["objects"])

    async def remove(self, keys: Collection[str], before: datetime) -> frozenset[str]:
        """Remove objects that were written before a time, and return the others of them.

        Raises:
            BackendError: The store cannot be asked, or written.
        """
        return frozenset([key for key in keys if not await self._removed(key, before)])

    async def _removed(self, key: str, before: datetime) -> bool:
        try:
            found = await obstore.head_async(self._open(), key)
            if found["last_modified"] >= before:
                return False
            await obstore.delete_async(self._open(), key)
        except FileNotFoundError:
            return True
        except (ObstoreError, OSError) as error:
            raise self._failed("remove", key, error) from error
        return True

    async def _has(self, key: str) -> bool:
        try:
            await obstore.head_async(self._open(), key)
        except FileNotFoundError:
            return False
        except (ObstoreError, OSError) as error:
            raise self._failed("look for", key, error) from error
        return True

    def _open(self) -> ObjectStore:
        if self._store is None:
            parts = urlsplit(self.url)
            if parts.scheme == "file":
                self._store = LocalStore(Path(unquote(parts.path)), mkdir=True)
            else:
                self._store = from_url(self.url)
        return self._store

    def _failed(self, action: str, key: str, error: Exception) -> BackendError:
        return BackendError(
            f"cannot {action} {key} in the object store {self.url}: {error}",
            reason="OBJECT_STORE_FAILED",
            fields={"object_key": key, "url": self.url},
        )


def key_of(data: bytes) -> str:
    """Return the key of this content."""
    text = checksum(data).hex()
    return f"blobs/{text[:2]}/{text[2:]}"


def check_key(key: str) -> None:
    """Refuse a key that no content has, such as a path that leads out of the store.

    Raises:
        UsageError: With reason ``INVALID_OBJECT_KEY``.
    """
    if _KEY.fullmatch(key) is None:
        raise UsageError(
            f"{key!r} is not the key of an object; one is blobs/, two hexadecimal digits, /, and 62 more",
            reason="INVALID_OBJECT_KEY",
            fields={"object_key": key},
        )
