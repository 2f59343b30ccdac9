"""TCP proxies between the processes, whose connections can be cut and frozen."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

_CHUNK = 64 * 1024
_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset: what is on its way is lost, as when a host goes."""


class Door:
    """Listens on a port of its own and relays to the first target that answers, in turn.

    Args:
        targets: Unix sockets.
    """

    def __init__(self, targets: Sequence[Path]) -> None:
        self.port = 0
        self._targets = targets
        self._turns = itertools.count()
        self._open = asyncio.Event()
        self._open.set()
        self._connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._relays: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._welcome, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Reset all connections that there are."""
        for pair in self._connections:
            for writer in pair:
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                writer.transport.abort()

    async def say(self, data: bytes) -> None:
        """Put words into the target's mouth, on every connection."""
        for outer, _ in self._connections:
            outer.write(data)

    async def freeze(self) -> None:
        """Let nothing through any more, and close nothing."""
        self._open.clear()

    async def thaw(self) -> None:
        """Let through what has gathered."""
        self._open.set()

    async def close(self) -> None:
        """Listen no longer, and cut what there is."""
        if self._server is not None:
            self._server.close()
        await self.cut()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(self._turns)
        for number in range(len(self._targets)):
            target = self._targets[(first + number) % len(self._targets)]
            with contextlib.suppress(OSError):
                inner_reader, inner_writer = await asyncio.open_unix_connection(target)
                break
        else:
            writer.transport.abort()
            return
        pair = (writer, inner_writer)
        self._connections.add(pair)
        for source, sink in ((reader, inner_writer), (inner_reader, writer)):
            relay = asyncio.create_task(self._relay(source, sink, pair))
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)

    async def _relay(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        try:
            while data := await source.read(_CHUNK):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # one of them is gone: so is the other, below
        finally:
            self._connections.discard(pair)
            for writer in pair:
                writer.close()


class Doors:
    """All doors, on a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="doors", daemon=True)
        self._thread.start()
        self._doors: list[Door] = []

    def open(self, *targets: Path) -> Door:
        """Open a door to these sockets."""
        door = Door(targets)
        self.do(door.listen())
        self._doors.append(door)
        return door

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Have a door do something, and wait until it has."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Close all of them."""
        for door in self._doors:
            self.do(door.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
