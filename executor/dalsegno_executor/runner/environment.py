"""What a runner knows of the planner that its work comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from dalsegno.object_store import UrlObjectStore
from dalsegno.payloads import DEFAULT_INLINE_LIMIT, encode_named, from_payload, read_payload, to_payload
from dalsegno.v1.executor_service_pb2 import Welcome, WrittenLine
from dalsegno.v1.value_pb2 import Payload
from dalsegno.values import Encoded, decode
from dalsegno_executor.runner.objects import ObjectCache, Prefetched
from dalsegno_executor.runner.running import RunningCalls

Read: TypeAlias = Callable[[Payload], Any]


@dataclass(frozen=True, slots=True)
class Environment:
    """Where values are kept, how large they may be, who keeps what user code writes, and which of it runs."""

    store: ObjectCache | None = None
    store_url: str = ""
    inline_limit: int = DEFAULT_INLINE_LIMIT
    payload_limit: int | None = None
    keep_line: Callable[[WrittenLine], object] = lambda line: None
    running: RunningCalls = field(default_factory=RunningCalls)

    def told_by(self, welcome: Welcome) -> Environment:
        """Return the environment that a planner has told."""
        url = welcome.object_store_url
        store = self.store
        # Every reconnect brings a welcome. What is cached of a store stays good.
        if url != self.store_url:
            store = ObjectCache(UrlObjectStore(url)) if url else None
        return replace(
            self,
            store=store,
            store_url=url,
            inline_limit=welcome.inline_limit or DEFAULT_INLINE_LIMIT,
            payload_limit=welcome.payload_limit or None,
        )

    def read(self, payload: Payload) -> Any:
        """Return a value, a new object at every call."""
        return from_payload(payload, self.store)

    def reader(self, keys: Callable[[], Iterable[str]]) -> Read:
        """Return what does as `read` does for values that are read together.

        Args:
            keys: Returns the objects that they are in, all of which are got at once where one is needed.
        """
        if self.store is None:
            return self.read
        return Prefetched(self.store, keys).read

    def read_encoded(self, payload: Payload) -> tuple[Encoded, Any]:
        """Return a value as it is stored, and as `read` does."""
        encoded = read_payload(payload, self.store)
        return encoded, decode(encoded)

    def write(self, value: object, what: str, payload: Payload | None = None) -> tuple[Encoded, Payload]:
        """Encode a value, and store it if it is large; `what` is how an error names it."""
        encoded = encode_named(value, what)
        return encoded, self.store_encoded(encoded, what, payload)

    def store_encoded(self, encoded: Encoded, what: str = "the value", payload: Payload | None = None) -> Payload:
        """Return the payload of an encoded value, the given one or a new one; a large value is in the store then."""
        return to_payload(encoded, self.store, self.inline_limit, self.payload_limit, what=what, payload=payload)
