"""Sequences that fetch what is looked at."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, overload

from dalsegno.errors import NotFoundError

T = TypeVar("T")
V = TypeVar("V")

FetchPage = Callable[[str], tuple[Sequence[T], str]]
"""From a page token to the page and the token of the next one; empty tokens are the first page and the end."""


class PagedSequence(Sequence[T]):
    """A sequence that is fetched page by page, as far as it is looked at.

    Args:
        fetch: Fetches a page.
        count: How many elements there are, where that is known beforehand.
    """

    def __init__(self, fetch: FetchPage[T], count: int | None = None) -> None:
        self._fetch = fetch
        self._count = count
        self._items: list[T] = []
        self._token: str | None = None

    def __len__(self) -> int:
        if self._count is None:
            self._reach(None)
            return len(self._items)
        return self._count

    def __iter__(self) -> Iterator[T]:
        index = 0
        while index < len(self._items) or self._next_page():
            while index < len(self._items):
                yield self._items[index]
                index += 1

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if index >= 0:
            self._reach(index)
        if not 0 <= index < len(self._items):
            raise IndexError(index)
        return self._items[index]

    def __repr__(self) -> str:
        return _shown(self)

    def _reach(self, index: int | None) -> None:
        while (index is None or index >= len(self._items)) and self._next_page():
            pass

    def _next_page(self) -> bool:
        if self._token == "":
            return False
        items, self._token = self._fetch(self._token or "")
        self._items.extend(items)
        return bool(items) or self._token != ""


class NamedSequence(PagedSequence[T]):
    """A sequence whose elements can also be had by name: ``checkpoints["train"]``.

    Args:
        kind: What the elements are, for errors.
        name_of: The name of an element.
        fetch: Fetches a page.
        find: Fetches one element by its name, where that is quicker than fetching all.
    """

    def __init__(
        self,
        kind: str,
        name_of: Callable[[T], str],
        fetch: FetchPage[T],
        find: Callable[[str], T | None] | None = None,
    ) -> None:
        super().__init__(fetch)
        self._kind = kind
        self._name_of = name_of
        self._find = find
        self._found: dict[str, T] = {}

    @overload
    def __getitem__(self, index: int | str) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | str | slice) -> T | Sequence[T]:
        if not isinstance(index, str):
            return super().__getitem__(index)
        found = self.get(index)
        if found is None:
            raise self._missing(index)
        return found

    def __contains__(self, item: object) -> bool:
        return self.get(item) is not None if isinstance(item, str) else item in list(self)

    def get(self, name: str) -> T | None:
        """Return the element of this name; None where there is none."""
        if name not in self._found:
            self._found.update((self._name_of(item), item) for item in self._items)
        if name not in self._found and self._token != "":
            found = self._looked_for(name)
            if found is not None:
                self._found[name] = found
        return self._found.get(name)

    def names(self) -> list[str]:
        """Return the names of all elements, in order."""
        return [self._name_of(item) for item in self]

    def _looked_for(self, name: str) -> T | None:
        found = self._find(name) if self._find is not None else None
        if found is not None and self._name_of(found) == name:
            return found
        return next((item for item in self if self._name_of(item) == name), None)

    def _missing(self, name: str) -> NotFoundError:
        names = self.names()
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        return NotFoundError(
            f"there is no {self._kind} {name!r}; there are: {listed or 'none'}.{hint}", fields={self._kind: name}
        )


class LazyMapping(Mapping[str, V]):
    """Values by name, each loaded when it is looked at, and kept."""

    def __init__(self, loaders: Mapping[str, Callable[[], V]]) -> None:
        self._loaders = loaders
        self._loaded: dict[str, V] = {}

    def __getitem__(self, name: str) -> V:
        if name not in self._loaded:
            self._loaded[name] = self._loaders[name]()
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)

    def __repr__(self) -> str:
        return repr(dict(self))


def _shown(items: PagedSequence[T]) -> str:
    first = [repr(item) for _, item in zip(range(8), items, strict=False)]
    more = ", …" if len(first) == 8 else ""
    return f"[{', '.join(first)}{more}]"
