"""A name server for the tests: one name, and the addresses behind it."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

NAME = "planners.test"
_HEADER = struct.Struct("!6H")
_IS_ANSWER, _NO_SUCH_NAME = 0x8580, 3
_IPV4, _INTERNET = 1, 1
_POINTER_TO_QUESTION = b"\xc0\x0c"
_END = b""


class NameServer:
    """Answers for `NAME` with all its addresses, on a port of this machine.

    gRPC asks it where a target says so: ``dns://<server>/<name>:<port>``.

    Args:
        addresses: IPv4.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = [ipaddress.IPv4Address(one).packed for one in addresses]
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="names", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.sendto(_END, self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def target(self, port: int) -> str:
        """Where gRPC finds this port of all the addresses."""
        return f"dns://127.0.0.1:{self._socket.getsockname()[1]}/{NAME}:{port}"

    def _serve(self) -> None:
        while True:
            query, asker = self._socket.recvfrom(512)
            if query == _END:
                return
            self._socket.sendto(self._answer(query), asker)

    def _answer(self, query: bytes) -> bytes:
        number, _, _, _, _, _ = _HEADER.unpack_from(query)
        name, place = _name(query, _HEADER.size)
        kind, _ = struct.unpack_from("!2H", query, place)
        question = query[_HEADER.size : place + 4]
        known = name == NAME
        found = self._addresses if known and kind == _IPV4 else []
        flags = _IS_ANSWER if known else _IS_ANSWER | _NO_SUCH_NAME
        records = [
            _POINTER_TO_QUESTION + struct.pack("!2HIH", _IPV4, _INTERNET, 0, len(address)) + address
            for address in found
        ]
        return _HEADER.pack(number, flags, 1, len(records), 0, 0) + question + b"".join(records)


def _name(query: bytes, place: int) -> tuple[str, int]:
    """The name that is asked for, and where it ends."""
    labels = []
    while length := query[place]:
        labels.append(query[place + 1 : place + 1 + length].decode())
        place += 1 + length
    return ".".join(labels).lower(), place + 1
