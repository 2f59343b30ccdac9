"""Where values above the inline limit are kept: content-addressed objects, which never change."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from dalsegno.errors import BackendError, NotFoundError, UsageError
from dalsegno.values import checksum

if TYPE_CHECKING:
    import obstore.store


class ObjectReader(Protocol):
    """Bytes by key."""

    def get(self, key: str) -> bytes:
        """Return the content, checked by its key.

        Raises:
            NotFoundError: If there is none.
            BackendError: If the store cannot be read, or the content is not what was stored.
        """
        ...


class ObjectStore(ObjectReader, Protocol):
    """Bytes by key, to be read and written.

    Putting a key that exists writes the same bytes again: what is written now is not removed with what had it before.
    """

    def put(self, key: str, data: bytes) -> None:
        """Store the content, whole or not at all.

        Raises:
            BackendError: If the store cannot be written.
        """
        ...


def object_key(checksum: bytes) -> str:
    """Return the key of the content with this BLAKE2b-256 checksum."""
    text = checksum.hex()
    return f"blobs/{text[:2]}/{text[2:]}"


def checked(key: str, data: bytes) -> bytes:
    """Return the content of an object.

    Raises:
        BackendError: If it is not what the key was made of.
    """
    if object_key(checksum(data)) != key:
        raise BackendError(
            f"the object {key} does not have the content that its key was made of; the store has lost or changed it",
            reason="CORRUPT_VALUE",
            fields={"object_key": key},
        )
    return data


class UrlObjectStore:
    """A store behind a URL: ``file:///…``, ``s3://…``, ``gs://…``, ``az://…``; opened at first use.

    Credentials come from the environment, as the providers' own tools take them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._opening = threading.Lock()
        self._opened: obstore.store.ObjectStore | None = None

    def get(self, key: str) -> bytes:
        import obstore
        from obstore.exceptions import BaseError

        try:
            data = bytes(obstore.get(self._store(), key).bytes())
        except FileNotFoundError as error:
            raise _gone(key, self.url) from error
        except (BaseError, OSError) as error:
            raise self._failed("read", key, error) from error
        return checked(key, data)

    def put(self, key: str, data: bytes) -> None:
        import obstore
        from obstore.exceptions import BaseError

        try:
            obstore.put(self._store(), key, data)
        except (BaseError, OSError) as error:
            raise self._failed("write", key, error) from error

    def _store(self) -> obstore.store.ObjectStore:
        with self._opening:
            if self._opened is None:
                self._opened = _open(self.url)
            return self._opened

    def _failed(self, action: str, key: str, error: Exception) -> BackendError:
        return BackendError(
            f"cannot {action} {key} in the object store {self.url}: {error}",
            reason="OBJECT_STORE",
            fields={"object_key": key, "url": self.url},
        )


def _gone(key: str, url: str) -> NotFoundError:
    return NotFoundError(
        f"the object {key} is not in the store {url}; it was deleted, or written to another store",
        reason="OBJECT_NOT_FOUND",
        fields={"object_key": key, "url": url},
    )


def _open(url: str) -> obstore.store.ObjectStore:
    try:
        from obstore.store import LocalStore, from_url
    except ImportError as error:
        raise UsageError(
            f"the values of this planner are in {url}, which needs the package obstore: pip install 'dalsegno[s3]'",
            reason="MISSING_LIBRARY",
            fields={"url": url},
        ) from error
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)), mkdir=True)
    return from_url(url)
